"""Tied heads are counted once, however they are stored; heads that only look tied are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.errors import BadInput
from lab.trajectory.readers import ModelSeries, open_series

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SHAPE = (300, 400)  # more than one piece of a comparison


def embedding(step: int) -> np.ndarray:
    return np.random.default_rng(step).normal(size=SHAPE).astype(np.float32)


def run(folder: Path, write: Any, heads: dict[int, np.ndarray | None], tied: bool | None) -> ModelSeries:
    for step, head in heads.items():
        tensors = {EMBEDDING: embedding(step)} | ({} if head is None else {HEAD: head})
        config = {} if tied is None else {"tie_word_embeddings": tied}
        write(folder / f"checkpoint-{step}", tensors, config=config)
    series = open_series(folder)
    assert isinstance(series, ModelSeries)
    return series


@pytest.mark.parametrize("tied", [True, None])
def test_stored_once(tmp_path: Path, write: Any, tied: bool | None) -> None:
    series = run(tmp_path, write, {0: None, 1: None}, tied)
    assert list(series.tensors) == [EMBEDDING]
    assert series.tied == ({HEAD: EMBEDDING} if tied else {})


@pytest.mark.parametrize("tied", [True, False, None])
def test_stored_twice(tmp_path: Path, write: Any, tied: bool | None) -> None:
    series = run(tmp_path, write, {0: embedding(0), 1: embedding(1)}, tied)
    assert list(series.tensors) == [EMBEDDING] and series.tied == {HEAD: EMBEDDING}


def test_stored_twice_in_one_checkpoint_only(tmp_path: Path, write: Any) -> None:
    series = run(tmp_path, write, {0: None, 1: embedding(1)}, True)
    assert list(series.tensors) == [EMBEDDING] and series.tied == {HEAD: EMBEDDING}


def test_a_head_that_started_as_a_copy_is_its_own(tmp_path: Path, write: Any) -> None:
    trained = embedding(1)
    trained[-2, -1] += 1e-6  # one weight, where no sparse look would find it
    series = run(tmp_path, write, {0: embedding(0), 1: trained}, False)
    assert set(series.tensors) == {EMBEDDING, HEAD} and not series.tied and not series.notes


def test_a_declared_tie_that_does_not_hold_is_said(tmp_path: Path, write: Any) -> None:
    series = run(tmp_path, write, {0: embedding(5), 1: embedding(6)}, True)
    assert set(series.tensors) == {EMBEDDING, HEAD}
    assert "config.json ties them" in series.notes[0]


def test_a_head_in_some_checkpoints_only_that_is_not_the_embedding(tmp_path: Path, write: Any) -> None:
    with pytest.raises(BadInput, match="only in .*checkpoint-1: lm_head.weight"):
        run(tmp_path, write, {0: None, 1: embedding(6)}, False)
