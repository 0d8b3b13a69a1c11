"""Interval of a median from order statistics: exact and free of any distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import median
from typing import Any


@dataclass(frozen=True)
class MedianInterval:
    """A median with the order statistics that bracket the true one."""

    median: float
    low: float | None
    """None where so few values cannot give the level."""
    high: float | None
    coverage: float | None
    """Exact probability that the interval holds the true median; at least the level asked for."""


def median_interval(values: Sequence[float], level: float = 0.95) -> MedianInterval:
    """Return the median and the narrowest symmetric interval of order statistics of at least `level`.

    The r-th smallest and r-th largest of n independent values bracket the median of their distribution with
    probability 1 - 2 sum_{i<r} C(n, i) / 2^n (David & Nagaraja, Order Statistics, 2003, section 7.1).

    Args:
        values: independent values, at least one.
        level: coverage asked for, in (0, 1).
    """
    ordered = sorted(values)
    count, found = len(ordered), MedianInterval(median(ordered), None, None, None)
    for rank in range(1, count // 2 + 1):
        coverage = 1 - 2 * sum(comb(count, i) for i in range(rank)) / 2**count
        if coverage < level:
            break
        found = MedianInterval(found.median, ordered[rank - 1], ordered[count - rank], coverage)
    return found


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float | None]:
    """Return `median_interval` of the ratios taken round by round, as a summary holds it.

    Args:
        ours: a value of each round.
        theirs: of the same rounds.
    """
    return asdict(median_interval([a / b for a, b in zip(ours, theirs, strict=True)]))


def format_interval(ratio: dict[str, Any]) -> str:
    """Return the median of a summary's interval with its bounds, where there are any."""
    if ratio["low"] is None:
        return f"{ratio['median']:.2f}"
    return f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
