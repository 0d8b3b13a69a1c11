"""Elicitation, new skill, or between: against pass@k worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lab.settings import Invalid
from lab.tasks.difficulty import difficulty


def outcomes(solvable: int, problems: int, rollouts: int = 64) -> np.ndarray:
    """Of `problems`, so many solved by exactly one of the completions, the others by none."""
    correct = np.zeros((problems, rollouts))
    correct[:solvable, 3] = 1
    return correct


@pytest.mark.parametrize(
    ("solvable", "kind", "settled"),
    [
        (100, "elicitation", True),
        (95, "elicitation", True),
        (80, "elicitation", False),
        (79, "between", False),
        (55, "between", True),
        (31, "between", False),
        (30, "new_skill", False),
        (10, "new_skill", True),
        (0, "new_skill", True),
    ],
)
def test_the_share_of_problems_solved_at_all_decides(solvable: int, kind: str, settled: bool) -> None:
    found = difficulty(outcomes(solvable, 100), np.random.default_rng(0))
    assert (found.kind, found.settled, found.problems) == (kind, settled, 100)
    assert found.pass_at_k.estimate == pytest.approx(solvable / 100)


def test_more_completions_than_k_give_the_share_of_subsets() -> None:
    # One right of 128: a random half of them holds it half the time.
    found = difficulty(outcomes(40, 40, rollouts=128), np.random.default_rng(0))
    assert found.pass_at_k.estimate == pytest.approx(0.5)


def test_problems_judged_too_seldom_are_left_out() -> None:
    correct = outcomes(10, 20)
    correct[0, 0] = np.nan
    found = difficulty(correct, np.random.default_rng(0))
    assert found.problems == 19
    assert found.pass_at_k.estimate == pytest.approx(9 / 19)


def test_the_interval_covers_the_true_share() -> None:
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(60):
        solvable = (generator.random(60) < 0.5).sum()
        interval = difficulty(outcomes(int(solvable), 60, 4), generator, k=4).pass_at_k
        hits += interval.low <= 0.5 <= interval.high
    assert hits >= 60 * 0.95 - 4 * (60 * 0.95 * 0.05) ** 0.5


def test_too_few_completions_are_refused() -> None:
    with pytest.raises(Invalid, match="no problem has 64 judged completions"):
        difficulty(np.ones((5, 16)), np.random.default_rng(0))
    with pytest.raises(Invalid, match="expected"):
        difficulty(np.ones(64), np.random.default_rng(0))
