"""Synthetic runs from the command line: recorded, resumed, measured and summarised like any other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from experiments.kill_resume.kill_resume import differences
from lab.composition import compose
from lab.errors import BadInput
from lab.linearity import forecast_skill, lag_cosine, r_squared
from lab.objectives.bandit_mechanism import mean_scores
from lab.training import build_train_settings, estimate
from lab.trajectory.store import open_store

QUICK = ("logger=none", "steps=12", "recorder.every=3", "recorder.save_every=2", "objective.replicates=6")
TABLE = ("objective.contexts=3", "objective.actions=4", "objective.right_actions=1", "objective.prompts=4")
CELLS = "objective.cells=[{},{prompts: 2, learning_rate: 0.05}]"
BANDIT = ("train", "objective=bandit", "name=a", *QUICK, *TABLE, CELLS)
RUN = Path("runs/train/a")


class Cut(Exception):
    """The end of a process, in the middle of a run."""


def resolved(*overrides: str) -> dict[str, Any]:
    """The configuration of `lab train`."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(compose("train", list(overrides)), resolve=True)
    return dict(found)


def interval(values: np.ndarray) -> list[float]:
    """The 95 % t interval of a mean."""
    return list(
        student.interval(0.95, len(values) - 1, values.mean(), values.std(ddof=1) / len(values) ** 0.5)
    )


def test_a_bandit_run_is_stored_labelled_and_summarised_by_cell(lab: Callable[..., Any]) -> None:
    outcome = lab(*BANDIT)
    assert outcome.code == 0, outcome.err
    tree = open_store(RUN)
    weights = tree["weights"].to_dataset()
    assert weights["step"].values.tolist() == [0, 3, 6, 9, 12]
    assert weights.sizes["param"] == 2 * 6 * 12
    assert weights["cell"].values.tolist() == [0] * 72 + [1] * 72
    assert weights["replicate"].values[:72].tolist() == np.repeat(range(6), 12).tolist()
    assert weights["coordinate"].values[-12:].tolist() == list(range(12))
    assert "first_moment" in weights and "probe" not in tree.children and "logprobs" not in tree.children

    mechanism = tree["mechanism"].to_dataset()
    assert mechanism["gap_square"].dims == ("step", "cell", "replicate", "prompt")
    assert mechanism["drift_square"].dims == ("step", "cell", "replicate")
    logits = weights["weight"].values.reshape(5, 2, 6, 3, 4)
    rate, right, wrong = mean_scores(logits.astype(np.float64), np.arange(4) < np.ones((3, 1)))
    np.testing.assert_allclose(mechanism["pass_rate"].values, rate, atol=1e-12)
    np.testing.assert_allclose(mechanism["gap_square"].values, ((right - wrong) ** 2).sum(-1), rtol=1e-9)
    evaluation = tree["evaluation"].to_dataset()
    np.testing.assert_allclose(evaluation["pass_rate"].values, rate.mean((1, 2, 3)), atol=1e-7)

    summary = json.loads((RUN / "summary.json").read_text())
    assert [cell["overrides"] for cell in summary["cells"]] == [{}, {"prompts": 2, "learning_rate": 0.05}]
    assert [cell["learning_rate"] for cell in summary["cells"]] == [0.01, 0.05]
    steps = weights["step"].values.astype(float)
    for index, cell in enumerate(summary["cells"]):
        mine = weights.isel(param=weights["cell"].values == index)
        path = mine["weight"].values.astype(np.float64)
        each = r_squared(path, steps).reshape(6, 12)
        assert cell["replicates"] == 6 and cell["r2_mean"] == pytest.approx(each.mean())
        assert cell["r2_mean_interval"] == pytest.approx(interval(each.mean(1)))
        assert cell["r2_median_interval"] == pytest.approx(interval(np.median(each, axis=1)))
        assert cell["skill"] == pytest.approx(forecast_skill(path, steps).skill)
        assert cell["lag_cosine"] == pytest.approx(lag_cosine(mine["momentum_free"].values, steps, [1])[0])
        last = rate[-1, index].mean(-1)
        assert cell["pass_rate"]["end"]["mean"] == pytest.approx(last.mean())
        assert [cell["pass_rate"]["end"][end] for end in ("low", "high")] == pytest.approx(interval(last))
    assert summary["pass_rate"]["end"] > summary["pass_rate"]["start"]


