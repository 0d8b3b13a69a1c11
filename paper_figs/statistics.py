"""Means over seeds with t intervals, of the rows that `experiments.collect` stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

Rows = Sequence[Mapping[str, Any]]


def by_seed(rows: Rows, value: str | Sequence[str], **point: str) -> dict[int, float]:
    """Return one number of the runs at a point of a sweep, by seed; undefined and absent ones are left out.

    Args:
        rows: of a sweep.
        value: key of a row; or the keys that lead to it, one within another.
        **point: labels of the axes.
    """
    path = (value,) if isinstance(value, str) else value
    chosen = [row for row in rows if all(str(row[key]) == label for key, label in point.items())]
    found = {int(row["seed"]): _follow(row, path) for row in chosen}
    return {seed: float(number) for seed, number in found.items() if number is not None}


def _follow(row: Mapping[str, Any], path: Sequence[str]) -> Any:
    inner: Any = row
    for key in path:
        inner = None if inner is None else inner.get(key)
    return inner


def labels(rows: Rows, axis: str) -> list[str]:
    """Return the labels of an axis of a sweep that have rows, in the order in which they come."""
    return list(dict.fromkeys(str(row[axis]) for row in rows))


def how_many(counts: Iterable[int], what: str = "seeds") -> str:
    """Say how many there are, or the fewest and the most: `8 seeds`, `4 to 8 seeds`."""
    found = sorted(set(counts))
    if not found:
        return f"no {what}"
    return f"{found[0]} {what}" if len(found) == 1 else f"{found[0]} to {found[-1]} {what}"


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


def relative_gain(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    """Return second / first - 1 for the seeds that both have; where first is 0 it is left out."""
    return {
        seed: second[seed] / first[seed] - 1 for seed in sorted(first.keys() & second.keys()) if first[seed]
    }


def standardised(difference: Mapping[int, float] | Sequence[float]) -> float:
    """Return mean over standard deviation of paired differences (Cohen's d_z)."""
    values = np.array(list(difference.values()) if isinstance(difference, Mapping) else list(difference))
    return float(values.mean() / values.std(ddof=1))
