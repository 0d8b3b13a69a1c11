import numpy as np
import pytest
from scipy.integrate import quad

from lab.checks import increment_persistence as motions
from lab.checks.increment_persistence import SIMULATIONS, lag_cosine
from lab.checks.momentum import momentum_positions, warm_up
from lab.checks.pooled import products
from theory import PREDICTIONS


def positions(displacements):
    return np.concatenate([np.zeros((1, displacements.shape[1])), np.cumsum(displacements, axis=0)])


def test_every_law_is_simulated():
    assert set(SIMULATIONS) == {law.name for law in PREDICTIONS["increment_persistence"].laws}


def test_lag_cosine_is_that_of_the_displacements():
    values = np.random.default_rng(0).standard_normal((7, 40)).cumsum(0)
    moved = np.diff(values, axis=0)
    for lag in (1, 2, 4):
        before, after = moved[:-lag], moved[lag:]
        expected = (before * after).sum() / np.sqrt((before**2).sum() * (after**2).sum())
        assert lag_cosine(products(values), lag) == pytest.approx(expected)


@pytest.mark.parametrize("hurst", [0.3, 0.8])
def test_fractional_motion_is_that_of_mandelbrot_and_van_ness(hurst):
    """Covariances drawn from against the moving average of white noise that defines the motion."""
    values = positions(motions._fractional({"hurst": hurst, "lag": 1}, 3, 200_000, np.random.default_rng(1)))
    power = hurst - 0.5

    def kernel(u, time):
        return (max(time - u, 0.0) ** power if u < time else 0.0) - ((-u) ** power if u < 0 else 0.0)

    def covariance(s, t):
        pieces = [(-np.inf, -20.0), (-20.0, 0.0), (0.0, min(s, t))]
        return sum(quad(lambda u: kernel(u, s) * kernel(u, t), *piece, limit=200)[0] for piece in pieces)

    unit = covariance(2.0, 2.0)
    assert np.mean(values[1] ** 2) == pytest.approx(2 ** (2 * hurst), rel=0.02)  # two points a window
    for first, second in ((1, 2), (1, 3), (2, 3)):
        expected = covariance(2.0 * first, 2.0 * second) / unit
        drawn = np.mean(values[first] * values[second]) / np.mean(values[1] ** 2)
        assert drawn == pytest.approx(expected, rel=0.03)


def test_restoring_motion_neither_spreads_nor_settles():
    parameters = {"curvature_window": 0.7, "lag": 1}
    moved = motions._restoring(parameters, 8, 100_000, np.random.default_rng(2))
    energies = np.mean(moved**2, axis=1)
    assert energies == pytest.approx(np.full(8, energies.mean()), rel=0.03)


def test_turning_drift_keeps_its_size_and_forgets_its_direction():
    """Noise averages out over planes: the mean product of drifts k updates apart is q² memory^k."""
    parameters = {"signal_to_noise": 1.0, "memory": 0.8, "window": 1, "lag": 1}
    moved = motions._turning(parameters, 6, 400_000, np.random.default_rng(3))
    for apart in (1, 2, 4):
        assert np.mean(moved[0] * moved[apart]) == pytest.approx(0.8**apart, abs=0.02)
    assert np.mean(moved**2) == pytest.approx(2.0, rel=0.01)
    still = motions._turning({**parameters, "memory": 1.0}, 6, 400_000, np.random.default_rng(3))
    assert np.mean(still[0] * still[5]) == pytest.approx(1.0, abs=0.02)


def test_drifts_have_the_stated_power_in_every_slice():
    parameters = {"signal_to_noise": 0.5, "window": 4}
    moved = motions._drifting(parameters, 3, 8, np.random.default_rng(4))
    drift = (moved[:, :4] + moved[:, 4:]) / 2
    assert np.mean(drift**2) == pytest.approx((0.5 * 4) ** 2)
    assert np.ptp(drift, axis=0) == pytest.approx(np.zeros(4), abs=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_momentum_is_the_moving_average_of_gradients(beta):
    """By a plain recursion over the same gradients, at a rate that differs: displacements are proportional."""
    values = momentum_positions(beta, 3, 5, 0.2, 6, np.random.default_rng(5))
    random, total = np.random.default_rng(5), warm_up(beta) + 12
    noise = random.standard_normal((total, 3))
    gradients = np.concatenate([noise, -noise], axis=1) - 0.2
    buffer, position, path = np.zeros(6), np.zeros(6), []
    for update in range(total + 1):
        if update >= warm_up(beta) and (update - warm_up(beta)) % 3 == 0:
            path.append(position.copy())
        if update < total:
            buffer = beta * buffer + gradients[update]
            position = position - buffer
    assert np.diff(values, axis=0) == pytest.approx(0.01 * np.diff(np.stack(path), axis=0))
    assert beta ** warm_up(beta) <= 1e-9 or beta == 0


def test_odd_and_even_displacements_of_a_short_path():
    values = positions(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]))
    odd, even = np.array([1.0, 1.0]), np.array([1.0, 2.0])
    expected = odd @ even / np.sqrt(odd @ odd * (even @ even))
    assert motions._odd_with_even(products(values)) == pytest.approx(expected)
