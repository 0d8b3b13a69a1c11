"""Means over seeds with t intervals, of the rows that `experiments.collect` stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

Rows = Sequence[Mapping[str, Any]]


def by_seed(rows: Rows, value: str, **point: str) -> dict[int, float]:
    """Return one number of the runs at a point of a sweep, by seed; undefined ones are left out."""
    chosen = [row for row in rows if all(str(row[key]) == label for key, label in point.items())]
    return {int(row["seed"]): float(row[value]) for row in chosen if row.get(value) is not None}


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return mean and half-width of the t interval; the half-width is NaN with fewer than two values."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return (float(array.mean()) if len(array) else np.nan), np.nan
    half = student.ppf(0.5 + level / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    return float(array.mean()), float(half)


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[float, float, int]:
    """Return the mean of second - first over the seeds that both have, its half-width, and their number."""
    seeds = sorted(first.keys() & second.keys())
    mean, half = mean_interval([second[seed] - first[seed] for seed in seeds])
    return mean, half, len(seeds)


def standardised(difference: Mapping[int, float] | Sequence[float]) -> float:
    """Return mean over standard deviation of paired differences (Cohen's d_z)."""
    values = np.array(list(difference.values()) if isinstance(difference, Mapping) else list(difference))
    return float(values.mean() / values.std(ddof=1))
