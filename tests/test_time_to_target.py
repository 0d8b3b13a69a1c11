"""Times to a target: exact small cases, scipy's Kaplan-Meier curve, and coverage of the ratio's interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import CensoredData, ecdf

from lab.settings import Invalid
from lab.time_to_target import (
    TimesToTarget,
    restricted_mean_time,
    speedup,
    survival,
    time_to_target,
    total_cost,
)

NAN = float("nan")


def times(values: list[float], reached: list[bool] | None = None) -> TimesToTarget:
    """Times of an arm; all reached by default."""
    return TimesToTarget(
        np.array(values, float), np.array([True] * len(values) if reached is None else reached)
    )


def test_the_first_evaluation_at_the_target_counts() -> None:
    scores = [
        [0.1, 0.5, 0.4, 0.9],
        [0.1, 0.2, 0.3, 0.4],
        [0.5, 0.0, 0.0, 0.0],
        [0.2, NAN, 0.6, NAN],
        [0.2, 0.3, NAN, NAN],
    ]
    found = time_to_target([0, 10, 20, 30], scores, 0.5)
    assert found.times.tolist() == [10, 30, 0, 20, 10]
    assert found.reached.tolist() == [True, False, True, True, False]


def test_every_run_may_have_costs_of_its_own() -> None:
    found = time_to_target([[0, 5, 9], [0, 50, NAN]], [[0.0, 0.2, 0.8], [0.0, 0.1, NAN]], 0.8)
    assert found.times.tolist() == [9, 50] and found.reached.tolist() == [True, False]


def test_checks_cost_from_the_evaluation_on_at_which_they_were_made() -> None:
    assert total_cost([0, 100, 200], [0, 8, 4]).tolist() == [0, 108, 212]


def test_checks_can_make_the_cheaper_arm_the_slower_one() -> None:
    """The same curve, but one arm pays a fifth of every interval for checks."""
    scores = [[0.0, 0.3, 0.6]]
    plain = time_to_target([0, 100, 200], scores, 0.6)
    checked = time_to_target(total_cost([0, 100, 200], [0, 20, 20]), scores, 0.6)
    assert (plain.times[0], checked.times[0]) == (200, 240)


@pytest.mark.parametrize(
    ("costs", "scores", "word"),
    [
        ([0, 10], [[0.1, 0.2, 0.3]], "costs"),
        ([0, 10, 5], [[0.1, 0.2, 0.3]], "must not fall"),
        ([0, 10], [[NAN, NAN]], "no evaluation"),
    ],
)
def test_series_that_do_not_fit_are_refused(costs: list[float], scores: list[list[float]], word: str) -> None:
    with pytest.raises(Invalid, match=word):
        time_to_target(costs, scores, 0.5)


def test_negative_costs_are_refused() -> None:
    with pytest.raises(Invalid, match="checks"):
        total_cost([0, 1], [0, -1])
    with pytest.raises(Invalid, match="trained"):
        total_cost([1, 0], [0, 0])


def test_without_censoring_the_restricted_mean_is_the_mean_of_the_shorter() -> None:
    values = [3.0, 8.0, 5.0, 20.0, 5.0]
    for horizon in (4.0, 5.0, 9.0, 20.0, 33.0):
        assert restricted_mean_time(times(values), horizon) == pytest.approx(
            np.minimum(values, horizon).mean()
        )


def test_censored_at_the_end_counts_as_the_horizon() -> None:
    found = times([30, 60, 100, 100], [True, True, False, False])
    assert restricted_mean_time(found, 100) == pytest.approx((30 + 60 + 100 + 100) / 4)
    assert found.median == 60 and math.isnan(times([30, 100, 100], [True, False, False]).median)


def test_a_small_curve_by_hand() -> None:
    """At risk 4, 3, 1: S = 3/4 after 2, 1/2 after 3, and stays past the run censored at 4, to 0 at 6."""
    found = times([2, 3, 4, 6], [True, True, False, True])
    assert survival(found)[1].tolist() == pytest.approx([0.75, 0.5, 0.5, 0.0])
    assert restricted_mean_time(found, 6) == pytest.approx(2 + 0.75 + 0.5 + 0.5 * 2)


def test_areas_are_those_under_scipys_curve() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        values = generator.integers(1, 9, size=12).astype(float)  # with ties
        reached = generator.random(12) < 0.6
        data = CensoredData(uncensored=values[reached], right=values[~reached])
        curve = ecdf(data).sf
        grid = np.linspace(0, values.max(), 80_001)
        expected = float(curve.evaluate(grid[:-1]).mean() * values.max())
        assert restricted_mean_time(TimesToTarget(values, reached), values.max()) == pytest.approx(
            expected, rel=1e-3
        )


def test_a_horizon_beyond_what_was_seen_is_refused() -> None:
    with pytest.raises(Invalid, match="not beyond 100"):
        restricted_mean_time(times([30, 100], [True, False]), 150)
    assert restricted_mean_time(times([30, 100]), 150) == 65


def test_three_times_as_fast_in_every_pair_is_exactly_three() -> None:
    slow = np.array([90.0, 240.0, 120.0, 300.0])
    found = speedup(times(list(slow / 3)), times(list(slow)), np.random.default_rng(0))
    assert found.ratio.estimate == pytest.approx(3)
    assert found.ratio.low == pytest.approx(3) and found.ratio.high == pytest.approx(3)
    assert found.horizon == 300 and (found.arm_reached, found.baseline_reached) == (4, 4)


def test_censoring_of_the_baseline_makes_the_ratio_modest() -> None:
    arm = times([50, 60, 40, 50])
    baseline = times([200, 200, 200, 200], [False] * 4)
    found = speedup(arm, baseline, np.random.default_rng(0))
    assert found.ratio.estimate == pytest.approx(4) and found.horizon == 200
    assert found.baseline_reached == 0
    longer = speedup(arm, times([400] * 4, [False] * 4), np.random.default_rng(0))
    assert longer.ratio.estimate == pytest.approx(8)


def test_arms_of_different_size_cannot_be_paired() -> None:
    with pytest.raises(Invalid, match="paired"):
        speedup(times([1, 2]), times([1, 2, 3]), np.random.default_rng(0))
    assert speedup(times([1, 2]), times([1, 2, 3]), np.random.default_rng(0), paired=False).ratio.low > 0
    assert math.isnan(speedup(times([1]), times([2]), np.random.default_rng(0)).ratio.low)


def test_the_ratios_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Paired log-normal times, censored at a budget that a third of the baseline's runs exceeds."""
    generator, budget, covered = np.random.default_rng(1), 4.0, []
    shared = generator.normal(size=200_000)
    true_arm = np.minimum(np.exp(0.4 * shared + 0.3 * generator.normal(size=200_000)), budget).mean()
    true_base = np.minimum(3 * np.exp(0.4 * shared + 0.3 * generator.normal(size=200_000)), budget).mean()
    for _ in range(300):
        common = generator.normal(size=10)
        arms = [scale * np.exp(0.4 * common + 0.3 * generator.normal(size=10)) for scale in (1.0, 3.0)]
        found = speedup(
            *(TimesToTarget(np.minimum(each, budget), each < budget) for each in arms),
            generator,
            horizon=budget,
            replicates=300,
        )
        covered.append(found.ratio.low <= true_base / true_arm <= found.ratio.high)
    assert abs(np.mean(covered) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 300)
