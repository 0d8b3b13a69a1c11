"""Any Hugging Face causal LM: safetensors weights, no code from the repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lab.errors import BadInput
from lab.memory import is_out_of_memory
from lab.policies.decoder_layers import decoder_layers
from lab.policies.error_text import in_words
from lab.policies.policy import Policy
from lab.policies.settings import HuggingFaceSettings
from lab.policies.trial import require_causal_and_cached

_TOKENIZER_FILES = ("*token*", "vocab*", "merges.txt", "*.model", "*.tiktoken", "tekken.json")


def load(settings: HuggingFaceSettings, seed: int) -> Policy:
    """Load the model that `settings.path` names; `seed` is not used.

    Raises:
        BadInput: the directory holds no such model, or its tokenizer lacks what is needed.
    """
    return load_directory(
        settings.path, settings.dtype, settings.chat_template, settings.gradient_checkpointing
    )


def load_directory(
    path: str, dtype: str, chat_template: bool, gradient_checkpointing: bool = False
) -> Policy:
    """Load model and tokenizer from a directory (or a hub name, where a network exists)."""
    directory = Path(path).expanduser()
    local = directory.exists() or path.startswith((".", "/", "~")) or path.count("/") > 1
    if local:
        _check_directory(directory)
    where = str(directory) if local else path
    kept: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    with _naming(where, "config"):
        config = AutoConfig.from_pretrained(where, **kept)
    if local:
        _check_tokenizer(directory)
    with _naming(where, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(where, padding_side="left", **kept)
    with _naming(where, "model"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where,
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # refused below, with the tensor's name
            output_loading_info=True,
            **kept,
        )
    model, info = loaded
    absent = sorted([*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])])
    if absent:
        raise BadInput(
            f"policy.path: {where}: the weights lack {len(absent)} tensors that the config asks for, or have "
            f"them in another shape ({absent[0]}, ...); they would start at random"
        )
    _refuse_left_over_layers(model, sorted(info["unexpected_keys"]), where)
    policy = Policy(
        model,
        tokenizer,
        source=where,
        chat_template=chat_template,
        gradient_checkpointing=gradient_checkpointing,
    )
    _require_embeddings(policy)
    require_causal_and_cached(policy)
    return policy


def _check_directory(directory: Path) -> None:
    if not directory.is_dir():
        raise BadInput(f"policy.path: {directory} is not a directory")
    if not (directory / "config.json").is_file():
        raise BadInput(f"policy.path: {directory} has no config.json, so it is no Hugging Face model")
    if not any(directory.glob("*.safetensors")) and not (directory / "model.safetensors.index.json").exists():
        raise BadInput(
            f"policy.path: {directory} has a config but no safetensors weights; save the model with "
            "save_pretrained, or merge the shards of the framework that wrote it"
        )


def _require_embeddings(policy: Policy) -> None:
    """Refuse a tokenizer whose ordinary tokens the model has no embedding for.

    Of added tokens only those that the lab itself uses are asked about: Gemma 3's tokenizer has one for images that its
    text models lack. Any other is refused where a prompt has it.
    """
    tokenizer = policy.tokenizer
    added = tokenizer.get_added_vocab()
    used = [index for token, index in tokenizer.get_vocab().items() if token not in added]
    used += [
        policy.pad_id,
        policy.eos_id,
        *([] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]),
    ]
    largest, count = max(used), policy.embeddings
    if count is not None and largest >= count:
        raise BadInput(
            f"policy.path: {policy.source}: the tokenizer has tokens up to number {largest}, the model embeddings for "
            f"{count} (0 to {count - 1}); take the model's own tokenizer, or resize its embeddings"
        )


def _check_tokenizer(directory: Path) -> None:
    if not any(path.match(pattern) for pattern in _TOKENIZER_FILES for path in directory.iterdir()):
        raise BadInput(
            f"policy.path: {directory} has no tokenizer files (tokenizer.json or the like); save the model's tokenizer "
            "there with save_pretrained"
        )


@contextmanager
def _naming(where: str, part: str) -> Iterator[None]:
    """Turn whatever a library raises while it reads a part of the model into one line. Running out of memory passes.

    Raises:
        BadInput: the block raised something.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise BadInput(f"policy.path: cannot load {where}, its {part}: {in_words(error)}") from error


def _refuse_left_over_layers(model: PreTrainedModel, unexpected: list[str], where: str) -> None:
    """Refuse weights of more layers than the config asks for: the model in the file is another one.

    Other tensors that are not asked for (a table that is computed anyway, a tied head) do no harm.
    """
    layers = decoder_layers(model)
    if layers is None:
        return
    list_name = next(name for name, module in model.named_modules() if module is layers).rpartition(".")[2]
    pattern = re.compile(rf"(?:^|\.){re.escape(list_name)}\.(\d+)\.(?!.*inv_freq$)")
    found = [(name, pattern.search(name)) for name in unexpected]
    left = [(name, int(match[1])) for name, match in found if match and int(match[1]) >= len(layers)]
    if left:
        raise BadInput(
            f"policy.path: {where}: the weights hold {max(index for _, index in left) + 1} layers, the config asks for "
            f"{len(layers)}, so {len(left)} tensors ({left[0][0]}, ...) would be dropped; mend num_hidden_layers"
        )
