import numpy as np
import pytest

from theory.forecast_error import (
    best_horizon,
    best_skill,
    break_even_horizon,
    curved_ratio,
    damped_skill,
    line_ratio,
    optimal_damping,
    reground_block_mean,
    reground_block_variance,
    reground_contraction,
    reground_curved_variance,
    scaled_contraction,
    slope_ratio,
    stability_limit,
    two_point_ratio,
)
from theory.prediction import InvalidArgument

REPLICATES = 40_000


def run(random, n, signal, horizon, curvature=0.0):
    """Window of n checkpoints (unit noise an interval) and what follows, whole intervals ahead."""
    span = n - 1
    time = np.arange(n + horizon)
    tau = time / span
    path = signal * np.sqrt(span) * (tau + curvature * (tau**2 - tau) / 2)
    noise = random.standard_normal((REPLICATES, n + horizon - 1)).cumsum(1)
    values = np.concatenate([np.zeros((REPLICATES, 1)), noise], axis=1) + path
    return values[:, :n], values[:, -1]


def squared(forecast, truth):
    return (forecast - truth) ** 2


@pytest.mark.parametrize(("signal_squared", "horizon"), [(0.25, 5), (1.0, 13), (4.0, 26), (0.0, 3)])
def test_two_point_and_damped_by_simulation(random, ratio_agree, signal_squared, horizon):
    window, truth = run(random, 14, np.sqrt(signal_squared), horizon)
    g = horizon / 13
    moved, last = window[:, -1] - window[:, 0], window[:, -1]
    held = squared(last, truth)
    ratio_agree(squared(last + g * moved, truth), held, two_point_ratio(signal_squared, g))
    for weight in (0.3, float(optimal_damping(signal_squared))):
        forecast = squared(last + weight * g * moved, truth)
        ratio_agree(forecast, held, 1 - damped_skill(signal_squared, g, weight))
    assert damped_skill(signal_squared, g, optimal_damping(signal_squared)) == pytest.approx(
        best_skill(signal_squared, g), abs=1e-12
    )


@pytest.mark.parametrize(
    ("n", "signal_squared", "horizon"), [(3, 1.0, 2), (14, 1.2, 13), (14, 4.0, 2), (40, 0.5, 20)]
)
def test_least_squares_by_simulation(random, ratio_agree, n, signal_squared, horizon):
    window, truth = run(random, n, np.sqrt(signal_squared), horizon)
    time = np.arange(n)
    slope, intercept = np.polyfit(time, window.T, 1)
    held = squared(window[:, -1], truth)
    g = horizon / (n - 1)
    ratio_agree(squared(window[:, -1] + slope * horizon, truth), held, slope_ratio(n, signal_squared, g))
    ratio_agree(squared(intercept + slope * (n - 1 + horizon), truth), held, line_ratio(n, signal_squared, g))


@pytest.mark.parametrize(
    ("signal_squared", "curvature", "horizon"), [(4.0, -0.5, 13), (9.0, -1.0, 6), (2.0, 0.5, 20)]
)
def test_curved_ratio_by_simulation(random, ratio_agree, signal_squared, curvature, horizon):
    window, truth = run(random, 14, np.sqrt(signal_squared), horizon, curvature)
    g = horizon / 13
    forecast = window[:, -1] + g * (window[:, -1] - window[:, 0])
    ratio_agree(
        squared(forecast, truth), squared(window[:, -1], truth), curved_ratio(signal_squared, curvature, g)
    )


def test_published_thresholds():
    """Two-point pays iff S > 1, least squares iff S² > 1.2 (as n grows)."""
    g = np.array([0.01, 1.0, 100.0])
    assert np.all(two_point_ratio(1.0001, g) < 1)
    assert np.all(two_point_ratio(0.9999, g) > 1)
    assert slope_ratio(100_000, 1.2, g) == pytest.approx(np.ones(3), abs=1e-4)
    assert np.all(slope_ratio(14, 1.2, g) < 1)  # at n = 14 the threshold is 1.126
    assert slope_ratio(14, 6 * 197 / (5 * 14 * 15), g) == pytest.approx(np.ones(3))
    assert slope_ratio(2, 0.7, g) == pytest.approx(two_point_ratio(0.7, g))
    assert line_ratio(2, 0.7, g) == pytest.approx(two_point_ratio(0.7, g))
    assert line_ratio(14, 4.0, 0.01) > 10  # the line misses even the last value


def test_damping_is_the_best_one_and_independent_of_the_horizon():
    weights = np.linspace(0, 1, 1001)
    for signal_squared, g in ((0.5, 0.1), (0.5, 10.0), (4.0, 1.0)):
        skills = damped_skill(signal_squared, g, weights)
        assert weights[skills.argmax()] == pytest.approx(optimal_damping(signal_squared), abs=1e-3)
    assert damped_skill(1.0, 2.0, [0.0, 1.0]) == pytest.approx([0, 1 - two_point_ratio(1.0, 2.0)])


def test_limits_of_signal():
    assert two_point_ratio([0.0, np.inf], 2.0) == pytest.approx([3, 0])
    assert optimal_damping([0.0, np.inf]) == pytest.approx([0, 1])
    assert best_skill([0.0, np.inf], 2.0) == pytest.approx([0, 1])
    assert damped_skill(np.inf, 3.0, [0.5, 1.0]) == pytest.approx([0.75, 1.0])
    assert curved_ratio(3.0, 0.0, 0.7) == pytest.approx(two_point_ratio(3.0, 0.7))
    assert curved_ratio(np.inf, -0.4, 1.0) == pytest.approx((0.4 / 0.6) ** 2)
    assert curved_ratio(1e14, -0.4, 1.0) == pytest.approx(curved_ratio(np.inf, -0.4, 1.0), rel=1e-9)


