"""Every law is simulated and agrees, on few samples; results depend on seed, law and point alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import theory
from lab.checks import run
from lab.checks.estimate import Estimate
from lab.checks.run import check_law, laws_of, not_simulated, scaled
from lab.checks.settings import QUICK_POINTS, QUICK_SHARE, select_predictions
from lab.checks.simulation import Simulation
from lab.checks.verdict import judge, plant, smallest_planted_errors
from lab.errors import BadInput
from theory import PREDICTION_MODULES, PREDICTIONS
from theory.prediction import Law, Point, Prediction

# Laws of which a 2 % error is shown to be noticed at full effort here, one of each kind that is quick:
# counts, flips, ratios of one large group, variances, moments of the jackknife, an approximation.
POWERED = (
    ("grpo_drift", "drift"),
    ("grpo_drift", "slope_right_constant"),
    ("finite_group", "none_coefficient"),
    ("finite_group", "std_factor_large_group"),
    ("reward_flips", "noisy_pass_rate"),
    ("gradient_noise", "window_variance"),
    ("gradient_noise", "within_trace_large_group"),
)


def test_every_law_can_be_refuted() -> None:
    assert not_simulated(laws_of(PREDICTION_MODULES)) == []


@pytest.mark.parametrize("prediction", PREDICTION_MODULES)
def test_quick_subset_agrees_and_would_see_a_large_error(prediction: str) -> None:
    """Three points of every law, on a 25th of the samples."""
    laws = laws_of([prediction])
    checks = [check for law in laws for check in check_law(*law, 0, QUICK_SHARE, QUICK_POINTS)]
    assert {(check.prediction, check.law) for check in checks} == set(laws)
    verdict = judge(checks)
    failed = [check for check, bad in zip(checks, verdict.failed, strict=True) if bad]
    assert failed == []
    smallest = smallest_planted_errors(checks)
    assert {name: error for name, error in smallest.items() if error > 0.25} == {}


def test_an_error_of_two_percent_is_noticed() -> None:
    checks = [check for law in POWERED for check in check_law(*law, seed=0)]
    assert not judge(checks).failed.any()
    for error in (0.02, -0.02):
        failed = judge(plant(checks, error)).failed
        noticed = {(check.prediction, check.law) for check, bad in zip(checks, failed, strict=True) if bad}
        assert noticed == set(POWERED)


def test_results_depend_on_seed_law_and_point_alone() -> None:
    first = check_law("finite_group", "none_coefficient", seed=3, effort=0.001)
    check_law("finite_group", "std_factor", seed=3, effort=0.001)
    assert check_law("finite_group", "none_coefficient", seed=3, effort=0.001) == first
    other = check_law("finite_group", "none_coefficient", seed=4, effort=0.001)
    assert [a.simulated == b.simulated for a, b in zip(first, other, strict=True)][:6] == [False] * 6


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a law of one's own, and its simulation, in the place of prediction `finite_group`."""

    def place(law: Law, simulation: Simulation | None) -> None:
        prediction = Prediction(2, "finite_group", "a title", (law,))
        registry = {**PREDICTIONS, "finite_group": prediction}
        monkeypatch.setattr(theory, "PREDICTIONS", registry)
        monkeypatch.setattr(run, "simulations", lambda name: {law.name: simulation} if simulation else {})

    return place


def _law(predict: Any, points: tuple[Point, ...]) -> Law:
    return replace(PREDICTIONS["finite_group"].laws[0], name="own", predict=predict, points=points)


def test_points_without_a_prediction_are_left_out(fake: Any) -> None:
    def predict(x: float) -> float:
        return {0.0: np.nan, 1.0: 2.0, 2.0: np.inf, 3.0: 6.0}[x]

    def simulate(parameters: Any, samples: int, generator: np.random.Generator) -> Estimate:
        return Estimate(2 * parameters["x"], 0.0, samples)

    fake(_law(predict, tuple(Point({"x": float(x)}) for x in range(4))), Simulation(simulate, 50))
    checks = check_law("finite_group", "own", seed=0, effort=0.1)
    assert check_law("finite_group", "own", seed=0, effort=0.1, most_points=3) == checks
    assert [(check.point, check.simulated, check.samples) for check in checks] == [(1, 2.0, 50), (3, 6.0, 50)]
    assert checks[0].name == "finite_group.own[1]"


@pytest.mark.parametrize(("most", "points"), [(2, [0, 9]), (3, [0, 4, 9]), (4, [0, 3, 6, 9])])
def test_few_points_are_spread_from_first_to_last(fake: Any, most: int, points: list[int]) -> None:
    def simulate(parameters: Any, samples: int, generator: np.random.Generator) -> Estimate:
        return Estimate(generator.random(), 0.0, samples)

    fake(_law(lambda x: x, tuple(Point({"x": float(x)}) for x in range(10))), Simulation(simulate, 1))
    every = check_law("finite_group", "own", seed=0)
    chosen = check_law("finite_group", "own", seed=0, most_points=most)
    assert [check.point for check in chosen] == points
    assert chosen == [every[point] for point in points]  # with the same random numbers


def test_a_wrong_law_fails(fake: Any) -> None:
    true = PREDICTIONS["finite_group"].law("none_coefficient")

    def wrong(pass_rate: float, rollouts: int) -> Any:
        return pass_rate * (1 - pass_rate)  # forgets (G-1)/G

    fake(_law(wrong, true.points), run.simulations("finite_group")["none_coefficient"])
    failed = judge(check_law("finite_group", "own", seed=0, effort=QUICK_SHARE)).failed
    assert failed.sum() >= 5


def test_a_law_without_simulation_is_named(fake: Any) -> None:
    fake(_law(lambda x: x, (Point({"x": 1.0}),)), None)
    assert not_simulated(laws_of(["finite_group"])) == ["finite_group.own"]


def test_effort_scales_samples_down_to_a_floor() -> None:
    assert [scaled(10_000, effort) for effort in (2.0, 0.5, 0.01)] == [20_000, 5_000, 400]
    assert scaled(5, 0.1) == 5


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (None, list(PREDICTION_MODULES)),
        (1, ["grpo_drift"]),
        ("low_pass", ["low_pass"]),
        ([4, "grpo_drift", 1], ["grpo_drift", "gradient_noise"]),
    ],
)
def test_predictions_by_name_and_number(wanted: Any, names: list[str]) -> None:
    assert select_predictions(wanted) == names
    for name in names:
        assert PREDICTIONS[name].number == PREDICTION_MODULES.index(name) + 1


@pytest.mark.parametrize("wanted", [0, 13, "grpo", [], [1, "x"], True, 1.5])
def test_unknown_predictions_are_refused(wanted: Any) -> None:
    with pytest.raises(BadInput, match="^prediction:"):
        select_predictions(wanted)
