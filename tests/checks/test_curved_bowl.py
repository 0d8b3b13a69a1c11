"""The simulations of prediction 6 against sums written out and against formulas that are wrong."""

import numpy as np
import pytest

from lab.checks import curved_bowl as simulated
from theory.curved_bowl import bowl_mean, floor_mean

SIMULATIONS = simulated.SIMULATIONS


def run(law, parameters, samples=20_000, seed=0):
    return SIMULATIONS[law].run(parameters, samples, np.random.default_rng(seed))


def test_a_run_at_rest_is_not_one_that_starts_at_its_optimum():
    parameters = {"n": 14, "curvature_horizon": 10.0}
    rest = run("floor_mean", parameters)
    start = run("bowl_mean", parameters | {"signal": 0.0})
    assert abs(rest.value - bowl_mean(14, 10.0, 0.0)) > 10 * rest.standard_error
    assert abs(start.value - floor_mean(14, 10.0)) > 10 * start.standard_error


def test_variances_written_out():
    """Three updates: noise² (1 + rho² + rho⁴); long after the start the geometric series."""
    point = run("point_covariance", {"first": 3, "second": 3, "rho": -0.7, "noise": 2.0}, 200_000)
    assert abs(point.value - 4 * (1 + 0.49 + 0.49**2)) < 4 * point.standard_error
    long = run("stationary_covariance", {"gap": 0, "rho": 0.6, "noise": 1.0}, 200_000)
    assert abs(long.value - sum(0.36**k for k in range(40))) < 4 * long.standard_error
    assert long.standard_error == pytest.approx(long.value * np.sqrt(2 / 200_000), rel=0.05)


def test_dense_checkpoints_are_extrapolated_to_the_integral():
    """exp(-3 t) on [0, 1] against a fine midpoint sum."""
    time = (np.arange(200_000) + 0.5) / 200_000
    exact = np.corrcoef(np.exp(-3 * time), time)[0, 1] ** 2
    value = run("noiseless_limit", {"curvature_horizon": 3.0}, 1)
    assert value.value == pytest.approx(exact, abs=1e-9)
    assert value.standard_error == 0


def test_a_jump_and_a_flat_line():
    jump = run("noiseless_r_squared", {"n": 14, "curvature_horizon": np.inf}, 1)
    assert jump.value == pytest.approx(3 / 15)
    straight = run("noiseless_r_squared", {"n": 14, "curvature_horizon": 1e-4}, 1)
    assert straight.value == pytest.approx(1, abs=1e-9)
