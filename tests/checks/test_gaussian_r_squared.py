"""The simulations of prediction 5 against the definition of R² and against formulas that are wrong."""

import numpy as np
import pytest

from lab.checks import gaussian_r_squared as simulated
from theory.gaussian_r_squared import drift_walk_mean, random_walk_limit, random_walk_mean

SIMULATIONS = simulated.SIMULATIONS


def run(law, parameters, samples=50_000, seed=0):
    return SIMULATIONS[law].run(parameters, samples, np.random.default_rng(seed))


def test_straightness_is_that_of_the_least_squares_line():
    parameters = {"n": 6, "signal": 2.0, "curvature": -1.0}
    values = simulated.straightness(simulated._signalling, parameters, 20, np.random.default_rng(0))
    paths = simulated._signalling(parameters, 20, np.random.default_rng(0))
    for path, value in zip(paths.T, values, strict=True):
        rest = path - np.polyval(np.polyfit(np.arange(6), path, 1), np.arange(6))
        assert value == pytest.approx(1 - (rest @ rest) / ((path - path.mean()) @ (path - path.mean())))


def test_chunks_add_up():
    assert list(simulated._chunks(10, 1 << 19)) == [2] * 5
    assert sum(simulated._chunks(100_001, 14)) == 100_001


def test_signal_is_drift_over_noise_of_the_window():
    paths = simulated._signalling({"n": 9, "signal": 3.0}, 40_000, np.random.default_rng(1))
    displacement = paths[-1] - paths[0]
    assert displacement.mean() == pytest.approx(3, abs=0.02)
    assert displacement.std() == pytest.approx(1, abs=0.02)
    silent = simulated._signalling({"n": 5, "signal": np.inf, "curvature": 2.0}, 2, np.random.default_rng(1))
    slopes = np.diff(silent[:, 0]) * 4
    assert (slopes[-1] - slopes[0]) / slopes.mean() == pytest.approx(2 * 3 / 4)  # between midpoints


def test_neighbouring_formulas_are_refuted():
    """The limit is not the walk of 14, drift per interval is not drift over the window."""
    walk = run("random_walk_mean", {"n": 14}, 200_000)
    assert abs(walk.value - random_walk_mean(14)) < 4 * walk.standard_error
    assert abs(walk.value - random_walk_limit()) > 6 * walk.standard_error
    drift = run("drift_walk_mean", {"n": 14, "drift": 0.5})
    assert abs(drift.value - drift_walk_mean(14, 0.5 / np.sqrt(13))) > 50 * drift.standard_error
    limit = run("random_walk_limit", {}, 40_000)
    assert abs(limit.value - random_walk_limit()) < 4 * limit.standard_error
