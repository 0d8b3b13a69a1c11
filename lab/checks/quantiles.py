"""Quantiles of independent samples, with their standard errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lab.checks.estimate import Estimate

Array = NDArray[np.float64]


def quantile_estimate(samples: Array, level: float) -> Estimate:
    """A quantile of independent samples.

    The number of samples below a quantile is binomial; its standard error is turned into one of the quantile by the
    quantiles that much higher and lower (Woodruff 1952).

    Args:
        samples: float64 [sample].
        level: in (0, 1).
    """
    spread = np.sqrt(level * (1 - level) / len(samples))
    levels = np.clip([level - spread, level, level + spread], 0.0, 1.0)
    below, middle, above = np.quantile(samples, levels)
    return Estimate(float(middle), float(above - below) / 2, len(samples))