def test_a_run_can_be_measured_and_its_momentum_free_path_has_the_cells_rates(
    lab: Callable[..., Any],
) -> None:
    assert (
        lab(
            "train", "objective=quadratic", "name=a", *QUICK, "objective.cells=[{},{learning_rate: 0.1}]"
        ).code
        == 0
    )
    weights = open_store(RUN)["weights"].to_dataset()
    update = weights["update"].values[1:, None]
    first, second = (weights[f"{kind}_moment"].values[1:] for kind in ("first", "second"))
    rate = np.where(weights["cell"].values == 0, 0.01, 0.1)
    # What the momentum would still add if no gradient came any more.
    pending = sum(0.9**later / (1 - 0.9 ** (update + later)) for later in range(1, 400))
    expected = -rate * pending * first / (np.sqrt(second / (1 - 0.999**update)) + 1e-8)
    free = weights["momentum_free"].values[1:] - weights["weight"].values[1:]
    np.testing.assert_allclose(free, expected, rtol=1e-3, atol=1e-6)

    outcome = lab("measure", "run=train/a")
    assert outcome.code == 0, outcome.err
    assert json.loads(Path("runs/measure/001/summary.json").read_text())["weights"]["n"] == 2 * 6 * 16


@pytest.mark.parametrize(
    ("objective", "optimizer"), [("bandit", "adamw"), ("logistic", "sgd"), ("quadratic", "adamw")]
)
def test_a_run_cut_off_and_resumed_is_the_same_bit_for_bit(
    lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, objective: str, optimizer: str
) -> None:
    words = (
        "train",
        f"objective={objective}",
        f"optimizer={optimizer}",
        *QUICK,
        "objective.cells=[{},{learning_rate: 0.05}]",
    )
    assert lab(*words, "name=whole").code == 0
    original, seen = os.replace, []

    def replace(source: Any, target: Any) -> None:
        original(source, target)
        seen.append(Path(target).name)
        if seen.count("resume.ckpt") == 3:  # after step 4, one step past the last recorded one
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        assert lab(*words, "name=cut").code == 3
    assert lab(*words, "name=cut").code == 0
    assert differences(Path("runs/train/whole"), Path("runs/train/cut")) == []


def test_the_twin_of_a_run_shares_its_configuration_and_has_no_drift(lab: Callable[..., Any]) -> None:
    assert lab(*BANDIT, "twin=true", "objective.pure_noise=false").code == 0
    assert not open_store(RUN)["mechanism"]["drift_square"].values.any()
    assert json.loads((RUN / "summary.json").read_text())["twin"] is True


@pytest.mark.parametrize("objective", ["quadratic", "bandit", "logistic"])
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.clip_norm=1.0", r"optimizer\.clip_norm: .*couple independent runs"),
        ("trainer.strategy=ddp", r"trainer\.strategy: "),
        ("trainer.precision=bf16-mixed", r"trainer\.precision: "),
        ("policy=tiny", r"policy: objective=\w+ has no language model"),
        ("task=addition", r"task: objective=\w+ has no language model"),
        ("recorder.checkpoint_every=5", r"recorder\.checkpoint_every: "),
        ("+generation={max_new_tokens: 5, temperature: 1.0}", r"generation: objective=\w+ has no"),
        ("probes={prompts: 3}", r"probes"),
    ],
)
def test_what_a_synthetic_run_does_not_read_is_refused(objective: str, override: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        build_train_settings(resolved(f"objective={objective}", override))


@pytest.mark.parametrize("override", ["generation.max_new_tokens=3", "evaluation.problems=4"])
def test_a_key_of_a_group_that_is_not_read_is_refused(override: str) -> None:
    with pytest.raises(BadInput, match=override.split("=")[0]):
        build_train_settings(resolved("objective=bandit", override))


def test_several_devices_are_refused() -> None:
    with pytest.raises(BadInput, match=r"one process"):
        build_train_settings(resolved("objective=bandit", "trainer.devices=2", "trainer.strategy=ddp"))


@pytest.mark.parametrize("override", ["policy=none", "task=none"])
@pytest.mark.parametrize("objective", ["rlvr", "sft"])
def test_a_language_model_needs_a_policy_and_a_task(objective: str, override: str) -> None:
    with pytest.raises(
        BadInput, match=rf"{override.split('=')[0]}: objective={objective} trains a language model"
    ):
        build_train_settings(resolved(f"objective={objective}", override))


def test_settings_that_do_not_apply_are_none_and_the_estimate_is_of_all_cells() -> None:
    settings = build_train_settings(resolved("objective=bandit", *QUICK, *TABLE, CELLS))
    unread = (settings.policy, settings.task, settings.generation, settings.evaluation, settings.probes)
    assert unread == (None,) * 5
    assert estimate(settings)["rollouts"] == 12 * 2 * 6 * 4 * 8
    assert estimate(settings)["recorded_points"] == 5


def test_numbers_that_run_away_end_the_run_with_exit_code_3(lab: Callable[..., Any]) -> None:
    outcome = lab("train", "objective=quadratic", "optimizer=sgd", *QUICK, "optimizer.learning_rate=1e8")
    assert outcome.code == 3 and "optimizer.learning_rate" in outcome.err
