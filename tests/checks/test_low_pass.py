"""The measurements of prediction 8 against responses written out as sums."""

import numpy as np
import pytest

from lab.checks import low_pass as measured

SIMULATIONS = measured.SIMULATIONS


def run(law, parameters, samples=1, seed=0):
    return SIMULATIONS[law].run(parameters, samples, np.random.default_rng(seed))


@pytest.mark.parametrize(("frequency", "beta"), [(0.3, 0.9), (2.0, 0.6), (0.0, 0.5)])
def test_gain_of_the_first_moment_is_that_of_its_weights(frequency, beta):
    age = np.arange(400)
    exact = abs(((1 - beta) * beta**age * np.exp(-1j * frequency * age)).sum())
    assert run("average_gain", {"frequency": frequency, "beta": beta}).value == pytest.approx(exact, rel=1e-8)


def test_gain_of_a_window_is_that_of_a_mean():
    exact = abs(np.exp(1j * 0.7 * np.arange(9)).mean())
    assert run("window_gain", {"frequency": 0.7, "window": 9}).value == pytest.approx(exact, rel=1e-10)


def test_power_is_the_cosine_sum_of_unbiased_autocovariances():
    moved = np.random.default_rng(0).standard_normal((30, 5))
    lags, frequency = 4, 1.1
    exact = (moved**2).mean(0)
    for lag in range(1, lags):
        exact = exact + 2 * np.cos(lag * frequency) * (moved[lag:] * moved[:-lag]).mean(0)
    assert measured._power(moved, frequency, lags) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize(("beta", "window"), [(0.5, 1), (0.8, 5)])
def test_variance_of_displacements_is_the_mean_of_their_spectrum(beta, window):
    """Over all frequencies; and displacements have the variance of the sum of weights that reach them."""
    parameters = {"beta": beta, "noise": 2.0, "window": window}
    moved = measured._displacements(parameters, window, 200_000, np.random.default_rng(1))
    reach = np.convolve((1 - beta) * beta ** np.arange(300), np.ones(window))
    squares = (moved**2).mean(0)
    error = squares.std() / np.sqrt(len(squares))
    assert abs(squares.mean() - 4 * (reach**2).sum()) < 4 * error
    frequencies = 2 * np.pi * np.arange(64) / 64
    spectrum = np.mean([measured._power(moved, w, 8) for w in frequencies], axis=0)
    assert spectrum == pytest.approx(squares, rel=1e-9)


def test_aliases_of_one_frequency_are_one():
    """Frequencies 2 pi/window apart, and mirror images, look the same at checkpoints."""
    values = [run("alias_frequency", {"frequency": w, "window": 5}).value for w in (0.2, 2 * np.pi / 5 - 0.2)]
    assert values == pytest.approx([0.2, 0.2], rel=1e-9)
