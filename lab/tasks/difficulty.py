"""What a task asks of a policy: to bring out what it can do already, or to learn something new."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lab.evaluation import Interval, bootstrap, pass_at_k
from lab.settings import require

Kind = Literal["elicitation", "new_skill", "between"]

K = 64
ELICITATION = 0.8
"""Least pass@64 of the base policy on a task that RL need only bring out."""
NEW_SKILL = 0.3
"""Largest pass@64 of the base policy on a task that has something new to be learnt."""


@dataclass(frozen=True)
class Difficulty:
    """Which kind of task it is for a policy."""

    kind: Kind
    settled: bool
    """Whether the whole interval lies on the side of `kind`."""
    pass_at_k: Interval
    k: int
    problems: int
    """Problems with at least k judged completions; the others are left out."""


def difficulty(
    correct: np.ndarray, generator: np.random.Generator, k: int = K, level: float = 0.95
) -> Difficulty:
    """Classify a task by the pass@k of the policy before training.

    Elicitation is pass@64 >= .8, new skill <= .3; the interval is a bootstrap over problems.

    Args:
        correct: [problem, rollout], 0 or 1 or NaN, of the policy before training, with at least k rollouts.
        generator: decides the bootstrap.
        k: completions allowed; the two kinds are defined at 64.
        level: confidence level of the interval.

    Raises:
        Invalid: k below 1, or no problem has k judged completions.
    """
    require(correct.ndim == 2, "correct", f"expected [problem, rollout], got shape {correct.shape}")
    enough = correct[np.isfinite(correct).sum(1) >= k]
    require(len(enough) > 0, "k", f"no problem has {k} judged completions; raise evaluation.rollouts")
    each = np.array([pass_at_k(row[None], k) for row in enough])
    interval = bootstrap(each, generator, level=level)
    kind, settled = _place(interval)
    return Difficulty(kind, settled, interval, k, len(each))


def _place(interval: Interval) -> tuple[Kind, bool]:
    if interval.estimate >= ELICITATION:
        return "elicitation", interval.low >= ELICITATION
    if interval.estimate <= NEW_SKILL:
        return "new_skill", interval.high <= NEW_SKILL
    return "between", interval.high < ELICITATION and interval.low > NEW_SKILL
