"""Persistence of increments: does a run keep going where it was going?

Both statistics are cosines between displacement vectors over all elements. Momentum fakes them (pure noise
under beta1 = .9, checkpoints 10 updates apart: lag cosine .53), so compute them on the momentum-free position
or on checkpoints at least `lab.linearity.momentum.minimum_spacing` updates apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lab.linearity.checks import FloatArray, check_trajectory
from lab.linearity.products import increment_products, ratio, unflipped, weighted_product, window_weights
from lab.settings import require


def lag_cosine(values: ArrayLike, steps: ArrayLike, lags: Sequence[int]) -> FloatArray:
    """Cosine between successive displacements of `lag` checkpoints, pooled over elements and origins.

    With a_k = x_{k+L} - x_k and b_k = x_{k+2L} - x_{k+L} (vectors over elements), lag L has

        sum_k <a_k, b_k> / sqrt(sum_k |a_k|² sum_k |b_k|²).

    Expected: about d² L / (1 + d² L) for drift d per interval over unit white noise, 2^(2H-1) - 1 for
    fractional Brownian motion at any L, 0 for a driftless walk, negative for a mean-reverting path.

    Args:
        values: [checkpoint, element].
        steps: [checkpoint]; only validated: windows are counted in checkpoints.
        lags: window lengths in checkpoints, each at least 1.

    Returns:
        [lag], float64 in [-1, 1]; NaN for a lag that needs more checkpoints than there are (2 L + 1) and
        where all displacements of one side are zero.

    Raises:
        Invalid: see `check_trajectory`; a lag below 1.
    """
    table, _ = check_trajectory(values, steps)
    products = increment_products(table)
    return np.array([lag_cosine_of_products(products, unflipped(products), lag)[0] for lag in lags])


def split_half(values: ArrayLike, steps: ArrayLike, gap: int = 1) -> float:
    """Cosine between the displacements over the first and over the second half of a run.

    The two halves have equally many intervals, (n - 1 - gap) // 2 each, counted from the two ends; at least
    `gap` intervals lie between them. First against second, never odd against even, whose neighbours share
    momentum.

    Returns:
        The cosine, NaN where a half would be empty or did not move.

    Raises:
        Invalid: see `check_trajectory`; a negative `gap`.
    """
    table, _ = check_trajectory(values, steps)
    products = increment_products(table)
    return float(split_half_of_products(products, unflipped(products), gap)[0])


def lag_cosine_of_products(products: FloatArray, signs: FloatArray, lag: int) -> FloatArray:
    """`lag_cosine` at one lag for each sign pattern, shape [pattern]; see `lab.linearity.products`."""
    require(lag >= 1, "lags", f"expected at least 1, got {lag}")
    intervals = len(products)
    both, before, after = (np.zeros((intervals, intervals)) for _ in range(3))
    for start in range(intervals - 2 * lag + 1):
        first, second = slice(start, start + lag), slice(start + lag, start + 2 * lag)
        both[first, second] += 1.0
        before[first, first] += 1.0
        after[second, second] += 1.0
    return _cosine(*(weighted_product(products, weights, signs) for weights in (both, before, after)))


def split_half_of_products(products: FloatArray, signs: FloatArray, gap: int) -> FloatArray:
    """`split_half` for each sign pattern, shape [pattern]; see `lab.linearity.products`."""
    require(gap >= 0, "gap", f"expected 0 or more intervals, got {gap}")
    intervals = len(products)
    half = (intervals - gap) // 2
    if half < 1:
        return np.full(len(signs), np.nan)
    first, second = slice(0, half), slice(intervals - half, intervals)
    windows = ((first, second), (first, first), (second, second))
    weights = [window_weights(intervals, *pair) for pair in windows]
    return _cosine(*(weighted_product(products, each, signs) for each in weights))


def _cosine(both: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray:
    lengths = np.sqrt(np.maximum(first, 0.0)) * np.sqrt(np.maximum(second, 0.0))
    return np.clip(ratio(both, lengths), -1.0, 1.0)
