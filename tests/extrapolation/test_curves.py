"""Curves in time: found exactly where there is no noise, and against a fit by other means where there is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from lab.extrapolation.curves import CURVES, curve_combination, fit_parameter, shares

STEPS = np.array([0.0, 10, 30, 40, 80, 90, 120])


def _gram(path: np.ndarray) -> np.ndarray:
    return np.outer(path, path)


@pytest.mark.parametrize(
    ("name", "path", "parameter"),
    [
        ("power", lambda t: 3 - 2 * (t / 120) ** 0.4, 0.4),
        ("power", lambda t: 1 + (t / 120) ** 1.7, 1.7),
        ("saturating", lambda t: 5 - 4 * np.exp(-t / 40), 3.0),
        ("saturating", lambda t: -np.exp(-t / 600), 0.2),
    ],
)
def test_exact_curves_are_found_and_carried_on(name: str, path: object, parameter: float) -> None:
    curve, values = CURVES[name], path(STEPS)  # type: ignore[operator]
    found = fit_parameter(curve, STEPS, _gram(values))
    assert found == pytest.approx(parameter, rel=1e-4)
    later = np.array([150.0, 400.0])
    np.testing.assert_allclose(
        curve_combination(curve, found, STEPS, later) @ values,
        path(later),  # type: ignore[operator]
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", ["power", "saturating"])
def test_noisy_fit_agrees_with_a_direct_search_over_all_three_numbers(name: str) -> None:
    rng = np.random.default_rng(0)
    values = 1 - np.exp(-STEPS / 50) + 0.03 * rng.normal(size=len(STEPS))
    s = shares(STEPS, STEPS)

    def model(numbers: np.ndarray, x: np.ndarray) -> np.ndarray:
        a, b, log = numbers
        p = np.exp(log)
        return a + b * (x**p if name == "power" else (1 - np.exp(-p * x)) / p)

    direct = min(
        (least_squares(lambda n: model(n, s) - values, [0.0, 1.0, start]) for start in (-1.0, 0.0, 1.0)),
        key=lambda result: result.cost,
    )
    found = fit_parameter(CURVES[name], STEPS, _gram(values))
    assert found == pytest.approx(np.exp(direct.x[2]), rel=1e-3)
    ahead = curve_combination(CURVES[name], found, STEPS, np.array([200.0])) @ values
    assert ahead[0] == pytest.approx(model(direct.x, shares(STEPS, [200.0]))[0], rel=1e-3)


def test_several_elements_share_the_parameter() -> None:
    amplitudes = np.array([1.0, -3.0, 0.2])
    path = 2 + np.outer(1 - np.exp(-STEPS / 40), amplitudes)
    assert fit_parameter(CURVES["saturating"], STEPS, path @ path.T) == pytest.approx(3.0, rel=1e-5)


def test_line_is_numpys() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=len(STEPS))
    slope, intercept = np.polyfit(STEPS, values, 1)
    found = curve_combination(CURVES["line"], 1.0, STEPS, np.array([0.0, 500.0])) @ values
    np.testing.assert_allclose(found, [intercept, intercept + 500 * slope], rtol=1e-10)


def test_a_fitted_curve_moves_with_its_path() -> None:
    for name, curve in CURVES.items():
        combination = curve_combination(curve, 0.7 if name != "line" else 1.0, STEPS, np.array([300.0]))
        assert combination.sum() == pytest.approx(1.0)
