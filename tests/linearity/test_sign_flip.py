import itertools

import numpy as np
import pytest
from scipy.stats import binom

from lab.linearity import (
    MedianRSquared,
    flip_increments,
    get_protocol,
    momentum_free_sgd,
    r_squared,
    sign_flip_test,
    sign_patterns,
)
from lab.linearity.flipped_r_squared import FlippedRSquared
from lab.settings import Invalid

UNEQUAL = np.array([0.0, 1, 3, 4, 10, 12, 13, 20])
MEDIAN = MedianRSquared(get_protocol("unfiltered"), "weights")


def _walk(rng, n, samples, drift=0.0):
    return np.cumsum(np.vstack([np.zeros(samples), rng.normal(size=(n - 1, samples)) + drift]), axis=0)


def _median(values, steps):
    return float(np.nanmedian(r_squared(values, steps)))


def _rng(seed=0):
    return np.random.default_rng(seed)


def test_fourteen_checkpoints_have_4096_distinct_patterns():
    patterns = sign_patterns(13, 999, _rng())
    assert patterns.exact
    assert patterns.signs.shape == (4095, 13)
    with_mirrors = np.concatenate([patterns.signs, -patterns.signs])
    assert len(np.unique(with_mirrors, axis=0)) == 8190
    assert not (np.abs(patterns.signs.sum(axis=1)) == 13).any()  # Neither the identity nor its mirror image.


def test_longer_series_draw_patterns_from_the_generator():
    patterns = sign_patterns(40, 500, _rng(1))
    assert not patterns.exact
    assert patterns.signs.shape == (500, 40)
    assert set(np.unique(patterns.signs)) == {-1.0, 1.0}
    assert abs(patterns.signs.mean()) < 5 / np.sqrt(500 * 40)
    np.testing.assert_array_equal(patterns.signs, sign_patterns(40, 500, _rng(1)).signs)


@pytest.mark.parametrize("intervals", [3, 6, 13, 40])
def test_patterns_are_in_lexicographic_order(intervals):
    signs = sign_patterns(intervals, 500, np.random.default_rng(0)).signs
    rows = [tuple(row) for row in -signs]  # + first
    assert rows == sorted(rows)


