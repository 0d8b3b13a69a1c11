"""R²: how much of a trajectory's variance its least-squares line explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lab.linearity.checks import FloatArray, check_trajectory

STRAIGHT = 0.7  # The threshold whose exceedance share arXiv 2601.04537 reports.


@dataclass(frozen=True)
class RSquaredSummary:
    """Distribution of R² over elements; every number is over the defined (non-NaN) values only.

    Attributes:
        median: median R²; NaN where no element has a defined R².
        share_above: share of elements whose R² exceeds the threshold; NaN likewise.
        quartiles: (25 %, 75 %) quantiles, linear interpolation; NaN likewise.
        n: number of elements with a defined R².
        n_nan: number of elements without one (zero variance).
    """

    median: float
    share_above: float
    quartiles: tuple[float, float]
    n: int
    n_nan: int


def r_squared(values: ArrayLike, steps: ArrayLike) -> FloatArray:
    """R² of the least-squares line with intercept, for each element.

    R² = 1 - SSR / SST = corr(y, t)², the squared Pearson correlation of values with steps. It depends on
    neither scale nor offset of values or of steps. A driftless random walk has a mean of .43-.54 (Nelson &
    Kang 1984; `lab.linearity.walk`), so no R² means much without its null.

    Args:
        values: [checkpoint, element], any unit; computed in float64.
        steps: [checkpoint], strictly increasing, possibly unequally spaced.

    Returns:
        [element], float64 in [0, 1]. NaN where all values of an element are equal (zero variance): the
        first value is subtracted before anything else, so equality is exact, without rounding.

    Raises:
        Invalid: see `check_trajectory`.
    """
    table, times = check_trajectory(values, steps)
    return r_squared_unchecked(table, times)


def r_squared_unchecked(values: FloatArray, steps: FloatArray) -> FloatArray:
    """`r_squared` of arrays that are known to be valid; `values` may hold no element at all."""
    offsets = values - values[0]
    size = np.maximum(offsets.max(axis=0), -offsets.min(axis=0))
    moved = size > 0
    offsets /= np.where(moved, size, 1.0)  # Squares of very small or large values stay representable.
    offsets -= offsets.mean(axis=0)
    times = (steps - steps.mean()) / (steps[-1] - steps[0])
    total = np.einsum("ij,ij->j", offsets, offsets)
    explained = np.square(times @ offsets) / (times @ times)
    result = np.full(values.shape[1], np.nan)
    np.divide(explained, total, out=result, where=moved)
    np.minimum(result, 1.0, out=result)
    return result


def summarise(r2: ArrayLike, threshold: float = STRAIGHT) -> RSquaredSummary:
    """Summarise R² over elements (any shape), leaving NaN out and counting it; see `RSquaredSummary`."""
    flat = np.asarray(r2, dtype=np.float64).ravel()
    defined = flat[~np.isnan(flat)]
    n_nan = flat.size - defined.size
    if defined.size == 0:
        return RSquaredSummary(np.nan, np.nan, (np.nan, np.nan), 0, n_nan)
    low, median, high = (float(q) for q in np.quantile(defined, [0.25, 0.5, 0.75]))
    return RSquaredSummary(median, float((defined > threshold).mean()), (low, high), defined.size, n_nan)
