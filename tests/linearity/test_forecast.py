import tracemalloc

import numpy as np
import pytest

from lab.linearity import choose_damping, forecast_skill, two_point_forecast
from lab.linearity.sign_flip import flip_increments
from lab.linearity.statistics import DampedSkill
from lab.settings import Invalid

UNEQUAL = np.array([0.0, 1, 2, 4, 8, 9, 11, 12, 15, 20])


def _drifting(rng, n, samples, drift):
    return np.cumsum(np.vstack([np.zeros(samples), rng.normal(size=(n - 1, samples)) + drift]), axis=0)


def _by_hand(values, steps, origin, inner):
    """Forecast errors element by element and target by target, without inner products of increments."""

    def step(at, target):
        return (steps[target] - steps[at]) / (steps[at] - steps[0]) * (values[at] - values[0])

    def mean_squares(damping):
        targets = range(origin + 1, len(steps))
        errors = [values[k] - values[origin] - damping * step(origin, k) for k in targets]
        return np.array([np.mean(error**2) for error in errors])

    inner_targets = range(inner + 1, origin + 1)
    top = sum(np.sum(step(inner, k) * (values[k] - values[inner])) for k in inner_targets)
    bottom = sum(np.sum(step(inner, k) ** 2) for k in inner_targets)
    damping = min(max(top / bottom, 0.0), 1.0)
    hold, line, damped = mean_squares(0.0), mean_squares(1.0), mean_squares(damping)
    return (
        damping,
        1 - line / hold,
        1 - damped / hold,
        1 - line.sum() / hold.sum(),
        1 - damped.sum() / hold.sum(),
    )


@pytest.mark.parametrize(
    ("steps", "origin", "inner"),
    [
        (np.arange(14) * 100.0, 9, 6),  # .75 of 13 intervals, .75 of 9.
        (np.arange(5.0), 3, 1),  # .75 of 3 is 2; two inner targets need 1.
        (np.arange(9.0), 6, 4),
        (UNEQUAL, 8, 6),  # Step 15 = .75 of 20 exactly; .75 of 15 = 11.25, so step 11.
    ],
)
def test_equals_the_definition(steps, origin, inner):
    values = 5 + _drifting(np.random.default_rng(0), len(steps), 30, 0.4)
    result = forecast_skill(values, steps)
    damping, by_horizon, damped_by_horizon, skill, damped = _by_hand(values, steps, origin, inner)
    assert result.origin_step == steps[origin]
    assert result.damping == pytest.approx(damping, rel=1e-9)
    assert (result.skill, result.skill_damped) == pytest.approx((skill, damped), rel=1e-9)
    np.testing.assert_array_equal(result.horizon, steps[origin + 1 :] - steps[origin])
    np.testing.assert_allclose(result.skill_by_horizon, by_horizon, rtol=1e-9)
    np.testing.assert_allclose(result.skill_damped_by_horizon, damped_by_horizon, rtol=1e-9)


