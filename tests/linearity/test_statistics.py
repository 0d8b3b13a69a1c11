"""Every batched statistic equals the plain one on paths rebuilt flip by flip."""

import numpy as np
import pytest

from lab.linearity import (
    DampedSkill,
    LagCosine,
    MedianRSquared,
    Protocol,
    SplitHalf,
    flip_increments,
    forecast_skill,
    get_protocol,
    lag_cosine,
    r_squared,
    sign_patterns,
    split_half,
)

STEPS = np.array([0.0, 1, 2, 4, 8, 9, 11, 12, 15, 20, 21])
RANGE_ONLY = Protocol("range", False, 3.0, 1, None)


def _filtered_median(name):
    protocol = get_protocol(name) if isinstance(name, str) else name

    def statistic(kind):
        def median(values, steps):
            stored = protocol.cast(values, kind)
            r2 = r_squared(stored, steps)[protocol.keep(stored, kind)]
            return np.median(r2[~np.isnan(r2)]) if (~np.isnan(r2)).any() else np.nan

        return median

    return statistic


CASES = {
    "unfiltered": (
        MedianRSquared(get_protocol("unfiltered"), "weights"),
        _filtered_median("unfiltered")("weights"),
    ),
    "paper logprobs": (
        MedianRSquared(get_protocol("paper"), "logprobs"),
        _filtered_median("paper")("logprobs"),
    ),
    "paper weights": (MedianRSquared(get_protocol("paper"), "weights"), _filtered_median("paper")("weights")),
    "range, no cast": (MedianRSquared(RANGE_ONLY, "weights"), _filtered_median(RANGE_ONLY)("weights")),
    "damped skill": (DampedSkill(), lambda v, t: forecast_skill(v, t).skill_damped),
    "damped skill, half": (DampedSkill(0.5), lambda v, t: forecast_skill(v, t, 0.5).skill_damped),
    "lag cosine": (LagCosine(1), lambda v, t: lag_cosine(v, t, [1])[0]),
    "lag cosine 3": (LagCosine(3), lambda v, t: lag_cosine(v, t, [3])[0]),
    "split half": (SplitHalf(), split_half),
    "split half, gap 4": (SplitHalf(4), lambda v, t: split_half(v, t, 4)),
}


def _values(scale=1.0, elements=41):
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.normal(size=(len(STEPS), elements)), axis=0) * scale
    values[:, 3] = 0.1  # One element never moves.
    return values


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scale", [1.0, 0.05, 2e-5])
def test_batched_equals_plain(case, scale):
    batched, plain = CASES[case]
    values = _values(scale) + (0.01 if scale < 1e-3 else 0.0)
    signs = sign_patterns(len(STEPS) - 1, 60, np.random.default_rng(1), max_enumeration=1).signs
    expected = [plain(flip_increments(values, row), STEPS) for row in signs]
    np.testing.assert_allclose(batched.flipped(values, STEPS, signs), expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(batched(values, STEPS), plain(values, STEPS), rtol=1e-8)


@pytest.mark.parametrize("case", ["unfiltered", "paper logprobs", "paper weights"])
def test_blocks_of_patterns_and_elements_do_not_matter(case):
    """More elements than one block holds, so that several blocks are stitched together."""
    batched, plain = CASES[case]
    values = _values(0.05, elements=9000)
    signs = sign_patterns(len(STEPS) - 1, 37, np.random.default_rng(2), max_enumeration=1).signs
    got = batched.flipped(values, STEPS, signs)
    for row in (0, 6, 7, 16, 36):
        expected = plain(flip_increments(values, signs[row]), STEPS)
        assert got[row] == pytest.approx(expected, rel=1e-8)


def test_a_filter_that_bites_changes_which_elements_count():
    """The paper's filter is applied to the flipped path, not to the observed one."""
    values = _values(0.05)
    signs = sign_patterns(len(STEPS) - 1, 60, np.random.default_rng(3), max_enumeration=1).signs
    paper = CASES["paper logprobs"][0].flipped(values, STEPS, signs)
    unfiltered = CASES["unfiltered"][0].flipped(values, STEPS, signs)
    assert np.median(paper) > np.median(unfiltered) + 0.1


@pytest.mark.parametrize("case", CASES)
def test_nothing_moves(case):
    batched, _ = CASES[case]
    values = np.full((len(STEPS), 4), 0.1)
    signs = sign_patterns(len(STEPS) - 1, 5, np.random.default_rng(4), max_enumeration=1).signs
    assert np.isnan(batched(values, STEPS))
    assert np.isnan(batched.flipped(values, STEPS, signs)).all()


def test_huge_offsets_and_tiny_moves():
    batched, plain = CASES["unfiltered"]
    values = _values() * 1e-160
    signs = sign_patterns(len(STEPS) - 1, 9, np.random.default_rng(5), max_enumeration=1).signs
    expected = batched.flipped(_values(), STEPS, signs)
    np.testing.assert_allclose(batched.flipped(values, STEPS, signs), expected, rtol=1e-9)
