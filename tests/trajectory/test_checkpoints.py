"""Full checkpoints `checkpoint-N`: what is kept, and that other tools load them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab.trajectory.checkpoints import checkpoint_steps, write_checkpoint


class Fake:
    """An objective whose model is one file; it fails after writing half of it where asked to."""

    def __init__(self, content: str = "weights", fails: bool = False) -> None:
        self.content = content
        self.fails = fails

    def save_pretrained(self, directory: Path, state: Any = None) -> None:
        (directory / "model.txt").write_text(self.content)
        if self.fails:
            raise OSError(28, "No space left on device")


def write(directory: Path, step: int, keep_last: int | None = None, **how: Any) -> None:
    objective: Any = Fake(**how)
    write_checkpoint(directory, step, objective, keep_last)


def test_steps_are_in_numeric_order(tmp_path: Path) -> None:
    for step in (10, 9, 0, 100):
        write(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    assert checkpoint_steps(tmp_path) == [0, 9, 10, 100]
    assert checkpoint_steps(tmp_path / "nowhere") == []


def test_the_last_ones_and_step_0_are_kept(tmp_path: Path) -> None:
    for step in (0, 5, 10, 15, 20):
        write(tmp_path, step, keep_last=2)
    assert checkpoint_steps(tmp_path) == [0, 15, 20]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-0",
        "checkpoint-15",
        "checkpoint-20",
    ]


def test_all_are_kept_unless_asked_otherwise(tmp_path: Path) -> None:
    for step in (0, 5, 10):
        write(tmp_path, step)
    assert checkpoint_steps(tmp_path) == [0, 5, 10]


def test_a_failure_while_saving_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, 5, fails=True)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_saving_again_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path, 5, content="old")
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, 5, content="new", fails=True)
    assert (tmp_path / "checkpoint-5" / "model.txt").read_text() == "old"


def test_a_step_that_is_replayed_replaces_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 5, content="old")
    write(tmp_path, 5, content="new")
    assert (tmp_path / "checkpoint-5" / "model.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


def test_checkpoints_of_a_run_load_with_transformers(lab: Callable[..., Any], tmp_path: Path) -> None:
    words = ["steps=5", "recorder.every=3", "recorder.checkpoint_every=2", "logger=none", "name=a"]
    sizes = ["objective.prompts=2", "objective.rollouts=4", "evaluation.problems=4", "probes.prompts=2"]
    rate = "optimizer.learning_rate=0.01"
    assert lab("train", *words, *sizes, rate, "objective.aggregation=sequence_sum").code == 0
    run = tmp_path / "runs" / "train" / "a"
    assert checkpoint_steps(run) == [0, 2, 4]  # whatever is recorded in between
    models = [AutoModelForCausalLM.from_pretrained(run / f"checkpoint-{step}") for step in (0, 4)]
    tokenizer = AutoTokenizer.from_pretrained(run / "checkpoint-4")
    ids = tokenizer("12+34=", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        before, after = (model(ids).logits for model in models)
    assert tokenizer.decode(ids[0]) == "12+34=" and before.shape == after.shape
    assert not torch.equal(before, after)
    assert (
        lab("evaluate", "policy=hf", f"policy.path={run / 'checkpoint-4'}", "evaluation.problems=2").code == 0
    )
