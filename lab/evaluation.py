"""Held-out evaluation: avg@k, unbiased pass@k, and intervals over problems and seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln
from scipy.stats import norm, trim_mean
from scipy.stats import t as student

from lab.settings import require

REPLICATES = 2000
_CELLS_AT_A_TIME = 2**22  # resampled values held in memory

Statistic = Callable[[np.ndarray], np.ndarray]
"""Takes [..., value], unordered, and returns [...]."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    """NaN where there are too few units to resample."""
    high: float
    level: float


def average_at_k(correct: np.ndarray) -> float:
    """Return the mean over problems of each one's pass rate; NaN marks a completion that was not judged.

    Problems of which nothing was judged are left out; NaN if that leaves none.

    Args:
        correct: [problem, rollout], 0 or 1 or NaN.
    """
    judged = np.isfinite(correct).sum(-1)
    known = judged > 0
    return float(np.mean(np.nansum(correct[known], -1) / judged[known])) if known.any() else float("nan")


def pass_at_k(correct: np.ndarray, k: int) -> float:
    """Return the unbiased estimate of the chance that one of k completions is right, over problems.

    1 - C(n - c, k) / C(n, k) for c right of n judged completions (Chen et al. 2021, arXiv 2107.03374).
    Problems with fewer than k judged completions are left out.

    Args:
        correct: [problem, rollout], 0 or 1 or NaN.
        k: completions allowed, at least 1.

    Raises:
        Invalid: k below 1, or no problem has k judged completions.
    """
    require(k >= 1, "k", f"must be at least 1, got {k}")
    judged = np.isfinite(correct).sum(1)
    right = np.nansum(correct, axis=1)
    enough = judged >= k
    require(bool(enough.any()), "k", f"no problem has {k} judged completions")
    n, wrong = judged[enough].astype(float), (judged - right)[enough]
    possible = wrong >= k
    log_ratio = np.full(len(n), -np.inf)
    log_ratio[possible] = (
        gammaln(wrong[possible] + 1)
        - gammaln(wrong[possible] - k + 1)
        - gammaln(n[possible] + 1)
        + gammaln(n[possible] - k + 1)
    )
    return float(np.mean(1.0 - np.exp(log_ratio)))


def pass_rate_interval(correct: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Return the half-width of the t interval of the mean pass rate; the problem is the unit.

    Args:
        correct: [..., problem, rollout], 0 or 1 or NaN.
        level: confidence level.

    Returns:
        [...]; NaN with fewer than two problems of which something was judged.
    """
    judged = np.isfinite(correct).sum(-1)
    known = judged > 0
    count = known.sum(-1)
    rates = np.nansum(correct, -1) / np.maximum(judged, 1)
    mean = rates.sum(-1, keepdims=True) / np.maximum(count, 1)[..., None]
    squares = np.where(known, (rates - mean) ** 2, 0.0).sum(-1)
    freedom = np.maximum(count - 1, 1)
    half = student.ppf(0.5 + level / 2, freedom) * np.sqrt(squares / freedom / np.maximum(count, 1))
    return np.where(count < 2, np.nan, half)


def pass_rates(correct: np.ndarray) -> np.ndarray:
    """Return the pass rate of each problem, [..., problem]; NaN where nothing was judged.

    Args:
        correct: [..., problem, rollout], 0 or 1 or NaN.
    """
    judged = np.isfinite(correct).sum(-1)
    return np.where(judged > 0, np.nansum(correct, -1) / np.maximum(judged, 1), np.nan)


def mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis."""
    return np.asarray(values.mean(-1))


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of the middle half of the last axis: the 25 % trimmed mean (Agarwal et al. 2021, 2108.13264).

    A quarter of the values, rounded down, is cut off at either end.
    """
    return np.asarray(trim_mean(values, 0.25, axis=-1))


