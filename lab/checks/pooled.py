"""Statistics of sums over many coordinates, from slices of them: skill, damping, cosines, with their errors.

Every statistic that is pooled over coordinates is a function of the inner products of the increments
(`lab.linearity.products`), and those add up over slices. So a simulation draws its coordinates slice by slice, which
bounds memory, and the slices are the blocks of the jackknife.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lab.checks.estimate import Estimate, blocked_estimate
from lab.linearity import forecast_skill, two_point_forecast
from lab.linearity.products import increment_products

Array = NDArray[np.float64]

SLICES = 200

_DAMPINGS = (0.0, 0.5, 1.0)


def in_slices(draw: Callable[[int], Array], samples: int, multiple: int = 1) -> tuple[Array, int]:
    """What `draw` makes of each slice, and how many draws there were in all: (array [slice, ...], draws).

    Args:
        draw: number of independent draws -> anything that is averaged over them.
        samples: draws wanted.
        multiple: the draws in a slice are a multiple of this, at least `samples` in all.
    """
    width = multiple * -(-samples // (multiple * SLICES))
    return np.stack([draw(width) for _ in range(SLICES)]), width * SLICES


def products(values: Array) -> Array:
    """Inner products of increments, averaged over coordinates: [interval, interval] of [checkpoint, coordinate]."""
    return increment_products(values) / values.shape[1]


def jackknife(slices: Array, statistic: Callable[[Array], float], samples: int) -> Estimate:
    """A smooth function of the mean over slices; each slice is a block of the jackknife.

    Args:
        slices: [slice, ...].
        statistic: of the mean slice.
        samples: independent draws behind all slices.
    """
    estimate = blocked_estimate(slices, lambda kept: statistic(kept.mean(axis=0)), blocks=len(slices))
    return replace(estimate, samples=samples)


def representatives(inner_products: Array) -> Array:
    """As few coordinates as there are intervals, with these inner products of increments: [checkpoint, coordinate].

    Whatever is pooled over coordinates is the same for them as for the thousands that were summed.
    """
    variances, axes = np.linalg.eigh(inner_products)
    increments = axes * np.sqrt(np.maximum(variances, 0.0))
    return np.concatenate([np.zeros((1, len(increments))), np.cumsum(increments, axis=0)])


def two_point_skill(values: Array, steps: Array) -> float:
    """Skill of the two-point forecast of the last row from all rows before it."""
    share = (steps[-2] - steps[0]) / (steps[-1] - steps[0])
    return forecast_skill(values, steps, float(share)).skill


def damped_error(values: Array, steps: Array, damping: float) -> float:
    """Squared error of the last row, forecast from all rows before it by a damped two-point step; 0 holds it."""
    horizon = float(steps[-1] - steps[-2])
    forecast = two_point_forecast(values[:-1], steps[:-1], horizon, damping)
    return float(((forecast - values[-1]) ** 2).sum())


def best_damping(values: Array, steps: Array) -> tuple[float, float]:
    """The damping that would have done best for the last row, and its skill.

    The squared error is a parabola in the damping, which three forecasts fix. Not cut to [0, 1].
    """
    square, slope, held = np.polyfit(_DAMPINGS, [damped_error(values, steps, w) for w in _DAMPINGS], 2)
    best = -slope / (2 * square)
    return float(best), float(-slope * best / (2 * held))
