"""Means over seeds with their t intervals, and the choice of rows: what every analysis of collected runs needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lab.cell_summary import mean_interval

Rows = Sequence[Mapping[str, Any]]


def interval(values: Iterable[float], level: float = 0.95) -> dict[str, float]:
    """Return `mean`, `low`, `high` of a t interval and the number `n` of values; undefined values are left out."""
    array = np.asarray(list(values), dtype=np.float64)
    defined = array[~np.isnan(array)]
    mean, low, high = mean_interval(defined, level)
    return {"mean": mean, "low": low, "high": high, "n": len(defined)}


def jackknife(values: Sequence[float], whole: float, level: float = 0.95) -> dict[str, float]:
    """Return the interval of a statistic from its values with one run left out at a time (Tukey 1958).

    Args:
        values: the statistic without run i, [run].
        whole: the statistic of all runs.
        level: of the interval, from Student's t with one degree of freedom less than runs.
    """
    count = len(values)
    pseudo = count * whole - (count - 1) * np.asarray(values, dtype=np.float64)
    _, low, high = mean_interval(pseudo, level)
    half = (high - low) / 2
    return {"mean": float(whole), "low": float(whole - half), "high": float(whole + half), "n": count}


def select(rows: Rows, **point: object) -> list[Mapping[str, Any]]:
    """Return the rows at a point of a sweep, labels compared as text."""
    return [row for row in rows if all(str(row[key]) == str(label) for key, label in point.items())]


def by_seed(rows: Rows) -> dict[int, Mapping[str, Any]]:
    """Return rows by seed; of each seed there is at most one."""
    found = {int(row["seed"]): row for row in rows}
    if len(found) != len(rows):
        raise ValueError("two runs of one seed: the point is not fully named")
    return found


def cells(rows: Rows, axes: Sequence[str]) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    """Return rows by their labels on some axes, in order of appearance."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(str(row[axis]) for axis in axes), []).append(row)
    return found