def bootstrap(
    scores: ArrayLike,
    generator: np.random.Generator,
    *,
    strata: ArrayLike | None = None,
    statistic: Statistic = mean,
    level: float = 0.95,
    replicates: int = REPLICATES,
) -> Interval:
    """Return a statistic of the scores of several seeds on several problems, with a stratified bootstrap interval.

    Within each stratum, and independently of the others, seeds and problems are drawn with replacement, and a cell is
    taken where a drawn seed meets a drawn problem (the pigeonhole bootstrap of two crossed factors, Owen 2007; its
    variance errs, if at all, upward). A factor with one level is not drawn: with one seed, the interval speaks of
    that run alone. Problems of one stratum that have one column each, such as a task's mean score, give the stratified
    bootstrap of Agarwal et al. (2021) over runs.

    The interval is the expanded percentile interval (Hesterberg 2015, The American Statistician 69, 371-386): quantiles
    of the replicates, taken further out by sqrt(n / (n - 1)) and by Student's t in place of the normal, for the
    smallest n that is drawn from. Few seeds so get a fair interval and not a short one.

    Args:
        scores: float [problem], or [seed, problem]. Problems with a score that is NaN for any seed are left out.
        generator: decides the replicates.
        strata: int [problem], such as the task that it belongs to; None for one stratum.
        statistic: of all values of a replicate.
        level: confidence level.
        replicates: how often is resampled.

    Raises:
        Invalid: no score is left, or shapes do not fit.
    """
    table, groups = _table(scores, strata)
    return _bootstrap(table[None], groups, generator, lambda arms: statistic(arms[0]), level, replicates)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    generator: np.random.Generator,
    *,
    strata: ArrayLike | None = None,
    statistic: Statistic = mean,
    relative: bool = False,
    level: float = 0.95,
    replicates: int = REPLICATES,
) -> Interval:
    """Return by how much `first` exceeds `second`, both scored with the same seeds on the same problems.

    Every replicate draws the same seeds and problems for both, so what they share drops out; see `bootstrap`.

    Args:
        first: float [problem] or [seed, problem].
        second: the same shape; problems with a NaN in either are left out of both.
        generator: decides the replicates.
        strata: see `bootstrap`.
        statistic: of all values of one arm.
        relative: divide the difference by the statistic of `second`.
        level: confidence level.
        replicates: how often is resampled.

    Raises:
        Invalid: no score is left, or shapes do not fit.
    """
    one, another = np.asarray(first, np.float64), np.asarray(second, np.float64)
    require(one.shape == another.shape, "second", f"has shape {another.shape}, the first {one.shape}")
    unknown = np.isnan(one) | np.isnan(another)
    tables = [_table(np.where(unknown, np.nan, each), strata) for each in (one, another)]

    def difference(arms: np.ndarray) -> np.ndarray:
        ours, theirs = statistic(arms[0]), statistic(arms[1])
        with np.errstate(divide="ignore", invalid="ignore"):
            return (ours - theirs) / theirs if relative else ours - theirs

    stacked = np.stack([table for table, _ in tables])
    return _bootstrap(stacked, tables[0][1], generator, difference, level, replicates)


def expanded_quantiles(units: int, freedom: int, level: float) -> tuple[float, float]:
    """Return which quantiles of bootstrap replicates bound an interval, for few units; see `bootstrap`.

    Args:
        units: how many are drawn with replacement, at least 2.
        freedom: degrees of freedom of Student's t.
        level: confidence level.
    """
    reach = np.sqrt(units / (units - 1)) * student.ppf(0.5 + level / 2, freedom)
    tail = float(norm.cdf(-reach))
    return tail, 1.0 - tail


def _table(scores: ArrayLike, strata: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Return scores [seed, problem] and strata [problem] of the problems that every seed has a score of."""
    table = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    require(table.ndim == 2, "scores", f"expected [problem] or [seed, problem], got shape {table.shape}")
    groups = np.zeros(table.shape[1], dtype=int) if strata is None else np.asarray(strata)
    require(groups.shape == table.shape[1:], "strata", f"{groups.shape} for {table.shape[1]} problems")
    known = ~np.isnan(table).any(0)
    require(bool(known.any()), "scores", "no problem has a score")
    return table[:, known], groups[known]


def _bootstrap(
    arms: np.ndarray,
    strata: np.ndarray,
    generator: np.random.Generator,
    statistic: Callable[[np.ndarray], np.ndarray],
    level: float,
    replicates: int,
) -> Interval:
    """Resample [arm, seed, problem] jointly over arms; `statistic` takes [arm, ..., value]."""
    count, seeds, problems = arms.shape
    estimate = float(statistic(arms.reshape(count, -1)))
    parts = [np.flatnonzero(strata == label) for label in np.unique(strata)]
    drawn_from = _fewest_units(seeds, [len(part) for part in parts])
    if drawn_from is None:
        return Interval(estimate, float("nan"), float("nan"), level)
    found = []
    at_a_time = max(1, _CELLS_AT_A_TIME // arms.size)
    for start in range(0, replicates, at_a_time):
        size = min(at_a_time, replicates - start)
        drawn = []
        for part in parts:
            rows = generator.integers(seeds, size=(size, seeds, 1))
            columns = part[generator.integers(len(part), size=(size, 1, len(part)))]
            drawn.append(arms[:, rows, columns].reshape(count, size, -1))
        found.append(statistic(np.concatenate(drawn, axis=-1)))
    low, high = np.quantile(np.concatenate(found), expanded_quantiles(*drawn_from, level))
    return Interval(estimate, float(low), float(high), level)


def _fewest_units(seeds: int, sizes: list[int]) -> tuple[int, int] | None:
    """Return units and degrees of freedom of the factor with fewer units; None where nothing can be drawn."""
    factors = [(seeds, len(sizes) * (seeds - 1))] if seeds > 1 else []
    if max(sizes) > 1:
        factors.append((min(size for size in sizes if size > 1), sum(sizes) - len(sizes)))
    return min(factors, default=None)
