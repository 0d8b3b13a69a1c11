"""A pretrained model that cannot be used as it was asked for: one clear line, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from lab.policies.scratch import load as load_scratch
from lab.policies.settings import ScratchSettings


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with a context of 40 tokens and no chat template."""
    directory = tmp_path_factory.mktemp("model")
    load_scratch(ScratchSettings("scratch", 1, 16, 2, 16, 40), seed=0).save(directory)
    return directory


def without(token: str) -> Callable[[Path], None]:
    """Take a special token out of the tokenizer."""

    def spoil(directory: Path) -> None:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
        setattr(tokenizer, f"{token}_token", None)
        tokenizer.save_pretrained(directory)

    return spoil


def as_it_is(directory: Path) -> None:
    """Leave the model alone."""


@pytest.mark.parametrize("verb", ["train", "evaluate"])
@pytest.mark.parametrize(
    ("spoil", "words", "parts"),
    [
        (without("pad"), [], ["has no pad token", "set pad_token"]),
        (without("eos"), [], ["has no eos token", "set eos_token"]),
        (as_it_is, ["policy.chat_template=true"], ["policy.chat_template", "set it to false"]),
        (
            as_it_is,
            ["task.prompt='what is the sum of these numbers, {expression}='"],
            ["prompt of", "context of 40", "shorten task.prompt"],
        ),
        (as_it_is, ["generation.max_new_tokens=36"], ["36 new ones", "context of 40", "lower it"]),
    ],
    ids=["pad", "eos", "chat template", "long prompt", "long completion"],
)
def test_it_is_refused_in_one_line_and_leaves_no_run(
    lab: Callable[..., Any],
    saved: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    verb: str,
    spoil: Callable[[Path], None],
    words: list[str],
    parts: list[str],
) -> None:
    directory = tmp_path_factory.mktemp("spoilt")
    for file in saved.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    spoil(directory)
    outcome = lab(verb, "policy=hf", f"policy.path={directory}", *words)
    assert outcome.code == 2, outcome.err
    assert [part for part in parts if part not in outcome.err] == [], outcome.err
    assert len(outcome.err.strip().splitlines()) == 1 and "Traceback" not in outcome.err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
