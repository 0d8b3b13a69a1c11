"""What a simulation yields: a number with its standard error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_BLOCKS = 200


@dataclass(frozen=True)
class Estimate:
    """A simulated number.

    Attributes:
        value: the estimate.
        standard_error: of `value`; 0 for an experiment without randomness (a filter fed with a sinusoid).
        samples: independent draws behind it.
    """

    value: float
    standard_error: float
    samples: int


def mean_estimate(samples: Array) -> Estimate:
    """The mean of independent samples, float64 [sample], with s/sqrt(n)."""
    count = len(samples)
    return Estimate(float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(count)), count)


def blocked_estimate(samples: Array, statistic: Callable[[Array], float], blocks: int = _BLOCKS) -> Estimate:
    """Any smooth statistic of independent samples, with the delete-a-block jackknife (Efron & Tibshirani 1993).

    The value is corrected for bias by the jackknife.

    Args:
        samples: float64 [sample, ...].
        statistic: a function of any number of samples, such as a ratio of means or a variance.
        blocks: equal blocks that are left out in turn; a remainder of samples is dropped.
    """
    size = len(samples) // blocks
    kept = samples[: size * blocks]
    whole = statistic(kept)
    left_out = np.array(
        [
            statistic(np.concatenate([kept[: block * size], kept[(block + 1) * size :]]))
            for block in range(blocks)
        ]
    )
    value = blocks * whole - (blocks - 1) * left_out.mean()
    error = np.sqrt((blocks - 1) / blocks * ((left_out - left_out.mean()) ** 2).sum())
    return Estimate(float(value), float(error), size * blocks)
