"""avg@k, pass@k and their intervals, against enumeration and scipy."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from lab.evaluation import average_at_k, pass_at_k, pass_rate_interval
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
