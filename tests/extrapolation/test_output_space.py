"""Choosing alpha: disjoint parts, the best candidate, the baseline's equal budget, and no gain where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lab.errors import BadInput
from lab.extrapolation.output_space import Candidate, Scored, compare_decodings, split_rows

VALIDATION, TEST = np.arange(0, 6), np.arange(6, 12)


class Table:
    """Evaluations that are looked up: pass rate of each candidate, other on validation and on test problems."""

    def __init__(self, rates: dict[Candidate, tuple[float, float]]) -> None:
        self.rates = rates
        self.calls: list[tuple[Candidate, bool]] = []

    def __call__(self, candidate: Candidate, rows: np.ndarray) -> Scored:
        final = bool(np.array_equal(rows, TEST))
        assert final or np.array_equal(rows, VALIDATION)
        self.calls.append((candidate, final))
        right = round(10 * self.rates[candidate][final])
        correct = np.tile(np.arange(10) < right, (len(rows), 1)).astype(float)
        passes = 1 if candidate.alpha in (0, 1) else 2
        return Scored(correct, tokens=correct.size, token_passes=passes * correct.size)


RATES = {
    Candidate(1.0, 1.0): (0.3, 0.4),
    Candidate(2.0, 1.0): (0.6, 0.5),
    Candidate(3.0, 1.0): (0.5, 0.9),
    Candidate(1.0, 0.5): (0.5, 0.7),
    Candidate(1.0, 0.2): (0.4, 1.0),
}


def test_what_is_best_on_validation_is_scored_on_test() -> None:
    """On test problems alpha 3 and temperature 0.2 would have been better: no peeping."""
    table = Table(RATES)
    found = compare_decodings(table, [1, 2, 3], [1, 0.5, 0.2], 1.0, VALIDATION, TEST)
    assert found.extrapolated.chosen == Candidate(2.0, 1.0)
    assert found.temperature_tuned.chosen == Candidate(1.0, 0.5)
    assert found.last.chosen == Candidate(1.0, 1.0)
    numbers = [
        arm.numbers([1])["avg@10"] for arm in (found.extrapolated, found.temperature_tuned, found.last)
    ]
    assert numbers == pytest.approx([0.5, 0.7, 0.4])
    gap = found.difference(found.temperature_tuned, np.random.default_rng(0))
    assert gap.estimate == pytest.approx(-0.2)
    relative = found.difference(found.last, np.random.default_rng(0), relative=True)
    assert relative.estimate == pytest.approx(0.25)
    assert len(table.calls) == len(set(table.calls)) == 8, "nothing is decoded twice"


def test_the_budget_is_counted_for_each_arm() -> None:
    found = compare_decodings(Table(RATES), [1, 2, 3], [1, 0.5, 0.2], 1.0, VALIDATION, TEST)
    ours = found.extrapolated.numbers([])["budget"]
    theirs = found.temperature_tuned.numbers([])["budget"]
    assert ours["validation_completions"] == theirs["validation_completions"] == 3 * 60
    assert (ours["validation_token_passes"], theirs["validation_token_passes"]) == (5 * 60, 3 * 60)
    assert "budget" not in found.last.numbers([])


def test_of_equals_the_one_nearest_to_the_last_checkpoint_is_taken() -> None:
    rates = {Candidate(alpha, 1.0): (0.5, 0.5) for alpha in (0.0, 1.0, 1.5, 3.0)}
    found = compare_decodings(Table(rates), [3, 0, 1.5], [1.0], 1.0, VALIDATION, TEST)
    assert found.extrapolated.chosen == Candidate(1.5, 1.0)


def test_a_candidate_of_which_nothing_was_judged_is_not_chosen() -> None:
    def evaluate(candidate: Candidate, rows: np.ndarray) -> Scored:
        value = math.nan if candidate.alpha == 1 else 0.0
        return Scored(np.full((len(rows), 2), value), 1, 1)

    found = compare_decodings(evaluate, [1, 2], [1.0], 1.0, VALIDATION, TEST)
    assert found.extrapolated.chosen.alpha == 2


def test_the_split_is_of_all_problems_and_the_same_in_any_company() -> None:
    keys = [f"{number}+{number + 7}" for number in range(4000)]
    validation, test = split_rows(keys, 0.3)
    assert sorted([*validation, *test]) == list(range(4000))
    assert abs(len(validation) / 4000 - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 4000)
    some = keys[100:300]
    again, _ = split_rows(some, 0.3)
    assert {some[row] for row in again} == {keys[row] for row in validation} & set(some)


def test_a_larger_share_for_choosing_keeps_what_chose() -> None:
    keys = [str(number) for number in range(500)]
    assert set(split_rows(keys, 0.2)[0]) < set(split_rows(keys, 0.6)[0])


def test_parts_that_are_too_small_are_refused() -> None:
    with pytest.raises(BadInput, match=r"validation_share: of 3 held-out problems"):
        split_rows(["a", "b", "c"], 0.5)


def test_where_all_candidates_are_alike_choosing_gains_nothing_on_average() -> None:
    """Thirty equal alphas: the chosen one looks better on validation problems, and is not on test problems."""
    generator = np.random.default_rng(0)
    looks, gaps, covered = [], [], []
    for _ in range(150):

        def evaluate(candidate: Candidate, rows: np.ndarray) -> Scored:
            return Scored((generator.random((40, 4)) < 0.5).astype(float), 1, 1)

        alphas = list(np.linspace(1, 3, 30))
        found = compare_decodings(evaluate, alphas, [1.0], 0.9, VALIDATION, TEST)
        looks.append(max(scored.correct.mean() for scored in found.extrapolated.validation) - 0.5)
        gap = found.difference(found.last, generator)
        gaps.append(gap.estimate)
        covered.append(gap.low <= 0 <= gap.high)
    assert np.mean(looks) > 0.05
    assert abs(np.mean(gaps)) < 4 * math.sqrt(2 * 0.25 / 160 / 150)
    assert abs(np.mean(covered) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 150)
