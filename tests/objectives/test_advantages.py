"""Group-relative advantages against direct formulas."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.draw import Draw
from lab.objectives.advantages import group_advantages, permute_within_groups

SCALES = ["std", "unbiased_std", "batch", "none"]


def by_hand(rewards: list[list[float]], scale: str, epsilon: float) -> list[list[float]]:
    """The textbook formulas with Python's statistics module, group by group."""
    everything = [reward for group in rewards for reward in group if not math.isnan(reward)]
    result = []
    for group in rewards:
        judged = [reward for reward in group if not math.isnan(reward)]
        if len(judged) < 2 or len(set(judged)) == 1:
            result.append([0.0] * len(group))
            continue
        divisor = {
            "std": statistics.pstdev(judged) + epsilon,
            "unbiased_std": statistics.stdev(judged) + epsilon,
            "batch": statistics.pstdev(everything) + epsilon,
            "none": 1.0,
        }[scale]
        mean = statistics.fmean(judged)
        result.append([0.0 if math.isnan(reward) else (reward - mean) / divisor for reward in group])
    return result


@pytest.mark.parametrize("epsilon", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("scale", SCALES)
def test_every_reward_vector_gets_the_formula(scale: Any, epsilon: float) -> None:
    vectors = list(itertools.product([0.0, 1.0, math.nan], repeat=4))
    for first, second in itertools.pairwise(vectors):
        rewards = [list(first), list(second)]
        actual = group_advantages(np.array(rewards), scale, epsilon)
        np.testing.assert_allclose(actual, by_hand(rewards, scale, epsilon), rtol=0, atol=1e-12)


@pytest.mark.parametrize("right", range(1, 8))
def test_the_divisor_is_the_binomial_spread(right: int) -> None:
    group = 8
    rewards = (np.arange(group) < right).astype(float)[None]
    share = right / group
    spread = math.sqrt(share * (1 - share))
    advantages = group_advantages(rewards, "std", 0.0)[0]
    assert advantages[0] == pytest.approx((1 - share) / spread)
    assert advantages[-1] == pytest.approx(-share / spread)
    wider = group_advantages(rewards, "unbiased_std", 0.0)[0]
    np.testing.assert_allclose(wider, advantages * math.sqrt((group - 1) / group))


@given(
    st.lists(st.lists(st.sampled_from([0.0, 1.0, 0.1, 0.3, math.nan]), min_size=5, max_size=5), min_size=1),
    st.sampled_from(SCALES),
    st.sampled_from([0.0, 1e-4]),
)
def test_each_group_sums_to_zero_and_stays_finite(
    rewards: list[list[float]], scale: Any, epsilon: float
) -> None:
    advantages = group_advantages(np.array(rewards), scale, epsilon)
    assert np.isfinite(advantages).all()
    np.testing.assert_allclose(advantages.sum(axis=1), 0.0, atol=1e-9)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_equal_rewards_have_no_advantage(scale: Any, value: float) -> None:
    rewards = np.vstack([np.full(7, value), [0, 1, 0, 1, 0, 1, 0]])
    assert np.array_equal(group_advantages(rewards, scale, 0.0)[0], np.zeros(7))


@pytest.mark.parametrize("scale", SCALES)
def test_what_was_not_judged_has_no_advantage_and_no_influence(scale: Any) -> None:
    short = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    long = np.insert(short, 1, np.nan, axis=1)
    advantages = group_advantages(long, scale, 1e-4)
    assert np.array_equal(advantages[:, 1], np.zeros(2))
    np.testing.assert_allclose(np.delete(advantages, 1, axis=1), group_advantages(short, scale, 1e-4))


@pytest.mark.parametrize("scale", SCALES)
def test_a_batch_without_one_judged_completion_is_all_zero(scale: Any) -> None:
    assert np.array_equal(group_advantages(np.full((2, 3), np.nan), scale, 0.0), np.zeros((2, 3)))


@pytest.mark.parametrize("scale", ["std", "unbiased_std"])
def test_scaled_advantages_do_not_depend_on_the_unit_of_the_reward(scale: Any) -> None:
    rewards = np.array([[0.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0]])
    np.testing.assert_allclose(
        group_advantages(5 + 3 * rewards, scale, 0.0), group_advantages(rewards, scale, 0.0)
    )


def test_a_permutation_keeps_the_advantages_of_each_group() -> None:
    advantages = np.arange(24.0).reshape(4, 6)
    permuted = permute_within_groups(advantages, Draw(0).uniform("twin", 0, (4, 6)))
    assert np.array_equal(np.sort(permuted, axis=1), advantages)
    assert not np.array_equal(permuted, advantages)


def test_permuted_advantages_have_mean_zero_at_every_place() -> None:
    rewards = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    advantages = group_advantages(rewards, "std", 0.0)
    draw, draws = Draw(0), 20_000
    total = sum(
        permute_within_groups(advantages, draw.uniform("twin", step, advantages.shape))
        for step in range(draws)
    )
    # Unit variance within each group, so the mean at a place has standard error 1 / sqrt(draws).
    assert np.abs(total / draws).max() < 5 / math.sqrt(draws)


def test_all_permutations_of_a_group_are_equally_frequent() -> None:
    advantages, draw, draws = np.array([[0.0, 1.0, 2.0]]), Draw(3), 6000
    counts = dict.fromkeys(itertools.permutations((0.0, 1.0, 2.0)), 0)
    for step in range(draws):
        counts[tuple(permute_within_groups(advantages, draw.uniform("twin", step, (1, 3)))[0])] += 1
    statistic = sum((count - draws / 6) ** 2 / (draws / 6) for count in counts.values())
    assert statistic < 33  # chi-square, 5 degrees of freedom: p = 4e-6
