"""avg@k, pass@k and their intervals, against enumeration and scipy."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from lab.evaluation import (
    average_at_k,
    bootstrap,
    interquartile_mean,
    paired_difference,
    pass_at_k,
    pass_rate_interval,
    pass_rates,
)
from lab.settings import Invalid

NAN = float("nan")
CORRECT = np.array([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 1, 0, 0, 0, 0]], float)


def enumerated(correct: np.ndarray, k: int) -> float:
    """Share of all k-subsets of judged completions that hold a right one, over problems."""
    shares = []
    for row in correct:
        judged = row[np.isfinite(row)]
        if len(judged) >= k:
            shares.append(np.mean([max(subset) for subset in combinations(judged, k)]))
    return float(np.mean(shares))


@pytest.mark.parametrize("k", range(1, 7))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(k: int) -> None:
    assert pass_at_k(CORRECT, k) == pytest.approx(enumerated(CORRECT, k), abs=1e-12)


@pytest.mark.parametrize("k", range(1, 5))
def test_completions_that_were_not_judged_are_left_out(k: int) -> None:
    correct = CORRECT.copy()
    correct[0, [0, 3]] = NAN
    correct[3, [1, 2, 4]] = NAN
    assert pass_at_k(correct, k) == pytest.approx(enumerated(correct, k), abs=1e-12)


def test_pass_at_1_is_the_average() -> None:
    assert pass_at_k(CORRECT, 1) == pytest.approx(average_at_k(CORRECT))


def test_pass_at_k_stays_exact_with_many_completions() -> None:
    correct = np.zeros((1, 4096))
    correct[0, 0] = 1
    assert pass_at_k(correct, 1024) == pytest.approx(0.25, abs=1e-9)


@pytest.mark.parametrize(("k", "words"), [(0, "at least 1"), (7, "no problem has 7 judged completions")])
def test_an_impossible_k_is_refused(k: int, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        pass_at_k(CORRECT, k)


def test_the_average_is_over_what_was_judged() -> None:
    assert average_at_k(np.array([[1, NAN, 0], [1, 1, NAN]])) == 0.75
    assert math.isnan(average_at_k(np.full((2, 3), NAN)))


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_is_the_t_interval_over_problems(level: float) -> None:
    rates = CORRECT.mean(1)
    low, high = stats.t.interval(level, len(rates) - 1, loc=rates.mean(), scale=stats.sem(rates))
    assert float(pass_rate_interval(CORRECT, level)) == pytest.approx((high - low) / 2)


def test_intervals_come_one_for_each_checkpoint() -> None:
    halves = pass_rate_interval(np.stack([CORRECT, CORRECT[::-1], np.zeros_like(CORRECT)]))
    assert halves.shape == (3,) and halves[0] == pytest.approx(halves[1]) and halves[2] == 0


def test_one_problem_has_no_interval() -> None:
    assert np.isnan(pass_rate_interval(CORRECT[:1]))


@pytest.mark.filterwarnings("error")
def test_a_problem_that_was_never_judged_is_no_observation() -> None:
    correct = np.vstack([CORRECT, np.full((1, 6), NAN)])
    assert float(pass_rate_interval(correct)) == pytest.approx(float(pass_rate_interval(CORRECT)))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    chance = generator.beta(2, 2, size=(2000, 30, 1))
    correct = (generator.random((2000, 30, 4)) < chance).astype(float)
    covered = np.abs(correct.mean((1, 2)) - 0.5) <= pass_rate_interval(correct)
    assert abs(covered.mean() - 0.95) < 5 * math.sqrt(0.95 * 0.05 / 2000)


# ---- bootstrap ---------------------------------------------------------------------------------------


def test_pass_rates_leave_out_what_was_not_judged() -> None:
    correct = np.array([[1, NAN, 0], [1, 1, NAN], [NAN, NAN, NAN]])
    assert pass_rates(correct).tolist()[:2] == [0.5, 1.0] and math.isnan(pass_rates(correct)[2])


@pytest.mark.parametrize("size", [4, 8, 40])
def test_the_interquartile_mean_is_that_of_the_middle_half(size: int) -> None:
    values = np.random.default_rng(size).normal(size=(3, size))
    middle = np.sort(values, axis=-1)[:, size // 4 : size - size // 4]
    assert interquartile_mean(values) == pytest.approx(middle.mean(-1))


def test_the_interquartile_mean_does_not_see_outliers() -> None:
    assert float(interquartile_mean(np.array([-1e9, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e9]))) == 3.5


def test_one_generator_gives_one_interval() -> None:
    scores = np.random.default_rng(0).random((4, 30))
    found = [bootstrap(scores, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert found[0] == found[1] and found[0] != found[2]
    assert found[0].estimate == found[2].estimate == pytest.approx(scores.mean())


def test_the_spread_of_replicates_is_that_of_the_mean_of_problems() -> None:
    """Resampling n problems has variance s^2 (n - 1) / n^2, which the expanded quantiles turn into a t interval."""
    rates = np.random.default_rng(1).normal(size=40)
    found = bootstrap(rates, np.random.default_rng(2), replicates=40_000)
    low, high = stats.t.interval(0.95, 39, loc=rates.mean(), scale=stats.sem(rates))
    assert found.low == pytest.approx(low, abs=0.03 * (high - low))
    assert found.high == pytest.approx(high, abs=0.03 * (high - low))


def test_strata_keep_their_sizes() -> None:
    """Two tasks whose problems are all alike: however they are drawn, the mean stays."""
    scores = np.array([0.1] * 5 + [0.9] * 3)
    strata = np.array([0] * 5 + [1] * 3)
    held = bootstrap(scores, np.random.default_rng(0), strata=strata)
    assert held.low == pytest.approx(held.high) == pytest.approx(scores.mean())
    loose = bootstrap(scores, np.random.default_rng(0))
    assert loose.high - loose.low > 0.2


def test_runs_of_different_tasks_are_drawn_independently() -> None:
    """One column a task: the stratified bootstrap over runs. Its variance is a quarter of the tasks' summed variances;
    were all tasks drawn with the same seeds, these two would cancel."""
    runs = np.random.default_rng(0).normal(size=8)
    scores = np.stack([runs, -runs], axis=1)
    found = bootstrap(scores, np.random.default_rng(1), strata=[0, 1], replicates=40_000)
    deviation = math.sqrt(2 * runs.var() / 8) / 2
    reach = deviation * math.sqrt(8 / 7) * stats.t.ppf(0.975, 14)
    assert found.high == pytest.approx(reach, rel=0.05) and found.low == pytest.approx(-reach, rel=0.05)


def test_one_seed_and_one_problem_have_no_interval() -> None:
    assert math.isnan(bootstrap([0.5], np.random.default_rng(0)).low)
    assert bootstrap([0.5], np.random.default_rng(0)).estimate == 0.5


def test_scores_that_do_not_fit_are_refused() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(Invalid, match="no problem has a score"):
        bootstrap([NAN, NAN], generator)
    with pytest.raises(Invalid, match="strata"):
        bootstrap([0.1, 0.2], generator, strata=[0, 1, 1])
    with pytest.raises(Invalid, match="second"):
        paired_difference([0.1, 0.2], [0.1], generator)


def coverage(found: list[tuple[float, float, float]]) -> float:
    """Share of (low, high, truth) that hold the truth."""
    return float(np.mean([low <= truth <= high for low, high, truth in found]))


def test_intervals_of_few_seeds_cover_as_often_as_they_say() -> None:
    """Eight seeds of one task, the headline's size: plain percentile intervals would cover 90 %."""
    generator, found = np.random.default_rng(3), []
    for _ in range(400):
        each = bootstrap(generator.normal(size=(8, 1)), generator, replicates=400)
        found.append((each.low, each.high, 0.0))
    assert abs(coverage(found) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 400)


