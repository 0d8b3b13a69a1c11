"""Recording inside `transformers.Trainer`, against a watcher that copies everything at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback

import lab
from lab.errors import BadInput
from lab.integrations import TrajectoryCallback
from lab.linearity.momentum import momentum_free_adam, momentum_free_sgd
from lab.measurement import measure
from lab.trajectory.store import group

MakeTrainer = Callable[..., Trainer]


@dataclass
class Moment:
    """Everything about one step."""

    weights: dict[str, Tensor]
    states: dict[str, dict[str, Tensor]]
    rate: float


@dataclass
class Watcher(TrainerCallback):
    """Copies weights, optimiser state and the rate that the step used."""

    moments: dict[int, Moment] = field(default_factory=dict)
    rate: float = 0.0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rate = kwargs["optimizer"].param_groups[0]["lr"]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.note(state.global_step, kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.note(state.global_step, kwargs)

    def note(self, step: int, kwargs: dict[str, Any]) -> None:
        named = dict(kwargs["model"].named_parameters())
        states = {
            name: {
                key: value.clone()
                for key, value in kwargs["optimizer"].state.get(parameter, {}).items()
                if isinstance(value, Tensor)
            }
            for name, parameter in named.items()
        }
        weights = {name: parameter.detach().clone() for name, parameter in named.items()}
        self.moments[step] = Moment(weights, states, self.rate)


def at(dataset: Any, tensors: dict[str, Tensor]) -> np.ndarray:
    """The elements of full tensors that a store follows."""
    pairs = zip(dataset["tensor"].values, dataset["flat_index"].values, strict=True)
    return np.array([float(tensors[name].flatten()[index]) for name, index in pairs], dtype=np.float32)


def test_the_record_is_what_a_watcher_sees(
    make_trainer: MakeTrainer, tmp_path: Path, lab: Callable[..., Any]
) -> None:
    watcher, run = Watcher(), tmp_path / "runs" / "trainer" / "first"
    trainer = make_trainer(watcher, TrajectoryCallback(run, every=5, sample_fraction=0.2, sample_minimum=7))
    trainer.train()
    tree = open_run(run)
    weights = group(tree, "weights")
    assert weights["step"].values.tolist() == [0, 5, 10, 12]
    assert weights["update"].values.tolist() == weights["effective_step"].values.tolist() == [0, 5, 10, 12]
    sizes = {name: value.numel() for name, value in trainer.model.named_parameters()}
    counts = dict(zip(*np.unique(weights["tensor"].values.astype(str), return_counts=True), strict=True))
    assert counts == {name: min(size, max(7, round(0.2 * size))) for name, size in sizes.items()}
    for index, step in enumerate((0, 5, 10, 12)):
        seen = watcher.moments[step]
        now = weights.isel(step=index)
        np.testing.assert_array_equal(now["weight"].values, at(weights, seen.weights))
        if step == 0:
            assert not now["first_moment"].values.any()
            np.testing.assert_array_equal(now["momentum_free"].values, now["weight"].values)
            continue
        for variable, key in (("first_moment", "exp_avg"), ("second_moment", "exp_avg_sq")):
            expected = at(weights, {name: state[key] for name, state in seen.states.items()})
            np.testing.assert_array_equal(now[variable].values, expected)
        moments = (
            now[name].values.astype(np.float64) for name in ("weight", "first_moment", "second_moment")
        )
        expected = momentum_free_adam(*moments, seen.rate, 0.9, 0.999, 1e-8, step)
        np.testing.assert_allclose(now["momentum_free"].values, expected, rtol=1e-5, atol=1e-6)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 12 and logged[-1] < logged[0]
    metrics = group(tree, "metrics")
    np.testing.assert_array_equal(metrics["loss"].values, logged)
    assert "train_runtime" not in metrics
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 13 and rows[0].startswith("step,")
    # The lab's own verb reads it.
    done = lab("measure", f"run={run}", "dry_run=true")
    assert done.code == 0, done.err
    numbers = measure(run, flips=19).numbers["weights"]
    assert 0 < numbers["r2_median"] <= 1 and numbers["n"] <= len(weights["param"])


def open_run(path: Path) -> Any:
    """The store of a run."""
    return lab.open(path)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_other_optimisers(make_trainer: MakeTrainer, tmp_path: Path, optimizer: str) -> None:
    watcher, run = Watcher(), tmp_path / "runs" / "trainer" / "a"
    trainer = make_trainer(
        watcher, TrajectoryCallback(run, every=4), optim=optimizer, optim_args="momentum=0.8", max_steps=8
    )
    trainer.train()
    weights = group(open_run(run), "weights")
    np.testing.assert_array_equal(weights["weight"].values[-1], at(weights, watcher.moments[8].weights))
    momentum = float(open_run(run).attrs["momentum"])
    if optimizer == "rmsprop":  # not followed: only weights, and the momentum that the arguments tell
        assert set(weights.data_vars) == {"weight"} and momentum == 0.9
        return
    assert momentum == 0.8 and "second_moment" not in weights
    last = weights.isel(step=-1)
    expected = momentum_free_sgd(
        last["weight"].values, last["first_moment"].values, watcher.moments[8].rate, 0.8
    )
    np.testing.assert_allclose(last["momentum_free"].values, expected, rtol=1e-5, atol=1e-7)


class Crash(TrainerCallback):
    """Breaks the training off."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_a_resumed_training_is_recorded_as_an_uninterrupted_one(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 4}
    whole = tmp_path / "runs" / "trainer" / "whole"
    make_trainer(TrajectoryCallback(whole, every=3), **saving, output_dir=str(tmp_path / "a")).train()

    broken = tmp_path / "runs" / "trainer" / "broken"
    callback = TrajectoryCallback(broken, every=3)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(callback, Crash(10), **saving, output_dir=str(tmp_path / "b")).train()
    assert not (broken / "trajectory.nc").exists()
    del callback
    resumed = make_trainer(TrajectoryCallback(broken, every=3), **saving, output_dir=str(tmp_path / "b"))
    resumed.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-8"))

    first, second = open_run(whole), open_run(broken)
    for name in ("weights", "metrics"):
        for variable, values in group(first, name).data_vars.items():
            np.testing.assert_array_equal(values.values, group(second, name)[variable].values)
        assert set(group(first, name).data_vars) == set(group(second, name).data_vars)


def test_a_finished_recording_is_not_overwritten(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "trainer" / "a"
    make_trainer(TrajectoryCallback(run), max_steps=3).train()
    model = make_trainer(TrajectoryCallback(run), max_steps=3)
    before = {name: value.detach().clone() for name, value in model.model.named_parameters()}
    with pytest.raises(BadInput, match="is finished; choose another name"):
        model.train()
    assert all(torch.equal(before[name], value) for name, value in model.model.named_parameters())
    make_trainer(TrajectoryCallback(run, clean=True), max_steps=4).train()
    assert group(open_run(run), "weights")["step"].values.tolist() == [0, 4]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"every": 0}, "every: must be at least 1"),
        ({"sample_fraction": 0.0}, "sample_fraction: must lie in"),
        ({"sample_minimum": 1.5}, "sample_minimum: expected a whole number"),
    ],
)
def test_bad_settings_are_refused_at_once(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        TrajectoryCallback(tmp_path / "runs" / "a" / "b", **changes)


def test_a_frozen_model_is_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(TrajectoryCallback(tmp_path / "runs" / "a" / "b"), max_steps=1)
    trainer.model.requires_grad_(False)
    with pytest.raises(BadInput, match="no trained parameters"):
        trainer.train()
