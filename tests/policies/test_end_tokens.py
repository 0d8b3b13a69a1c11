"""Tokens that end a completion: those of the tokenizer and of the model's generation settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lab.policies import build_policy_settings, load_policy
from lab.policies.decoder import Decoder
from lab.policies.huggingface import load_directory
from lab.policies.policy import Policy
from lab.policies.scratch import load as load_scratch
from lab.policies.settings import ScratchSettings
from lab.policies.tokenizer import build_tokenizer

OWN = 1
TURN = len(build_tokenizer(40))  # the first id after the built-in ones


def tokenizer_with_turn() -> PreTrainedTokenizerFast:
    """The built-in tokenizer with one more special token, the last of the vocabulary."""
    tokenizer = build_tokenizer(40)
    tokenizer.add_tokens([AddedToken("<end_of_turn>", special=True)])
    assert tokenizer.convert_tokens_to_ids("<end_of_turn>") == TURN
    return tokenizer


def save(directory: Path, generation: dict[str, Any] | None, **config: Any) -> Policy:
    """Save a random model whose generation_config.json says so; none where None. Return it loaded."""
    tokenizer = tokenizer_with_turn()
    settings = LlamaConfig(
        **{
            **dict(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=1),
            **dict(num_attention_heads=2, max_position_embeddings=40, pad_token_id=0, eos_token_id=OWN),
            **config,
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(settings).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "generation_config.json").unlink()
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    return load_directory(str(directory), "float32", chat_template=False)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        (None, {}, (OWN,)),
        ({}, {}, (OWN,)),
        ({"eos_token_id": OWN}, {}, (OWN,)),
        ({"eos_token_id": TURN}, {}, (OWN, TURN)),
        ({"eos_token_id": [TURN, OWN]}, {}, (OWN, TURN)),
        ({"eos_token_id": [OWN, 7]}, {}, (OWN, 7)),  # said on purpose
        ({"eos_token_id": [OWN, TURN + 1, 100_000, -1]}, {}, (OWN,)),  # outside the vocabulary
        (None, {"eos_token_id": [OWN, TURN]}, (OWN, TURN)),  # from the config, a special token
        (None, {"eos_token_id": 7}, (OWN,)),  # from the config, a letter
    ],
)
def test_the_end_tokens_are_those_of_tokenizer_and_generation_settings(
    generation: dict[str, Any] | None, config: dict[str, Any], expected: tuple[int, ...], tmp_path: Path
) -> None:
    policy = save(tmp_path / "a", generation, **config)
    assert policy.end_ids == expected and policy.eos_id == OWN
    policy.save(tmp_path / "b")
    assert load_directory(str(tmp_path / "b"), "float32", chat_template=False).end_ids == expected


@pytest.mark.parametrize("name", ["tiny", "scratch"])
def test_the_built_in_policies_have_one_end_token(name: str) -> None:
    made = (
        load_policy(build_policy_settings({"name": "tiny"}), 0)
        if name == "tiny"
        else load_scratch(ScratchSettings("scratch", 1, 16, 2, 16, 40), seed=0)
    )
    assert made.end_ids == (made.eos_id,)


def test_sampling_ends_at_each_and_the_text_holds_none(tmp_path: Path) -> None:
    """Cut by hand from what is sampled where nothing ends a completion."""
    policy = save(tmp_path, {"eos_token_id": [OWN, TURN]})
    prompts = policy.encode(["1+2=", "34+5="])
    uniforms = torch.rand(64, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    sampled = policy.sample(prompts, uniforms, 1.0)
    policy.end_ids = (-1,)
    endless = policy.sample(prompts, uniforms, 1.0)
    policy.end_ids = (OWN, TURN)
    ends, texts = set(), policy.decode(sampled.tokens, sampled.mask)
    for row, whole in enumerate(endless.tokens.tolist()):
        ending = next((at for at, token in enumerate(whole) if token in (OWN, TURN)), None)
        kept = whole if ending is None else whole[: ending + 1]
        assert sampled.tokens[row][sampled.mask[row]].tolist() == kept
        assert bool(sampled.finished[row]) == (ending is not None)
        assert texts[row] == policy.tokenizer.decode(kept if ending is None else kept[:-1])
        ends |= set() if ending is None else {whole[ending]}
    assert ends == {OWN, TURN}  # both happened
    texts = Decoder(policy).complete(["1+2=", "34+5="], uniforms.numpy().reshape(2, 32, 12), 1.0).texts
    assert texts == policy.decode(sampled.tokens, sampled.mask)
    assert not any("<" in text for text in texts if "<pad>" not in text and "<unk>" not in text)


def test_what_is_learnt_ends_with_the_tokenizers_own(tmp_path: Path) -> None:
    policy = save(tmp_path, {"eos_token_id": [TURN, OWN]})
    tokens, _ = policy.encode_completions(["7"])
    assert tokens[0, -1] == OWN
    assert np.array_equal(tokens[0, :-1], policy.tokenizer("7", add_special_tokens=False)["input_ids"])
