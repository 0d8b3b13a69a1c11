"""Tokenizers that fit a model or do not: unknown tokens with two roles, and ids beyond the embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, processors
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from lab.errors import BadInput
from lab.policies.huggingface import load_directory
from lab.policies.policy import Policy
from lab.policies.tokenizer import build_tokenizer

BUILT_IN = len(build_tokenizer(40))
TEMPLATE = "{% for m in messages %}<unk>{{ m['content'] }}{% endfor %}"


def save(directory: Path, tokenizer: PreTrainedTokenizerFast, embeddings: int = BUILT_IN) -> Path:
    """Save a random GPT-2 with so many embeddings beside a tokenizer."""
    config = GPT2Config(vocab_size=embeddings, n_positions=40, n_embd=16, n_layer=1, n_head=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def unknown_is(role: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose unknown token has another role too; as bos it is put before every text."""
    tokenizer = build_tokenizer(40)
    setattr(tokenizer, f"{role}_token", "<unk>")
    if role == "bos":
        before = processors.TemplateProcessing(
            single="<unk> $A", special_tokens=[("<unk>", tokenizer.unk_token_id)]
        )
        tokenizer.backend_tokenizer.post_processor = before
    return tokenizer


def load(directory: Path, chat_template: bool = False) -> Policy:
    """policy=hf on a directory."""
    return load_directory(str(directory), "float32", chat_template)


@pytest.mark.parametrize("role", ["bos", "eos", "pad"])
def test_an_unknown_token_in_another_role_is_not_taken_for_a_hole(role: str, tmp_path: Path) -> None:
    policy = load(save(tmp_path, unknown_is(role)))
    unknown = policy.tokenizer.unk_token_id
    first = [unknown] if role == "bos" else []
    plain = build_tokenizer(40)
    encoded = policy.encode(["1+2=", "3="])
    for row, text in enumerate(["1+2=", "3="]):
        expected = first + plain(text)["input_ids"]
        assert encoded.ids[row][encoded.mask[row] == 1].tolist() == expected


@pytest.mark.parametrize("role", ["bos", "eos", "pad"])
def test_a_hole_is_refused_whatever_else_the_unknown_token_is(role: str, tmp_path: Path) -> None:
    policy = load(save(tmp_path, unknown_is(role)))
    with pytest.raises(BadInput, match=r"^task\.prompt: the tokenizer has no token for part of 'A\+1='"):
        policy.encode(["1+1=", "A+1="])


def test_an_unknown_token_that_the_template_writes_is_no_hole(tmp_path: Path) -> None:
    tokenizer = unknown_is("eos")
    tokenizer.chat_template = TEMPLATE
    policy = load(save(tmp_path, tokenizer), chat_template=True)
    assert policy.encode(["1"]).ids[0, 0] == tokenizer.unk_token_id
    with pytest.raises(BadInput, match="has no token for part of 'Z'"):
        policy.encode(["Z"])


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_tokenizer_larger_than_the_embeddings_is_refused(
    verb: str,
    lab: Callable[..., Any],
    assert_refused: Callable[[Any, Sequence[str]], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = save(tmp_path_factory.mktemp("model"), build_tokenizer(40), BUILT_IN - 1)
    parts = ["policy.path", str(directory), f"up to number {BUILT_IN - 1}", f"embeddings for {BUILT_IN - 1}"]
    assert_refused(lab(verb, "policy=hf", f"policy.path={directory}"), parts)


def test_a_padding_token_without_an_embedding_is_refused(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(40)
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    assert tokenizer.pad_token_id == BUILT_IN
    save(tmp_path, tokenizer)
    with pytest.raises(BadInput, match=rf"up to number {BUILT_IN}, the model embeddings for {BUILT_IN} "):
        load(tmp_path)
    assert load(save(tmp_path, tokenizer, BUILT_IN + 1)).pad_id == BUILT_IN


def test_an_added_token_without_an_embedding_is_refused_where_a_prompt_has_it(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(40)
    tokenizer.add_tokens([AddedToken("<image>", special=True)])
    policy = load(save(tmp_path, tokenizer))
    assert policy.encode(["12="]).ids.shape == (1, 3)
    with pytest.raises(
        BadInput, match=rf"^task\.prompt: token {BUILT_IN} of '<image>=' has no embedding in "
    ):
        policy.encode(["12=", "<image>="])


def test_a_prompt_without_tokens_is_refused(tmp_path: Path) -> None:
    policy = load(save(tmp_path, build_tokenizer(40)))
    for prompts in (["1=", ""], [""]):
        with pytest.raises(BadInput, match=r"^task\.prompt: '' has no tokens"):
            policy.encode(prompts)
