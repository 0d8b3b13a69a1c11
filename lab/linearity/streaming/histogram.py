"""Distributions of R² as counts in narrow bins, which add up over tensors of any size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lab.linearity.checks import FloatArray
from lab.linearity.r_squared import STRAIGHT, RSquaredSummary

BINS = 10_000
"""Bins of equal width on [0, 1]: quantiles are good to 1e-4, and the threshold .7 is an edge."""

COARSE_BINS = 100

Counts = NDArray[np.int64]


def quantiles(counts: Counts, levels: tuple[float, ...]) -> FloatArray:
    """Quantiles of binned values on [0, 1], to within a bin's width; NaN where there are none.

    Values are taken as spread evenly within their bin, so quantiles are linear in between.

    Args:
        counts: int64 [bin].
        levels: in [0, 1].
    """
    total = int(counts.sum())
    if total == 0:
        return np.full(len(levels), np.nan)
    reached = np.cumsum(counts)
    targets = np.asarray(levels) * total
    bins = np.minimum(np.searchsorted(reached, targets, side="left"), len(counts) - 1)
    # Where the target is zero or falls on empty bins, the first bin that holds something.
    first = int(np.argmax(counts > 0))
    bins = np.maximum(bins, first)
    inside = np.clip((targets - (reached[bins] - counts[bins])) / counts[bins], 0.0, 1.0)
    result: FloatArray = (bins + inside) / len(counts)
    return result


def share_above(counts: Counts, threshold: float = STRAIGHT) -> float:
    """Share of binned values at or above `threshold`, which has to be an edge of the bins; NaN where there are none."""
    total = int(counts.sum())
    edge = round(threshold * len(counts))
    return float(counts[edge:].sum() / total) if total else float("nan")


def summarise_counts(counts: Counts, n_nan: int = 0) -> RSquaredSummary:
    """`lab.linearity.summarise` of binned R²; quantiles are good to a bin's width."""
    low, median, high = (float(level) for level in quantiles(counts, (0.25, 0.5, 0.75)))
    return RSquaredSummary(median, share_above(counts), (low, high), int(counts.sum()), n_nan)


def coarse(counts: Counts) -> Counts:
    """The same distribution in `COARSE_BINS` bins."""
    result: Counts = counts.reshape(COARSE_BINS, -1).sum(axis=1)
    return result