def test_break_even_and_best_horizon_by_search():
    g = np.geomspace(1e-3, 1e3, 200_001)
    for signal_squared, curvature in ((4.0, -0.3), (25.0, -0.1), (2.0, -0.2)):
        ratio = curved_ratio(signal_squared, curvature, g)
        assert g[np.flatnonzero(ratio < 1)[-1]] == pytest.approx(
            break_even_horizon(signal_squared, curvature), rel=1e-3
        )
        persistence = g + signal_squared * g**2 * (1 + curvature * (1 + g) / 2) ** 2
        assert g[(persistence * (1 - ratio)).argmax()] == pytest.approx(
            best_horizon(signal_squared, curvature), rel=1e-3
        )


def test_break_even_limits():
    assert break_even_horizon([4.0, 0.9, 1.0], 0.0) == pytest.approx([np.inf, 0, 0])
    assert break_even_horizon(0.0, -0.5) == 0
    assert break_even_horizon(4.0, -0.8) == 0  # the bend eats the gain before it starts
    assert break_even_horizon(np.inf, -0.25) == pytest.approx(3)


@pytest.mark.parametrize(("rho", "m", "n"), [(1.0, 5, 20), (0.95, 10, 20), (0.9, 4, 1), (-0.3, 2, 2)])
def test_regrounding_blocks_by_simulation(random, agree, rho, m, n):
    drift, noise, start = 0.4, 0.7, 3.0
    updates = noise * random.standard_normal((REPLICATES, m))
    straight = (1 + n / m) * (drift + updates).sum(1)
    scaled_rate = ((m + n) / m * (drift + updates)).sum(1)
    assert scaled_rate == pytest.approx(straight)
    agree(straight, reground_block_mean(m, n, drift))
    agree((straight - straight.mean()) ** 2, reground_block_variance(m, n, noise), 1e-3)
    position = np.full(REPLICATES, start)
    for k in range(m):
        position = rho * position + updates[:, k]
    jumped = position + n / m * (position - start)
    agree(jumped, start * reground_contraction(rho, m, n))
    agree((jumped - jumped.mean()) ** 2, reground_curved_variance(rho, m, n, noise), 1e-3)
    position = start
    for _ in range(m):
        position -= (1 - rho) * (m + n) / m * position
    assert position == pytest.approx(start * scaled_contraction(rho, m, n))


def test_regrounding_limits():
    assert reground_contraction(1.0, 20, 100) == 1
    assert reground_contraction(0.9, 7, 0) == pytest.approx(0.9**7)
    assert reground_contraction(0.9, 1, 3) == pytest.approx(scaled_contraction(0.9, 1, 3))
    assert reground_curved_variance(1.0, 20, 100, 1.0) == pytest.approx(reground_block_variance(20, 100, 1.0))
    assert stability_limit(1.0, 20) == np.inf
    # small curvature: both contract alike to first order, to order (1-rho)² apart
    gap = [reground_contraction(1 - e, 20, 100) - scaled_contraction(1 - e, 20, 100) for e in (1e-4, 1e-5)]
    assert gap[0] / gap[1] == pytest.approx(100, rel=0.02)
    limit = float(stability_limit(0.9, 5))
    assert (
        abs(reground_contraction(0.9, 5, int(limit))) < 1 < abs(reground_contraction(0.9, 5, int(limit) + 1))
    )


def test_breaks_down_when_past_noise_reaches_into_the_future(random, ratio_agree):
    """Mean-reverting noise: the stated independence fails, and the ratio with it."""
    values = random.standard_normal((REPLICATES, 3))  # white positions about a mean
    held = squared(values[:, 1], values[:, 2])
    forecast = squared(2 * values[:, 1] - values[:, 0], values[:, 2])
    with pytest.raises(AssertionError):
        ratio_agree(forecast, held, two_point_ratio(0.0, 1.0))


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("signal_squared", lambda: two_point_ratio(-1.0, 1.0)),
        ("horizon_ratio", lambda: two_point_ratio(1.0, 0.0)),
        ("horizon_ratio", lambda: best_skill(1.0, np.inf)),
        ("n", lambda: slope_ratio(1, 1.0, 1.0)),
        ("n", lambda: line_ratio(2.5, 1.0, 1.0)),
        ("damping", lambda: damped_skill(1.0, 1.0, np.nan)),
        ("curvature", lambda: curved_ratio(1.0, np.inf, 1.0)),
        ("curvature", lambda: break_even_horizon(4.0, 0.1)),
        ("m", lambda: reground_block_mean(0, 5, 1.0)),
        ("n", lambda: reground_block_variance(5, -1, 1.0)),
        ("noise", lambda: reground_block_variance(5, 1, -1.0)),
        ("rho", lambda: reground_contraction(1.2, 5, 1)),
        ("rho", lambda: stability_limit(-1.0, 5)),
        ("drift", lambda: reground_block_mean(5, 5, np.inf)),
    ],
)
def test_refuses_and_names_the_argument(argument, call):
    with pytest.raises(InvalidArgument, match=f"^{argument}:"):
        call()
