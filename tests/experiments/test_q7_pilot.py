"""Horizons of a pilot and of hindsight, on paths and pass rates that are set."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr, ttest_1samp

from experiments.extrapolation_study import pilot
from experiments.extrapolation_study.pilot import (
    best_horizon,
    gain,
    hindsight_of,
    horizon_of_verdict,
    over_tasks,
    rank_correlation,
    reach,
)

STEPS = np.array([20.0, 40.0, 60.0, 80.0])
ORIGINS = (1, 2)


def skill_of(path: np.ndarray) -> np.ndarray:
    """Skill of the line through the first point and each origin, point by point; `path` is [checkpoint, element]."""
    found = np.full((len(ORIGINS), len(STEPS)), np.nan)
    for row, origin in enumerate(ORIGINS):
        slope = (path[origin] - path[0]) / (STEPS[origin] - STEPS[0])
        for target in range(origin + 1, len(STEPS)):
            error = path[target] - path[origin] - slope * (STEPS[target] - STEPS[origin])
            found[row, target] = 1 - (error**2).sum() / ((path[target] - path[origin]) ** 2).sum()
    return found


def path_of(*increments: list[float]) -> np.ndarray:
    return np.concatenate([np.zeros((1, len(increments[0]))), np.cumsum(increments, axis=0)])


def test_a_straight_line_reaches_as_far_as_the_pilot_can_judge() -> None:
    """Twice the fitted window, from 40 to 80 after 20 to 40: 120 steps for a window of 60."""
    assert reach(STEPS, ORIGINS, skill_of(path_of([1.0, 2.0], [1.0, 2.0], [1.0, 2.0])), 60) == 120


def test_a_walk_of_orthogonal_increments_reaches_nowhere() -> None:
    assert reach(STEPS, ORIGINS, skill_of(path_of([1, 0, 0], [0, 1, 0], [0, 0, 1])), 60) == 0


def test_reach_ends_where_skill_first_fails() -> None:
    """Half a window ahead (20-60 to 80) the line helps, one window ahead (20-40 to 60) it overshoots by far."""
    skill = skill_of(path_of([1.0], [0.2], [0.9]))
    assert skill[1, 3] > 0 > skill[0, 2] and skill[0, 3] > 0
    assert reach(STEPS, ORIGINS, skill, 60) == 30


def test_a_horizon_scaled_back_is_a_whole_step() -> None:
    assert reach(np.array([0.0, 20, 40, 60, 80]), (3,), np.array([[np.nan] * 4 + [0.1]]), 60) == 20


def test_hindsight_is_chosen_on_one_half_and_scored_on_the_other() -> None:
    rates = {0.0: [0.50, 0.40], 10.0: [0.60, 0.35], 40.0: [0.20, 0.47]}
    chosen = [best_horizon(rates, half) for half in (0, 1)]
    assert chosen == [10, 40]
    # 10, from the first half, loses .05 on the second; 40, from the second, loses .30 on the first.
    assert gain(rates, chosen) == pytest.approx((-0.30 - 0.05) / 2)
    assert gain(rates, [0, 0]) == 0


def test_of_equal_horizons_the_shortest_is_best() -> None:
    assert best_horizon({5.0: [0.3], 0.0: [0.3], 160.0: [0.3]}, 0) == 0
    assert best_horizon({160.0: [0.4], 5.0: [0.4], 0.0: [0.3]}, 0) == 5


def test_a_horizon_tried_only_because_it_was_predicted_is_not_hindsights() -> None:
    rates = {"0": [0.1, 0.1], "20": [0.2, 0.0], "30": [0.9, 0.9]}
    assert hindsight_of({"rates": {"two_point": rates}}, "two_point") == [20, 0]


def test_a_verdict_names_its_horizon_or_none() -> None:
    straight = "this run: straighter than chance (sign-flip p=.001); "
    assert (
        horizon_of_verdict(straight + "forecastable to 100 steps beyond the fit window with damping .55")
        == 100
    )
    assert horizon_of_verdict(straight + "not forecastable (damped skill -.02, p=.4; undamped -.9)") == 0
    assert horizon_of_verdict("this run: cannot be told: 8 sign patterns cannot give p=.05") == 0


def test_rank_correlation_crosses_the_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "PERMUTATIONS", 499)
    generator = np.random.default_rng(0)
    predicted, best = generator.integers(0, 4, (20, 2)), generator.integers(0, 4, (20, 2))
    found = rank_correlation(predicted, best, ["a"] * 20, np.random.default_rng(1))
    crossed = [spearmanr(predicted[:, half], best[:, 1 - half])[0] for half in (0, 1)]
    assert found["rho"] == pytest.approx(np.mean(crossed))
    same = rank_correlation(predicted, predicted[:, ::-1], ["a"] * 20, np.random.default_rng(1))
    assert same["rho"] == pytest.approx(1) and same["p"] == pytest.approx(1 / 500)
    constant = rank_correlation(np.zeros((20, 2)), best, ["a"] * 20, generator)
    assert constant["rho"] is None and constant["p"] is None


def test_a_difference_between_tasks_alone_is_not_seen_within_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "PERMUTATIONS", 499)
    column = np.repeat([0.0, 1.0], 8)
    found = rank_correlation(
        np.stack([column] * 2, 1), np.stack([column] * 2, 1), ["a"] * 8 + ["b"] * 8, np.random.default_rng(2)
    )
    assert found["rho"] == pytest.approx(1)
    assert found["p"] < 0.02 and found["p_within_tasks"] == 1


def test_the_mean_over_tasks_is_taken_within_each_seed() -> None:
    rows = [{"task": task, "seed": seed} for task in ("a", "b") for seed in range(4)]
    values = np.array([1.0, 2.0, 4.0, 3.0, 9.0, 8.0, 6.0, 7.5])
    found = over_tasks(rows, list(values))
    means = (values[:4] + values[4:]) / 2
    expected = ttest_1samp(means, 0).confidence_interval()
    assert found["all tasks"]["mean"] == pytest.approx(means.mean())
    assert (found["all tasks"]["low"], found["all tasks"]["high"]) == pytest.approx(tuple(expected))
    assert found["b"]["mean"] == pytest.approx(values[4:].mean()) and found["b"]["n"] == 4
