"""Q4: which kind of motion the lag cosines of several runs can be, and which they cannot be.

Four families (theory.increment_persistence), fitted to the cosines of adjacent windows of several lengths: a constant
drift in white noise, fractional motion, jitter in a bowl, a slowly turning drift. A fifth, a constant drift whose
positions jitter as well, was added after the lag cosines of AdamW had been seen: it is reported and marked. Families
are compared by how well they foretell a run from the others, so that a parameter more is no advantage of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from experiments.analysis.statistics import interval
from theory.increment_persistence import (
    drift_cosine,
    fractional_cosine,
    restoring_cosine,
    turning_cosine,
)

Array = NDArray[np.float64]
NONE_FITS = "none fits"
NOT_IDENTIFIABLE = "not identifiable"


@dataclass(frozen=True)
class Family:
    """A kind of motion.

    Attributes:
        cosine: of adjacent windows, from free parameters (any real number) and windows in updates.
        starts: free parameters to start fits from.
        names: what the free parameters stand for,
        shown: and how they become that.
        planned: whether it was named before the data were seen.
    """

    cosine: Callable[[Array, Array], Array]
    starts: tuple[tuple[float, ...], ...]
    names: tuple[str, ...]
    shown: Callable[[Array], Array]
    planned: bool = True


def _unit(value: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-np.clip(value, -30.0, 30.0)))


def _positive(value: Any) -> Any:
    return np.exp(np.clip(value, -30.0, 10.0))


def drift_and_jitter_cosine(drift_power: float, jitter_power: float, window: Array) -> Array:
    """Constant drift, white increments and white positions: (d² L² - j²)/(d² L² + L + 2 j²).

    Args:
        drift_power: d², of one update, in units of the variance of an update's noise.
        jitter_power: j², variance of each position by itself, in the same units.
        window: L, updates.
    """
    signal = drift_power * window**2
    return np.asarray((signal - jitter_power) / (signal + window + 2 * jitter_power))


FAMILIES: dict[str, Family] = {
    "constant drift": Family(
        lambda x, window: drift_cosine(_positive(x[0]), window.astype(int)),
        ((-3.0,), (-1.0,)),
        ("signal_to_noise",),
        _positive,
    ),
    "fractional": Family(
        lambda x, window: np.full(window.shape, fractional_cosine(_unit(x[0]), 1)),
        ((0.0,), (1.0,)),
        ("hurst",),
        _unit,
    ),
    "restoring": Family(
        lambda x, window: restoring_cosine(_positive(x[0]) * window, 1),
        ((-5.0,), (-2.0,)),
        ("curvature",),
        _positive,
    ),
    "turning drift": Family(
        lambda x, window: turning_cosine(_positive(x[0]), np.exp(-_positive(x[1])), window.astype(int), 1),
        ((-3.0, -5.0), (-1.0, -4.0), (-2.0, -7.0)),
        ("signal_to_noise", "forgetting"),
        _positive,
    ),
    "drift and jitter": Family(
        lambda x, window: drift_and_jitter_cosine(_positive(x[0]), _positive(x[1]), window),
        ((-6.0, 0.0), (-4.0, 2.0)),
        ("drift_power", "jitter_power"),
        _positive,
        planned=False,
    ),
}


def fit(family: Family, windows: Array, cosines: Array, errors: Array) -> Array:
    """Return the free parameters that fit the cosines [window] best, each in units of its error."""

    def residual(x: Array) -> Array:
        return np.asarray((family.cosine(x, windows) - cosines) / errors)

    fits = [least_squares(residual, start, x_scale=1.0) for start in family.starts]
    best: Array = min(fits, key=lambda one: one.cost).x
    return best


def compare(windows: Array, cosines: Array, level: float = 0.95) -> dict[str, Any]:
    """Fit every family and say which remain.

    A family is *rejected* where its fit to all runs misses the mean cosine at some window by more than a t interval at
    `level`, Bonferroni over windows. It is *worse* where the squared error with which it foretells a run from all
    others exceeds that of the best, paired by run, by a t interval that excludes 0. Among the planned families those
    neither rejected nor worse than the best of those not rejected remain.

    Args:
        windows: updates in each window, [window].
        cosines: of adjacent windows, [run, window].
        level: of the intervals.

    Returns:
        `verdict`: the one that remains, "not identifiable" or "none fits"; `remain`; and for each family its
        `parameters`, `fitted` [window], `rejected`, `error`: the interval of the squared error foretold, and
        `worse_by`, than the best of the planned that are not rejected (than the best planned where all are).

    Raises:
        ValueError: fewer than three runs or windows.
    """
    table = np.asarray(cosines, dtype=np.float64)
    spans = np.asarray(windows, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 3 or table.shape[1] != len(spans):
        raise ValueError(
            f"expected cosines of at least three runs at {len(spans)} windows, got {table.shape}"
        )
    runs = len(table)
    errors = np.maximum(table.std(axis=0, ddof=1), 1e-6)
    found: dict[str, Any] = {}
    foretold: dict[str, Array] = {}
    strict = 1 - (1 - level) / len(spans)
    for name, family in FAMILIES.items():
        best = fit(family, spans, table.mean(axis=0), errors)
        fitted = family.cosine(best, spans)
        misses = [interval(table[:, i] - fitted[i], strict) for i in range(len(spans))]
        foretold[name] = np.array(
            [
                np.square(
                    table[run]
                    - family.cosine(
                        fit(family, spans, np.delete(table, run, axis=0).mean(axis=0), errors), spans
                    )
                ).mean()
                for run in range(runs)
            ]
        )
        found[name] = {
            "planned": family.planned,
            "parameters": dict(zip(family.names, family.shown(best).tolist(), strict=True)),
            "fitted": fitted,
            "rejected": any(miss["low"] > 0 or miss["high"] < 0 for miss in misses),
            "error": interval(foretold[name]),
        }
    planned = [name for name, family in FAMILIES.items() if family.planned]
    standing = [name for name in planned if not found[name]["rejected"]]
    best_name = min(standing or planned, key=lambda name: float(foretold[name].mean()))
    for name, row in found.items():
        row["worse_by"] = interval(foretold[name] - foretold[best_name])
    remain = [name for name in standing if not found[name]["worse_by"]["low"] > 0]
    verdict = NONE_FITS if not remain else remain[0] if len(remain) == 1 else NOT_IDENTIFIABLE
    return {
        "verdict": verdict,
        "remain": remain,
        "best": best_name,
        "runs": runs,
        "windows": spans,
        "cosine": [interval(table[:, i]) for i in range(len(spans))],
        "families": found,
    }
