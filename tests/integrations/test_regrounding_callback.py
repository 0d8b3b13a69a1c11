"""Re-grounding inside `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback

import lab
from lab.errors import BadInput
from lab.integrations import RegroundingCallback, TrajectoryCallback
from lab.regrounding.regrounder import CheckScores
from lab.trajectory.store import group

MakeTrainer = Callable[..., Trainer]


class Ends(TrainerCallback):
    """Copies all weights before and after the callbacks that stand between two of these."""

    def __init__(self) -> None:
        self.weights: dict[int, Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.on_step_end(args, state, control, **kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.weights[state.global_step] = flat(kwargs["model"])


class After(Ends):
    """Another class, since a trainer warns of two callbacks of one."""


def flat(model: Any) -> Tensor:
    """All weights in one vector."""
    return torch.cat([value.detach().flatten().clone() for value in model.parameters()])


def test_jumps_come_at_the_ends_of_blocks_and_are_recorded(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    before, after, run = Ends(), After(), tmp_path / "runs" / "trainer" / "a"
    jumps = RegroundingCallback("fixed", block_steps=4, jump_steps=6, damping=0.5)
    trainer = make_trainer(before, jumps, after, TrajectoryCallback(run, every=2), max_steps=10)
    trainer.train()
    for step in range(1, 11):
        if step % 4:
            assert torch.equal(before.weights[step], after.weights[step])
            continue
        start = after.weights[step - 4]
        expected = before.weights[step] + 0.5 * 6 / 4 * (before.weights[step] - start)
        torch.testing.assert_close(after.weights[step], expected, rtol=1e-5, atol=1e-6)
        assert not torch.equal(before.weights[step], after.weights[step])
    tree = lab.open(run)
    weights = group(tree, "weights")
    assert weights["effective_step"].values.tolist() == [0, 2, 10, 12, 20, 22]
    names = [name for name, value in trainer.model.named_parameters() for _ in range(value.numel())]
    kept = np.isin(np.array(names), weights["tensor"].values.astype(str))
    for index, step in enumerate((0, 2, 4, 6, 8, 10)):
        seen = set(after.weights[step].numpy()[kept].tolist())
        assert set(weights["weight"].values[index].tolist()) <= seen
    metrics = group(tree, "metrics")["regrounding__jump_steps"].values
    assert metrics[[3, 7]].tolist() == [6, 6] and np.isnan(metrics).sum() == 8


def test_a_training_resumed_in_the_middle_of_a_block_is_the_same(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 5, "output_dir": str(tmp_path / "a")}
    keys = {"block_steps": 4, "outer_learning_rate": 1.5, "outer_momentum": 0.5}
    whole = make_trainer(RegroundingCallback("outer_nesterov", **keys), **saving)
    whole.train()
    resumed = make_trainer(RegroundingCallback("outer_nesterov", **keys), **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-5"))
    assert torch.equal(flat(whole.model), flat(resumed.model))

    (tmp_path / "a" / "checkpoint-5" / "regrounding.pt").unlink()
    lost = make_trainer(RegroundingCallback("outer_nesterov", **keys), **saving)
    with pytest.raises(BadInput, match="start of the block are known at step 5"):
        lost.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-5"))


def test_a_check_given_by_the_user_decides(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    scores = iter([0.0, 1.0, 1.0, 0.0] * 2)  # rises, falls, rises
    asked: list[int] = []

    def check(step: int) -> CheckScores:
        asked.append(step)
        return CheckScores(np.full(8, next(scores)), rollouts=8)

    keys: dict[str, Any] = {"block_steps": 4, "jump_steps": 4, "least_skill": -1e9}
    trainer = make_trainer(RegroundingCallback("adaptive", check=check, **keys))
    trainer.train()
    assert asked == [4, 4, 8, 8, 12, 12]
    entries = [entry for entry in trainer.state.log_history if "regrounding/accepted" in entry]
    assert [entry["regrounding/accepted"] for entry in entries] == [1, 0, 1]
    assert [entry["step"] for entry in entries] == [4, 8, 12]
    assert sum(entry["regrounding/check_rollouts"] for entry in entries) == 48


@pytest.mark.parametrize(
    ("option", "keys", "words"),
    [
        ("fixed", {"block_steps": 0}, "regrounding.block_steps: must be at least 1"),
        ("fixed", {"jump": 3}, "regrounding.jump: no code reads this key"),
        ("nothing", {}, "nothing"),
        ("checkpoint_average", {}, "nothing that a trainer's callback could do"),
    ],
)
def test_bad_settings_are_refused_at_once(option: str, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        RegroundingCallback(option, **keys)


def test_weights_of_low_precision_are_refused(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(RegroundingCallback("fixed"), max_steps=1)
    trainer.model.to(torch.bfloat16)
    with pytest.raises(BadInput, match="bfloat16, in which jumps are rounded away"):
        trainer.train()
