"""Which tokens end a completion: the tokenizer's, and those that the model's generation settings add.

A chat model often ends its turn with another token than the tokenizer's eos: Gemma's <end_of_turn>, Phi-3's <|end|>.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the ids of the tokens that end a completion, the tokenizer's first.

    Ids outside the vocabulary never count. Those that were only taken over from the model's config, where many an
    architecture has a number by default, count where they are special tokens.
    """
    own = int(tokenizer.eos_token_id)
    settings: Any = getattr(model, "generation_config", None)
    named = getattr(settings, "eos_token_id", None)
    ids = [] if named is None else [int(index) for index in (named if isinstance(named, list) else [named])]
    if getattr(settings, "_from_model_config", False):
        added = tokenizer.added_tokens_decoder.items()
        special = {*tokenizer.all_special_ids, *(index for index, token in added if token.special)}
        ids = [index for index in ids if index in special]
    return tuple(dict.fromkeys([own, *(index for index in ids if 0 <= index < len(tokenizer))]))
