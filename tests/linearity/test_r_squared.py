import numpy as np
import pytest
from scipy.stats import linregress

from lab.linearity import r_squared, summarise

UNEQUAL = np.array([0.0, 1.0, 2.5, 10.0, 11.0, 40.0, 41.0])


@pytest.fixture
def walks():
    return np.cumsum(np.random.default_rng(0).normal(size=(7, 50)), axis=0)


@pytest.mark.parametrize("steps", [UNEQUAL, np.arange(7) * 100.0], ids=["unequal", "equal"])
def test_equals_scipy_and_numpy(walks, steps):
    got = r_squared(walks, steps)
    for column in range(walks.shape[1]):
        assert got[column] == pytest.approx(linregress(steps, walks[:, column]).rvalue ** 2, abs=1e-12)
        assert got[column] == pytest.approx(np.corrcoef(steps, walks[:, column])[0, 1] ** 2, abs=1e-12)


def test_equals_residual_definition(walks):
    slope, intercept = np.polyfit(UNEQUAL, walks, 1)
    residual = walks - slope * UNEQUAL[:, None] - intercept
    expected = 1 - (residual**2).sum(0) / ((walks - walks.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(r_squared(walks, UNEQUAL), expected, atol=1e-12)


def test_invariant_to_scale_shift_and_affine_time(walks):
    reference = r_squared(walks, UNEQUAL)
    np.testing.assert_allclose(r_squared(-3e-5 * walks + 0.2, UNEQUAL), reference, rtol=1e-9)
    np.testing.assert_allclose(r_squared(walks, 7 * UNEQUAL + 1000), reference, rtol=1e-9)
    np.testing.assert_allclose(r_squared(walks[::-1], -UNEQUAL[::-1]), reference, rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e150])
def test_tiny_and_large_scales(walks, scale):
    np.testing.assert_allclose(r_squared(walks * scale, UNEQUAL), r_squared(walks, UNEQUAL), rtol=1e-9)


def test_huge_offset():
    steps = np.arange(5.0)
    zigzag = np.array([0.0, 3.0, 1.0, 4.0, 2.0])
    shifted = (zigzag + 2.0**50)[:, None]  # Exactly representable: no information is lost.
    assert r_squared(shifted, steps)[0] == pytest.approx(linregress(steps, zigzag).rvalue ** 2, rel=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e300, -1 / 3, 1e-310])
def test_constant_is_nan_whatever_the_rounding(constant):
    values = np.stack([np.full(7, constant), UNEQUAL], axis=1)
    result = r_squared(values, UNEQUAL)
    assert np.isnan(result[0])
    assert result[1] == 1.0


def test_line_is_one_and_never_more():
    slopes = np.random.default_rng(1).normal(size=200)
    result = r_squared(UNEQUAL[:, None] * slopes, UNEQUAL)
    np.testing.assert_allclose(result, 1.0, atol=1e-12)
    assert result.max() <= 1.0


def test_float32_input_is_computed_in_float64(walks):
    single = walks.astype(np.float32)
    np.testing.assert_array_equal(r_squared(single, UNEQUAL), r_squared(single.astype(np.float64), UNEQUAL))


def test_input_is_left_alone(walks):
    before = walks.copy()
    r_squared(walks, UNEQUAL)
    np.testing.assert_array_equal(walks, before)


def test_summary_leaves_nan_out():
    summary = summarise([0.1, np.nan, 0.7, 0.9, 0.8, np.nan])
    assert (summary.n, summary.n_nan) == (4, 2)
    assert summary.median == pytest.approx(0.75)
    assert summary.share_above == 0.5  # .7 itself is not above .7
    assert summary.quartiles == pytest.approx((0.55, 0.825))


@pytest.mark.parametrize("nothing", [[], [np.nan, np.nan]])
def test_summary_of_nothing(nothing):
    summary = summarise(nothing)
    assert np.isnan([summary.median, summary.share_above, *summary.quartiles]).all()
    assert (summary.n, summary.n_nan) == (0, len(nothing))
