"""From a configuration to settings: what ships composes, twins differ only in the signal, dry runs do nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

import lab as package
from lab.composition import compose
from lab.draw import Draw
from lab.errors import BadInput, Interrupted
from lab.interrupt import interruptible
from lab.measure_settings import MeasureSettings
from lab.objectives import RLVRSettings, SFTSettings
from lab.settings import build
from lab.stopping import stop_after_step
from lab.training import TrainSettings, build_objective, build_train_settings, estimate

ROOT = Path(package.__file__).resolve().parent
EXPERIMENTS = sorted(path.stem for path in (ROOT.parent / "experiments/conf/experiment").glob("*.yaml"))
GROUPS = ("policy", "task", "objective", "optimizer", "trainer", "logger")
OPTIONS = sorted(
    f"{group}={path.stem}"
    for group in GROUPS
    for path in (ROOT / "conf" / group).glob("*.yaml")
    if not path.name.startswith("_")
)
SMALL = ("objective.prompts=6", "objective.rollouts=8", "evaluation.problems=4", "probes.prompts=2")


def settings(*overrides: str) -> TrainSettings:
    """The settings of `lab train OVERRIDE ...`."""
    config: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    return build_train_settings(config)


# --- what ships --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_shipped_experiment_builds(name: str) -> None:
    assert settings(f"experiment={name}").steps >= 1


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_every_group_builds(option: str, tmp_path: Path) -> None:
    group, name = option.split("=")
    extra = ["policy.path=somewhere"] if option == "policy=hf" else []
    if option == "task=math_verify":
        lines = [f'{{"problem": "{number} + 1 = ?", "answer": "{number + 1}"}}' for number in range(50)]
        (tmp_path / "problems.jsonl").write_text("\n".join(lines))
        extra = [f"task.problems={tmp_path / 'problems.jsonl'}"]
    if name == "none" and group in ("policy", "task"):
        assert getattr(settings(option, "objective=bandit"), group) is None
        return
    built = settings(option, *extra)
    part = getattr(built, group)
    assert getattr(part, "settings", part).name == name


def test_the_quickstart_composes_its_three_runs() -> None:
    config: Any = OmegaConf.to_container(compose("quickstart"), resolve=True)
    assert config["objective"]["name"] == "rlvr" and config["contrast"]["name"] == "sft"
    how = build(MeasureSettings, {key: config[key] for key in ("protocol", "flips")})
    assert how.flips >= 99 and how.protocol == "unfiltered"


# --- twins -------------------------------------------------------------------------------------------


def test_the_twin_permutes_advantages_and_has_no_weight_decay() -> None:
    plain, twin = settings(), settings("twin=true")
    assert isinstance(plain.objective, RLVRSettings) and isinstance(twin.objective, RLVRSettings)
    assert not plain.objective.permute_advantages and twin.objective.permute_advantages
    assert plain.optimizer.weight_decay > 0 and twin.optimizer.weight_decay == 0
    assert twin.optimizer.learning_rate == plain.optimizer.learning_rate


@pytest.mark.parametrize(("given", "noise"), [(0.0, 1.0), (0.3, 0.3)])
def test_the_twin_of_supervised_training_has_no_signal(given: float, noise: float) -> None:
    amplitude = f"objective.sign_noise.noise_amplitude={given}"
    twin = settings("objective=sft", amplitude, "twin=true").objective
    assert isinstance(twin, SFTSettings)
    assert twin.sign_noise.signal_amplitude == 0 and twin.sign_noise.noise_amplitude == noise


def test_a_twin_takes_one_update_a_step() -> None:
    with pytest.raises(BadInput, match="twin: needs objective.updates_per_step=1"):
        settings("twin=true", "objective.updates_per_step=2")


@pytest.fixture(scope="module")
def batches() -> tuple[Any, Any]:
    """The first step of a run and of its twin."""
    both = []
    for twin in ("false", "true"):
        objective = build_objective(settings(*SMALL, f"twin={twin}", "policy=tiny"))
        both.append(objective.collect(0, Draw(0)))
    return both[0], both[1]


def test_a_run_and_its_twin_share_problems_and_rollouts(batches: tuple[Any, Any]) -> None:
    plain, twin = batches
    assert plain.prompts.ids.tolist() == twin.prompts.ids.tolist()
    assert plain.rollouts.tokens.tolist() == twin.rollouts.tokens.tolist()
    assert plain.metrics["reward"] == twin.metrics["reward"]


def test_the_twin_has_the_same_advantages_in_another_order(batches: tuple[Any, Any]) -> None:
    plain, twin = (batch.advantages.reshape(6, 8).numpy() for batch in batches)
    assert np.array_equal(np.sort(plain), np.sort(twin)) and not np.array_equal(plain, twin)


# --- dry runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["train", "quickstart", "evaluate"])
def test_a_dry_run_computes_nothing_and_leaves_nothing(
    lab: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("a dry run loads no policy")

    monkeypatch.setattr("lab.policies.load_policy", fail)
    monkeypatch.setattr("lab.training.load_policy", fail)
    outcome = lab(verb, "dry_run=true")
    assert outcome.code == 0 and outcome.last_line == "dry run: nothing was computed"
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_what_the_run_would_refuse(lab: Callable[..., Any]) -> None:
    assert lab("train", "dry_run=true", "steps=0").code == 2


@pytest.mark.parametrize(("steps", "points"), [(10, 3), (12, 4), (1, 2), (400, 81)])
def test_the_estimate_counts_rollouts_and_recorded_points(steps: int, points: int) -> None:
    found = estimate(settings(*SMALL, f"steps={steps}", "recorder.every=5"))
    assert found["rollouts"] == 48 * steps
    assert found["recorded_points"] == points


# --- stopping ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_while_a_step_runs(number: int) -> None:
    with interruptible() as outer, pytest.raises(Interrupted):  # noqa: SIM117
        with stop_after_step() as stop:
            os.kill(os.getpid(), number)
            assert stop()
            raise Interrupted("stopped after the step")
    assert outer.signal_name is None


def test_a_signal_that_came_after_the_last_step_is_not_lost() -> None:
    with interruptible() as outer:
        with pytest.raises(Interrupted, match="SIGTERM"), stop_after_step():
            os.kill(os.getpid(), signal.SIGTERM)
        assert outer.signal_name == "SIGTERM"


def test_a_second_ctrl_c_stops_at_once() -> None:
    reached = False
    with pytest.raises(Interrupted, match="middle of a step"), stop_after_step():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert not reached
