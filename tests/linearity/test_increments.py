import numpy as np
import pytest

from lab.linearity import lag_cosine, split_half
from lab.settings import Invalid


def _walk(rng, n, samples, drift=0.0):
    return np.cumsum(np.vstack([np.zeros(samples), rng.normal(size=(n - 1, samples)) + drift]), axis=0)


def test_lag_cosine_equals_the_definition():
    values = _walk(np.random.default_rng(0), 12, 7, 0.3)
    got = lag_cosine(values, np.arange(12) ** 2.0, [1, 2, 5])
    for index, lag in enumerate([1, 2, 5]):
        first = [values[k + lag] - values[k] for k in range(12 - 2 * lag)]
        second = [values[k + 2 * lag] - values[k + lag] for k in range(12 - 2 * lag)]
        expected = np.vdot(first, second) / (np.linalg.norm(first) * np.linalg.norm(second))
        assert got[index] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("drift", [0.0, 0.3, 1.0])
def test_drift_and_noise_law(drift):
    values = _walk(np.random.default_rng(1), 40, 20_000, drift)
    lags = np.array([1, 2, 4, 8])
    expected = drift**2 * lags / (1 + drift**2 * lags)
    np.testing.assert_allclose(lag_cosine(values, np.arange(40), lags.tolist()), expected, atol=0.01)


def test_fractional_motion_law():
    """Successive displacements of fractional Brownian motion: 2^(2H-1) - 1 at every lag."""
    hurst, n = 0.7, 25
    t = np.arange(1, n + 1.0)
    powers = t[:, None] ** (2 * hurst) + t ** (2 * hurst) - np.abs(t[:, None] - t) ** (2 * hurst)
    factor = np.linalg.cholesky(powers / 2)
    values = factor @ np.random.default_rng(2).normal(size=(n, 20_000))
    np.testing.assert_allclose(lag_cosine(values, t, [1, 2, 4, 8]), 2 ** (2 * hurst - 1) - 1, atol=0.015)


def test_mean_reversion_is_negative():
    values = np.random.default_rng(3).normal(size=(30, 500))
    assert lag_cosine(values, np.arange(30), [1])[0] == pytest.approx(-0.5, abs=0.02)


def test_split_half_equals_the_definition():
    values = _walk(np.random.default_rng(4), 12, 7, 0.3)  # 11 intervals
    for gap, half in [(0, 5), (1, 5), (2, 4), (3, 4), (9, 1)]:
        first, second = values[half] - values[0], values[11] - values[11 - half]
        expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert split_half(values, np.arange(12), gap) == pytest.approx(expected, rel=1e-12)


def test_straight_lines_have_cosine_one():
    values = np.arange(9.0)[:, None] * np.array([1.0, -2.0])
    assert split_half(values, np.arange(9)) == pytest.approx(1.0)
    np.testing.assert_allclose(lag_cosine(values, np.arange(9), [1, 3]), 1.0)


def test_undefined_is_nan():
    steps = np.arange(5)
    still = np.full((5, 3), 0.1)
    assert np.isnan(lag_cosine(still, steps, [1, 2])).all()
    assert np.isnan(split_half(still, steps))
    moving = np.random.default_rng(5).normal(size=(5, 3))
    assert np.isnan(lag_cosine(moving, steps, [1, 2, 3])).tolist() == [False, False, True]
    assert np.isnan(split_half(moving, steps, gap=3))


def test_impossible_arguments():
    with pytest.raises(Invalid, match="lags"):
        lag_cosine(np.eye(4), np.arange(4), [0])
    with pytest.raises(Invalid, match="gap"):
        split_half(np.eye(4), np.arange(4), gap=-1)
