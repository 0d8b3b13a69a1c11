"""What chance alone gives: numbers are exact or Monte Carlo values, tolerances are standard errors."""

import numpy as np
import pytest

from lab.linearity import (
    exact_mean_walk_r_squared,
    get_protocol,
    r_squared,
    selection_matched,
    summarise,
    walk_r_squared,
)
from lab.settings import Invalid

EQUAL = np.arange(14) * 100.0
SAMPLES = 20_000


def _walks(rng, n, samples, drift=0.0):
    return np.cumsum(np.vstack([np.zeros(samples), rng.normal(size=(n - 1, samples)) + drift]), axis=0)


@pytest.mark.parametrize(("n", "mean"), [(4, 0.538), (8, 0.458), (14, 0.442), (50, 0.435), (800, 0.434)])
def test_exact_mean(n, mean):
    assert exact_mean_walk_r_squared(n) == pytest.approx(mean, abs=6e-4)


@pytest.mark.parametrize("n", [3, 4, 8, 14])
def test_exact_mean_against_simulation(n):
    r2 = walk_r_squared(np.arange(n), SAMPLES, np.random.default_rng(n))
    error = r2.std() / np.sqrt(SAMPLES)
    assert abs(r2.mean() - exact_mean_walk_r_squared(n)) < 4 * error


def test_quantiles_at_fourteen_checkpoints():
    summary = summarise(walk_r_squared(EQUAL, SAMPLES, np.random.default_rng(0)))
    assert summary.median == pytest.approx(0.45, abs=0.015)
    assert summary.quartiles == pytest.approx((0.15, 0.72), abs=0.015)
    assert summary.share_above == pytest.approx(0.27, abs=0.015)


def test_unequal_spacing_is_brownian_motion_seen_at_those_steps():
    steps = np.array([0, 1, 2, 3, 20, 90, 91, 100])
    fine = _walks(np.random.default_rng(1), 101, SAMPLES)
    expected, got = r_squared(fine[steps], steps), walk_r_squared(steps, SAMPLES, np.random.default_rng(2))
    error = np.sqrt((expected.var() + got.var()) / SAMPLES)
    assert abs(expected.mean() - got.mean()) < 4 * error
    rows = r_squared(_walks(np.random.default_rng(3), 8, SAMPLES), steps).mean()
    assert abs(rows - got.mean()) > 10 * error  # Equal variance in each interval is another walk.


@pytest.mark.parametrize(
    ("drift", "mean"), [(0.1, 0.459), (0.3, 0.578), (0.5, 0.730), (1, 0.930), (2, 0.985)]
)
def test_drift_and_walk(drift, mean):
    r2 = r_squared(_walks(np.random.default_rng(4), 14, SAMPLES, drift), EQUAL)
    assert abs(r2.mean() - mean) < 4 * r2.std() / np.sqrt(SAMPLES) + 5e-4


def test_keeping_what_moved_most_makes_walks_straight():
    walks = _walks(np.random.default_rng(5), 14, SAMPLES)
    moved = np.abs(walks[-1] - walks[0])
    summary = summarise(r_squared(walks[:, moved > np.quantile(moved, 0.8)], EQUAL))
    assert summary.median == pytest.approx(0.83, abs=0.01)
    assert summary.share_above == pytest.approx(0.79, abs=0.02)


def test_selection_matched_reproduces_a_filtered_population():
    """Log-probs that are driftless walks: the null has their R² and retention, far above the plain walk's."""
    values = -3.0 + 0.04 * _walks(np.random.default_rng(6), 14, SAMPLES)
    paper = get_protocol("paper")
    kept = paper.keep(values, "logprobs")
    null = selection_matched(values, EQUAL, paper, "logprobs", np.random.default_rng(7), SAMPLES)
    assert null.retained_share == pytest.approx(kept.mean(), abs=0.02)
    observed = summarise(r_squared(values[:, kept], EQUAL)).median
    assert summarise(null.r2).median == pytest.approx(observed, abs=0.03)
    assert observed > 0.7


def test_selection_matched_scales_each_element_and_casts():
    rng = np.random.default_rng(8)
    scale = np.where(np.arange(200) < 50, 1e-3, 1e-9)  # Three quarters move too little for bfloat16.
    values = 0.02 + scale * _walks(rng, 14, 200)
    null = selection_matched(values, EQUAL, get_protocol("paper"), "weights", rng, 4000)
    assert null.retained_share == pytest.approx(0.25, abs=0.01)
    assert len(null.r2) == round(null.retained_share * 4000)


def test_selection_matched_unequal_spacing_needs_no_time_unit():
    steps = np.array([0.0, 1, 5, 30, 31, 60])
    values = np.cumsum(np.random.default_rng(9).normal(size=(6, 400)), axis=0)
    paper = get_protocol("paper")
    one, other = (
        selection_matched(values, factor * steps, paper, "logprobs", np.random.default_rng(10), 1000)
        for factor in (1.0, 64.0)
    )
    assert one.retained_share == other.retained_share
    np.testing.assert_allclose(one.r2, other.r2)


def test_constant_elements_stay_constant():
    null = selection_matched(
        np.ones((14, 5)), EQUAL, get_protocol("unfiltered"), "weights", np.random.default_rng(0), 20
    )
    assert null.retained_share == 1.0
    assert np.isnan(null.r2).all()


def test_impossible_arguments():
    with pytest.raises(Invalid, match="samples"):
        walk_r_squared(EQUAL, 0, np.random.default_rng(0))
    with pytest.raises(Invalid, match="n: "):
        exact_mean_walk_r_squared(2)
