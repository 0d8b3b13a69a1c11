"""Groups of rollouts with binary rewards, by the lab's own advantages and reward flips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lab.checks.estimate import Estimate, blocked_estimate
from lab.draw import Draw
from lab.noise import RewardFlips
from lab.objectives.advantages import AdvantageScale, group_advantages

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


def rewards(pass_rate: float, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Independent rewards, 1 with probability `pass_rate` and 0 else, float64."""
    return (generator.random(shape) < pass_rate).astype(np.float64)


def skewed(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Noise of mean 0 and variance 1 that is far from Gaussian: an exponential less its mean."""
    return generator.standard_exponential(shape) - 1.0


def flip(
    truth: Array,
    false_positive: float,
    false_negative: float,
    generator: np.random.Generator,
    per: Literal["rollout", "prompt"] = "rollout",
) -> Array:
    """Noisy rewards of [prompt, rollout] by `lab.noise`; every prompt is a problem of its own."""
    flips = RewardFlips(float(false_positive), float(false_negative), per)
    keys = [str(index) for index in range(len(truth))] if per == "prompt" else []
    return np.asarray(flips.apply(truth, keys, Draw(int(generator.integers(2**62))), 0))


def group_gradients(paid: Array, scores: Array, scale: AdvantageScale, epsilon: float) -> Array:
    """Mean of advantage times score of each group on its own, [group].

    Args:
        paid: rewards that the learner sees, [group, rollout].
        scores: what each rollout contributes at an advantage of one, [group, rollout].
        scale: of the advantages.
        epsilon: added to the scale.
    """
    return np.asarray((group_advantages(paid, scale, epsilon) * scores).mean(axis=1))


def large_group_drift(paid: Array, scores: Array) -> float:
    """Mean of advantage times score of all rollouts as one group, [rollout] each."""
    return float(group_gradients(paid[None], scores[None], "std", 0.0)[0])


def infinite_group(table: Array, statistic: Callable[[Array], float], blocks: int = 200) -> Estimate:
    """A statistic of one group that is as large as the sample; the jackknife takes off what is left of 1/G.

    Args:
        table: [rollout, column].
        statistic: of such a table.
        blocks: of the jackknife.
    """
    return blocked_estimate(table, statistic, blocks)


def batch_advantages(paid: Counts, rollouts: int, epsilon: float) -> tuple[Array, Array]:
    """Advantages of a paid and of an unpaid rollout of the first prompt of each batch, scaled by the batch.

    Advantages depend on the order of rollouts and of the other prompts in no way, so each composition of a batch is
    handed to the lab's code once; 0 where the prompt has no such rollout.

    Args:
        paid: paid rollouts of each prompt, [batch, prompt].
        rollouts: of each prompt.
        epsilon: added to the scale.
    """
    ordered = np.concatenate([paid[:, :1], np.sort(paid[:, 1:], axis=1)], axis=1)
    kinds, kind = np.unique(ordered, axis=0, return_inverse=True)
    first, last = np.empty(len(kinds)), np.empty(len(kinds))
    for index, counts in enumerate(kinds):
        advantages = group_advantages(_with_counts(counts, rollouts), "batch", epsilon)[0]
        first[index] = advantages[0] if counts[0] > 0 else 0.0
        last[index] = advantages[-1] if counts[0] < rollouts else 0.0
    kind = kind.ravel()  # NumPy 2.0 keeps an axis here
    return first[kind], last[kind]


def count_advantages(
    paid: Counts, rollouts: int, scale: AdvantageScale, epsilon: float
) -> tuple[Array, Array]:
    """The same for single groups of `paid` paid rollouts, [group], scaled on their own."""
    counts = np.arange(rollouts + 1)
    advantages = group_advantages(_with_counts(counts, rollouts), scale, epsilon)
    first, last = np.where(counts > 0, advantages[:, 0], 0), np.where(counts < rollouts, advantages[:, -1], 0)
    return first[paid], last[paid]


def _with_counts(counts: Counts, rollouts: int) -> Array:
    """Rewards [prompt, rollout] of which the first `counts` of each prompt are one."""
    return (np.arange(rollouts) < counts[:, None]).astype(np.float64)
