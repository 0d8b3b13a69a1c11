"""Squares, cosines and laws of noisy vectors, from two independent estimates of each.

The product of independent estimates is free of noise in expectation (`theory.grpo_drift.split_batch_square`); the
square of one estimate is too large by its noise, and a cosine of two too small. Both are returned, to be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

Vectors = Mapping[str, np.ndarray]
Halves = tuple[Vectors, Vectors]
"""The same vectors by name, estimated from two independent batches."""

_STEEPEST = 20.0


def squares(halves: Halves) -> dict[str, dict[str, float]]:
    """Return |v|² of every vector: `corrected`, and `uncorrected` from the mean of both halves."""
    first, second = halves
    return {
        name: {
            "corrected": float(first[name] @ second[name]),
            "uncorrected": float(np.square((first[name] + second[name]) / 2).sum()),
        }
        for name in first
    }


def product(halves: Halves, one: str, other: str) -> float:
    """Return the inner product of two different vectors of one moment, each factor from another batch."""
    first, second = halves
    return float(first[one] @ second[other] + second[one] @ first[other]) / 2


def products_between(now: Halves, then: Halves) -> dict[str, float]:
    """Return the inner product of every vector at two moments whose batches are all independent."""
    return {
        name: float((now[0][name] + now[1][name]) @ (then[0][name] + then[1][name])) / 4 for name in now[0]
    }


def cosine(product_: float, square: float, other_square: float) -> float:
    """Return the cosine; NaN where a corrected square is not positive. It may lie beyond 1."""
    if square <= 0 or other_square <= 0:
        return float("nan")
    return float(product_ / np.sqrt(square * other_square))


def power_slope(failure: ArrayLike, values: ArrayLike) -> float:
    """Return the exponent s of values = A failure^s, by least squares on the values themselves.

    So that an estimate that noise has made negative still counts; of logarithms it would have to be left out.

    Args:
        failure: 1 - p, in (0, 1], [moment].
        values: estimates of a square, any sign, [moment].

    Returns:
        s; NaN with fewer than three moments, with a constant failure, and where the best lies beyond 20 in size.
    """
    share, target = np.asarray(failure, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if len(share) < 3 or np.ptp(share) == 0 or not target.mean() > 0:
        return float("nan")
    logs = np.log(share) - np.log(share).mean()

    def misfit(slope: np.ndarray) -> np.ndarray:
        shape = np.exp(np.multiply.outer(slope, logs))
        size = np.maximum(shape @ target / np.square(shape).sum(-1), 0.0)
        return np.asarray(np.square(target - size[..., None] * shape).sum(-1))

    grid = np.linspace(-_STEEPEST, _STEEPEST, 401)
    best = int(np.argmin(misfit(grid)))
    if best in (0, len(grid) - 1):
        return float("nan")
    found = minimize_scalar(
        lambda slope: float(misfit(np.array(slope))),
        bounds=(grid[best - 1], grid[best + 1]),
        method="bounded",
    )
    return float(found.x)


def common_slope(failure: Sequence[Sequence[float]], values: Sequence[Sequence[float]]) -> float:
    """Return one exponent for several runs that share A as well; see `power_slope`."""
    return power_slope(np.concatenate(failure), np.concatenate(values))


def within_slope(failure: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the slope of log(values) on log(failure), each context with an intercept of its own, by replicate.

    For values that are known exactly.

    Args:
        failure: 1 - p, [moment, replicate, context].
        values: squares, likewise; moments at which one of the two is not finite and positive are left out.

    Returns:
        float64 [replicate]; NaN where nothing varies.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = np.log(failure), np.log(values)
    known = np.isfinite(x) & np.isfinite(y)
    count = known.sum(axis=0)
    centred = []
    for table in (x, y):
        filled = np.where(known, table, 0.0)
        centred.append(np.where(known, filled - filled.sum(axis=0) / np.maximum(count, 1), 0.0))
    both, alone = (centred[0] * centred[1]).sum(axis=(0, 2)), (centred[0] ** 2).sum(axis=(0, 2))
    return np.divide(both, alone, out=np.full_like(both, np.nan), where=alone > 0)