def test_a_thousand_checkpoints_take_a_few_matrices_of_their_intervals():
    """One [interval, interval] matrix is 8 MB; one for each of the 250 targets would be 2 GB."""
    steps, origin, inner = np.arange(1000) * 10.0, 749, 561  # .75 of 999 intervals, .75 of 749.
    rng = np.random.default_rng(8)
    values = _drifting(rng, 1000, 6, 0.05)
    signs = rng.choice([-1.0, 1.0], size=(40, 999))
    tracemalloc.start()
    try:
        result = forecast_skill(values, steps)
        flipped = DampedSkill().flipped(values, steps, signs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6
    damping, by_horizon, damped_by_horizon, skill, damped = _by_hand(values, steps, origin, inner)
    assert 0 < damping < 1
    assert (result.damping, result.skill, result.skill_damped) == pytest.approx(
        (damping, skill, damped), rel=1e-9
    )
    np.testing.assert_allclose(result.skill_by_horizon, by_horizon, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result.skill_damped_by_horizon, damped_by_horizon, rtol=1e-9, atol=1e-9)
    expected = [_by_hand(flip_increments(values, row), steps, origin, inner)[-1] for row in signs]
    np.testing.assert_allclose(flipped, expected, rtol=1e-9, atol=1e-9)


def test_damping_does_not_see_the_held_out_checkpoints():
    steps = np.arange(14.0)
    values = _drifting(np.random.default_rng(1), 14, 30, 0.5)
    other = values.copy()
    other[10:] += 100.0
    assert forecast_skill(values, steps).damping == forecast_skill(other, steps).damping
    assert forecast_skill(values, steps).damping == pytest.approx(choose_damping(values[:10], steps[:10]))


def test_lines_are_forecast_exactly():
    values = 3.0 + UNEQUAL[:, None] * np.array([1.0, -2.0, 0.0, 1e-6])
    result = forecast_skill(values, UNEQUAL)
    assert (result.skill, result.skill_damped, result.damping) == pytest.approx((1, 1, 1), abs=1e-12)
    np.testing.assert_allclose(result.skill_by_horizon, 1.0, atol=1e-12)
    np.testing.assert_allclose(two_point_forecast(values[:5], UNEQUAL[:5], 12.0), values[-1])


def test_two_point_forecast_damped():
    values = np.array([[1.0], [7.0], [3.0]])
    assert two_point_forecast(values, [0, 1, 4], horizon=2.0, damping=0.5)[0] == pytest.approx(3.5)
    assert two_point_forecast(values, [0, 1, 4], horizon=2.0, damping=0.0)[0] == 3.0


def test_perfect_persistence_is_nan():
    values = np.random.default_rng(2).normal(size=(14, 5))
    values[10:] = values[9]
    result = forecast_skill(values, np.arange(14))
    assert np.isnan([result.skill, result.skill_damped, *result.skill_by_horizon]).all()
    assert not np.isnan(result.damping)


def test_constants_are_nan():
    result = forecast_skill(np.full((14, 5), 0.1), np.arange(14))
    assert np.isnan([result.damping, result.skill, result.skill_damped]).all()


@pytest.mark.parametrize("n", [3, 4])
def test_short_series_have_no_damping(n):
    result = forecast_skill(_drifting(np.random.default_rng(3), n, 10, 1.0), np.arange(n))
    assert np.isnan([result.damping, result.skill_damped]).all()
    assert not np.isnan(result.skill)


def test_a_wide_first_gap_still_leaves_a_fit_window():
    result = forecast_skill(np.random.default_rng(4).normal(size=(4, 3)), [0, 100, 101, 102])
    assert result.origin_step == 100
    np.testing.assert_array_equal(result.horizon, [1, 2])


def test_invariant_to_scale_shift_and_affine_time():
    values = _drifting(np.random.default_rng(5), 10, 40, 0.5)
    one, other = forecast_skill(values, UNEQUAL), forecast_skill(7 - 1e-3 * values, 50 + 3 * UNEQUAL)
    assert (other.skill, other.skill_damped, other.damping) == pytest.approx(
        (one.skill, one.skill_damped, one.damping), rel=1e-9
    )
    np.testing.assert_allclose(other.horizon, 3 * one.horizon)


@pytest.mark.parametrize("signal_ratio", [0.5, 1.0, 2.0])
def test_error_ratio_law(signal_ratio):
    """Two-point / persistence MSE = (1 + h/t) / (1 + S² h/t), S² = drift² t / noise variance per step."""
    n, t = 17, 12
    values = _drifting(np.random.default_rng(6), n, 100_000, signal_ratio / np.sqrt(t))
    result = forecast_skill(values, np.arange(n))
    assert result.origin_step == t
    share = result.horizon / t
    expected = 1 - (1 + share) / (1 + signal_ratio**2 * share)
    np.testing.assert_allclose(result.skill_by_horizon, expected, atol=0.02)


@pytest.mark.parametrize("signal_ratio", [0.5, 1.0, 2.0])
def test_best_damping_law(signal_ratio):
    """lambda* = S² / (1 + S²) with S of the window before the inner origin, here 12 of 16 steps."""
    values = _drifting(np.random.default_rng(7), 17, 100_000, signal_ratio / np.sqrt(12))
    expected = signal_ratio**2 / (1 + signal_ratio**2)
    assert choose_damping(values, np.arange(17)) == pytest.approx(expected, abs=0.015)


def test_damping_is_clipped():
    accelerating = np.arange(10.0)[:, None] ** 2
    turning_back = np.array([0, 1, 2, 3, 4, 5, 6, 3, 0, -3.0])[:, None]
    assert choose_damping(accelerating, np.arange(10)) == 1.0
    assert choose_damping(turning_back, np.arange(10)) == 0.0


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_fit_share_is_checked(share):
    with pytest.raises(Invalid, match="fit_share"):
        forecast_skill(np.zeros((5, 1)), np.arange(5), fit_share=share)