@pytest.mark.parametrize("elements", [1, 127, 128, 129, 300])
@pytest.mark.parametrize("checkpoints", [3, 4, 14])
def test_r_squared_of_flipped_paths_in_any_order_of_the_patterns(checkpoints, elements):
    rng = np.random.default_rng(elements)
    values = rng.normal(size=(checkpoints, elements)).cumsum(0)
    steps = np.cumsum(rng.uniform(1, 3, checkpoints))
    signs = sign_patterns(checkpoints - 1, 200, rng).signs
    flipped = FlippedRSquared(values, steps)
    found, order = flipped(signs), rng.permutation(len(signs))
    assert np.array_equal(flipped(signs[order]), found[order])
    for row in range(0, len(signs), max(1, len(signs) // 7)):
        expected = r_squared(flip_increments(values, signs[row]), steps)
        np.testing.assert_allclose(found[row], expected, rtol=1e-9, atol=1e-12)


def test_very_long_series():
    assert sign_patterns(500, 9, _rng()).signs.shape == (9, 500)


def test_enumerated_p_value_equals_brute_force():
    """All 2^7 patterns, mirror images included, path rebuilt by a loop."""
    values = _walk(_rng(2), 8, 5, 0.4)
    observed = _median(values, UNEQUAL)
    reached = 0
    for signs in itertools.product([1, -1], repeat=7):
        path = [values[0]]
        for sign, before, after in zip(signs, values[:-1], values[1:], strict=True):
            path.append(path[-1] + sign * (after - before))
        reached += _median(np.array(path), UNEQUAL) >= observed - 1e-12
    result = sign_flip_test(values, UNEQUAL, MEDIAN, _rng())
    assert result.exact
    assert result.n_patterns == 64
    assert result.p_value == pytest.approx(reached / 128)
    assert result.observed == pytest.approx(observed)


def test_batched_and_plain_statistic_agree():
    values = 3 + _walk(_rng(3), 20, 31, 0.2)
    steps = np.sort(_rng(4).uniform(0, 100, size=20))
    fast = sign_flip_test(values, steps, MEDIAN, _rng(5), n_flips=99)
    slow = sign_flip_test(values, steps, _median, _rng(5), n_flips=99)
    np.testing.assert_allclose(fast.null, slow.null, rtol=1e-10)
    assert (fast.p_value, fast.exact, fast.n_patterns) == (slow.p_value, False, 100)


def test_flip_increments():
    values = np.array([[1.0, 0.0], [2.0, 5.0], [4.0, 5.0]])
    flipped = flip_increments(values, np.array([-1.0, 1.0]))
    np.testing.assert_array_equal(flipped, [[1, 0], [0, -5], [2, -5]])


def test_invariant_to_scale_shift_and_affine_time():
    values = _walk(_rng(6), 8, 9, 0.3)
    one = sign_flip_test(values, UNEQUAL, MEDIAN, _rng()).p_value
    other = sign_flip_test(5 - 1e-4 * values, 100 + 8 * UNEQUAL, MEDIAN, _rng()).p_value
    assert one == other


def test_ties_count_as_reached():
    """Equal increments in one element: the identity ties with nothing, a constant statistic with all."""
    values = _walk(_rng(7), 8, 3)
    assert sign_flip_test(values, UNEQUAL, lambda v, t: 0.3, _rng()).p_value == 1.0
    noise = _rng(8)
    jitter = sign_flip_test(values, UNEQUAL, lambda v, t: 1e-20 * (1 + 1e-13 * noise.normal()), _rng())
    assert jitter.p_value == 1.0


def test_an_increment_of_zero_makes_exact_ties():
    values = _walk(_rng(9), 8, 4, 3.0)
    values[4:] -= values[4] - values[3]  # Flipping interval 3 changes nothing.
    result = sign_flip_test(values, np.arange(8), MEDIAN, _rng())
    assert result.p_value == pytest.approx(2 / 64)


def test_nan_null_values_count_in_the_denominator_only():
    values = _walk(_rng(10), 8, 3)
    original = values.copy()

    def statistic(path, steps):
        return 1.0 if np.array_equal(path, original) else float("nan")

    result = sign_flip_test(values, UNEQUAL, statistic, _rng())
    assert result.p_value == pytest.approx(1 / 64)
    assert result.n_nan == 63


def test_nan_statistic_has_no_p_value():
    result = sign_flip_test(np.ones((8, 3)), UNEQUAL, MEDIAN, _rng())
    assert np.isnan(result.p_value)
    assert result.n_nan == 63


def test_common_drift_is_detected():
    p_values = [
        sign_flip_test(_walk(_rng(seed), 14, 200, 0.5), np.arange(14), MEDIAN, _rng()).p_value
        for seed in range(5)
    ]
    assert max(p_values) <= 0.005


def test_random_patterns_detect_drift_too():
    result = sign_flip_test(_walk(_rng(11), 41, 50, 0.5), np.arange(41), MEDIAN, _rng(), n_flips=199)
    assert result.p_value == 1 / 200


def test_patterns_of_another_length_are_refused():
    with pytest.raises(Invalid, match="expected 7 signs"):
        sign_flip_test(_walk(_rng(), 8, 3), UNEQUAL, MEDIAN, _rng(), patterns=sign_patterns(5, 9, _rng()))


CHECKPOINTS, ELEMENTS, RANK, BETA, SPACING, BURN_IN = 10, 20, 3, 0.9, 10, 100


def _momentum_sgd_nulls(runs, drift=0.0):
    """(w, z) of driftless runs, each [run, checkpoint, element]: rank-3 gradients through momentum .9."""
    rng = _rng(12)
    updates = BURN_IN + SPACING * (CHECKPOINTS - 1)
    buffer = w = np.zeros((runs, RANK))
    kept_w, kept_z = [], []
    for update in range(updates + 1):
        if update >= BURN_IN and (update - BURN_IN) % SPACING == 0:
            kept_w.append(w)
            kept_z.append(momentum_free_sgd(w, buffer, 1.0, BETA))
        buffer = BETA * buffer + rng.normal(size=(runs, RANK)) - drift
        w = w - buffer
    loadings = rng.normal(size=(runs, RANK, ELEMENTS))
    return (np.stack(kept, axis=1) @ loadings for kept in (kept_w, kept_z))


def _rejections(paths):
    steps = np.arange(CHECKPOINTS) * float(SPACING)
    return sum(sign_flip_test(path, steps, MEDIAN, _rng()).p_value <= 0.05 for path in paths)


def test_size_under_low_rank_momentum_filtered_noise():
    """10,000 correlated nulls: the momentum-free position rejects at the nominal rate, the raw one does not.

    Enumeration gives 256 patterns, so the attainable level nearest .05 is exactly 12/256; bounds are the
    99.9 % interval of the binomial count.
    """
    runs = 10_000
    raw, momentum_free = _momentum_sgd_nulls(runs)
    low, high = binom.interval(0.999, runs, 12 / 256)
    assert low <= _rejections(momentum_free) <= high
    assert _rejections(raw[:1000]) > 0.1 * 1000


def test_drift_is_found_through_momentum():
    _, momentum_free = _momentum_sgd_nulls(100, drift=0.4)
    assert _rejections(momentum_free) > 80
