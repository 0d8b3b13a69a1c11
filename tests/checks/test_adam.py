"""The simulations of prediction 7 against cases that need no theory, and against formulas that are wrong."""

import numpy as np
import pytest

from lab.checks import adam as simulated
from theory.adam import diffusion_long, diffusion_short, drift, sign_step_mean, token_snr

SIMULATIONS = simulated.SIMULATIONS


def run(law, parameters, samples=None, seed=0):
    simulation = SIMULATIONS[law]
    return simulation.run(parameters, samples or simulation.samples, np.random.default_rng(seed))


def test_without_noise_every_window_is_walked_at_full_speed():
    windows = simulated.stationary_windows(-0.5, 0.0, 0.1, 0.9, 0.99, 7, 2800, np.random.default_rng(0))
    assert windows.moved.shape == (400, 1)
    assert windows.moved == pytest.approx(-0.7)


def test_without_memory_windows_count_signs_and_controls_hold_their_noise():
    """beta1 = beta2 = 0: the displacement is the sum of signs of the gradients; sums of xi agree in sign with it."""
    windows = simulated.stationary_windows(0.0, 3.0, 1.0, 0.0, 0.0, 4, 6400, np.random.default_rng(1))
    assert windows.moved.shape == (400, 4)
    assert set(np.unique(np.round(windows.moved))) == {-4, -2, 0, 2, 4}
    parts = windows.controls[..., :4]  # one update each
    assert np.sign(parts).sum(-1) == pytest.approx(windows.moved)
    assert windows.variances[:4] == pytest.approx(1)


def test_mirrored_runs_mirror_each_other_where_nothing_pulls():
    paths = simulated.bowl_paths(
        2.0, 0.0, 1.0, 0.1, (0.9, 0.99), np.array([0, 5, 20]), 3, np.random.default_rng(2)
    )
    assert paths.positions.shape == (3, 3, 2)
    assert paths.positions.sum(axis=2) == pytest.approx(4.0)
    assert np.ptp(paths.positions[-1]) > 0.1


def test_arrival_is_counted_as_a_plain_loop_counts_it():
    rate, position, m, v, update = 0.01, 1.0, 0.0, 0.0, 0
    while position > 0.4:
        update += 1
        m = 0.9 * m + 0.1 * position
        v = 0.98 * v + 0.02 * position**2
        before, position = (
            position,
            position - rate * m / (1 - 0.9**update) / np.sqrt(v / (1 - 0.98**update)),
        )
    exact = update - (0.4 - position) / (before - position)
    parameters = {"distance": 1.0, "remaining": 0.4, "curvature": 3.0, "noise": 0.0, "learning_rate": rate}
    arrival = run("descent_time", parameters, 1000)
    assert arrival.value == pytest.approx(exact, rel=1e-9)
    assert arrival.standard_error == pytest.approx(0, abs=1e-9)


def test_neighbouring_formulas_are_refuted():
    window = {"gradient_snr": 1.0, "learning_rate": 1.0, "beta1": 0.5, "beta2": 0.98, "window": 1000}
    long = run("diffusion_long", window, 800_000)
    assert abs(long.value - diffusion_long(1.0)) < 0.025
    assert abs(long.value - diffusion_short(1.0)) > 50 * long.standard_error
    sign = run("sign_step_mean", {"gradient_snr": 1.0, "learning_rate": 1.0}, 100_000)
    assert abs(sign.value - sign_step_mean(1.0)) < 4 * sign.standard_error
    assert abs(sign.value - drift(1.0)) > 6 * sign.standard_error
    tokens = {"decibels": 0.0, "native_snr": 1.5, "tokens": 16, "clustering": 3.0}
    snr = run("token_snr", tokens, 1_000_000)
    assert abs(snr.value - token_snr(0.0, 1.5, 16, 3.0)) < 4 * snr.standard_error
    assert abs(snr.value - token_snr(0.0, 1.5, 16, 1.0)) > 20 * snr.standard_error


def test_the_variance_of_the_control_variates_is_not_the_formula():
    """The same windows, their plain variance: no control, ten times the error, the same number."""
    windows = simulated.stationary_windows(0.2, 1.0, 1.0, 0.0, 0.99, 500, 1_000_000, np.random.default_rng(5))
    plain = windows.moved.var() / 500
    error = plain * np.sqrt(2 / windows.moved.size)
    parameters = {"gradient_snr": 0.2, "learning_rate": 1.0, "beta1": 0.0, "beta2": 0.99, "window": 500}
    estimate = run("diffusion_long", parameters, 1_000_000, seed=5)
    assert abs(estimate.value - plain) < 4 * error
    assert estimate.standard_error < error / 4