def test_intervals_over_seeds_and_problems_cover_both() -> None:
    """Seeds and problems both vary, and the cells; over problems alone the interval would be far too short."""
    generator, found, alone = np.random.default_rng(4), [], []
    for _ in range(200):
        seeds, problems = generator.normal(size=(6, 1)), generator.normal(size=(1, 25))
        scores = 0.3 * seeds + 0.5 * problems + 0.5 * generator.normal(size=(6, 25))
        each = bootstrap(scores, generator, replicates=300)
        found.append((each.low, each.high, 0.0))
        over_problems = bootstrap(scores.mean(0), generator, replicates=300)
        alone.append((over_problems.low, over_problems.high, 0.0))
    assert coverage(found) > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 200)
    assert coverage(alone) < 0.85


@pytest.mark.parametrize("relative", [False, True])
def test_what_both_arms_share_drops_out_of_the_difference(relative: bool) -> None:
    generator = np.random.default_rng(5)
    easy = generator.random((5, 40))
    second = 0.2 + 0.5 * easy
    found = paired_difference(
        second * 1.1 if relative else second + 0.1, second, np.random.default_rng(0), relative=relative
    )
    assert found.estimate == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1) and found.high == pytest.approx(0.1)


def test_the_null_of_no_difference_is_rejected_as_often_as_it_says() -> None:
    generator, found = np.random.default_rng(6), []
    for _ in range(300):
        chance = generator.beta(1, 1, size=(60, 1))
        arms = [pass_rates((generator.random((60, 4)) < chance).astype(float)) for _ in range(2)]
        each = paired_difference(*arms, generator, replicates=400)
        found.append((each.low, each.high, 0.0))
    assert abs(coverage(found) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 300)


def test_a_problem_unknown_in_one_arm_counts_in_neither() -> None:
    first, second = np.array([0.5, 1.0, NAN, 0.25]), np.array([0.25, NAN, 0.0, 0.25])
    assert paired_difference(first, second, np.random.default_rng(0)).estimate == 0.125
