"""Group-relative advantages of verified rewards (GRPO, Shao et al. 2024, arXiv 2402.03300, and relatives)."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np

AdvantageScale = Literal["std", "unbiased_std", "batch", "none"]

_EQUAL = 1e-12  # standard deviations of equal rewards below this are rounding


def group_advantages(rewards: np.ndarray, scale: AdvantageScale, epsilon: float) -> np.ndarray:
    """Return (r - group mean) / (s + epsilon).

    The scale s is, by name: `std` the population standard deviation of the group, sqrt((k/G)(1-k/G)) for
    k right answers of G; `unbiased_std` the same with G - 1 in the denominator; `batch` the population
    standard deviation of all judged rewards of the batch; `none` one (and epsilon is not added).
    Leading axes count independent batches. A group of equal rewards, or with fewer than two judged rewards,
    has advantage zero throughout.

    Args:
        rewards: float64 [..., prompt, rollout]; NaN marks a completion that could not be judged: it is left
            out of the mean and of s and gets advantage zero.
        scale: how advantages are scaled.
        epsilon: added to s.

    Returns:
        float64 [..., prompt, rollout]; each group sums to zero.
    """
    judged = ~np.isnan(rewards)
    count = judged.sum(axis=-1, keepdims=True)
    filled = np.where(judged, rewards, 0.0)
    mean = filled.sum(axis=-1, keepdims=True) / np.maximum(count, 1)
    centred = np.where(judged, rewards - mean, 0.0)
    spread = np.sqrt((centred**2).sum(axis=-1, keepdims=True) / np.maximum(count, 1))
    if scale == "none":
        divisor = np.ones_like(spread)
    elif scale == "batch":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a batch without one judged reward
            batch = np.nanstd(rewards, axis=(-2, -1), keepdims=True)
            divisor = np.broadcast_to(batch, spread.shape) + epsilon
    elif scale == "unbiased_std":
        divisor = spread * np.sqrt(count / np.maximum(count - 1, 1)) + epsilon
    else:
        divisor = spread + epsilon
    signal = (spread > _EQUAL) & (count >= 2)
    return np.where(signal, centred / np.where(signal, divisor, 1.0), 0.0)


def permute_within_groups(advantages: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Shuffle the advantages of each group: the pure-noise twin of a batch.

    Given the rollouts, the expected advantage of each becomes the group mean, which is exactly zero.

    Args:
        advantages: float64 [..., prompt, rollout].
        uniforms: [..., prompt, rollout] in [0, 1); their order in a group is the permutation.
    """
    return np.take_along_axis(advantages, np.argsort(uniforms, axis=-1), axis=-1)
