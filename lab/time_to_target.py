"""How long runs take to a target score, when some never reach it: Kaplan-Meier curves and ratios of mean times.

Time is any cost that grows along a run: steps, tokens or seconds. All arms are looked at on one grid of evaluations,
what an arm itself spends on checks counts as cost (`total_cost`), and a run that ends below the target is
censored at its last point: it took longer than that, by how much is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import CensoredData, ecdf

from lab.evaluation import REPLICATES, Interval, expanded_quantiles
from lab.settings import require


@dataclass(frozen=True)
class TimesToTarget:
    """When each run of an arm was first seen at the target or above.

    Attributes:
        times: float64 [run], cost at that evaluation; at the run's last evaluation where it never was.
        reached: bool [run]; False is censored.
    """

    times: np.ndarray
    reached: np.ndarray

    @property
    def median(self) -> float:
        """Kaplan-Meier median: the least time by which half of the runs arrive; NaN if that is not seen."""
        times, alive = survival(self)
        arrived = np.flatnonzero(alive <= 0.5)
        return float(times[arrived[0]]) if len(arrived) else float("nan")


@dataclass(frozen=True)
class Speedup:
    """How many times sooner than the baseline an arm arrives, in restricted mean time."""

    ratio: Interval
    """Restricted mean time of the baseline over that of the arm; above 1 the arm is faster."""
    horizon: float
    """Up to where times are compared; what lies beyond counts as this."""
    arm_mean: float
    baseline_mean: float
    arm_reached: int
    baseline_reached: int


def total_cost(trained: ArrayLike, checks: ArrayLike) -> np.ndarray:
    """Return what had been spent at each evaluation, checks included, [..., point].

    Args:
        trained: [..., point], spent on training up to each evaluation; it may not fall.
        checks: [..., point], spent on checks since the evaluation before, in the same unit: a check of n rollouts is
            n / (rollouts of a step) steps. The evaluations of the grid are the instrument and cost no arm anything.

    Raises:
        Invalid: a cost falls or is negative.
    """
    spent = np.asarray(trained, dtype=np.float64)
    extra = np.asarray(checks, dtype=np.float64)
    require(bool((np.diff(spent, axis=-1) >= 0).all()), "trained", "costs must not fall along a run")
    require(bool((extra >= 0).all()), "checks", "costs must not be negative")
    return spent + extra.cumsum(-1)


def time_to_target(costs: ArrayLike, scores: ArrayLike, target: float) -> TimesToTarget:
    """Return when each run is first at the target or above.

    Args:
        costs: [point] or [run, point], cost at each evaluation, rising.
        scores: [run, point]; NaN where there was no evaluation, as after a run's end, where its costs do not count.
        target: score to be reached.

    Raises:
        Invalid: shapes do not fit, costs fall, or a run has no evaluation.
    """
    seen = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    spent = np.asarray(costs, dtype=np.float64)
    require(
        spent.shape[-1:] == seen.shape[-1:] and spent.shape in (seen.shape, seen.shape[-1:]),
        "costs",
        f"of shape {spent.shape} for scores of shape {seen.shape}",
    )
    spent = np.broadcast_to(spent, seen.shape)
    known = ~np.isnan(seen)
    require(bool(known.any(-1).all()), "scores", "a run has no evaluation at all")
    for row, points in zip(spent, known, strict=True):
        require(bool((np.diff(row[points]) >= 0).all()), "costs", "costs must not fall along a run")
    there = known & (np.where(known, seen, 0.0) >= target)
    reached = np.asarray(there.any(-1))
    last = seen.shape[-1] - 1 - known[:, ::-1].argmax(-1)
    where = np.where(reached, there.argmax(-1), last)
    return TimesToTarget(np.take_along_axis(spent, where[:, None], axis=-1)[:, 0], reached)


def survival(found: TimesToTarget) -> tuple[np.ndarray, np.ndarray]:
    """Return the Kaplan-Meier curve: times in order, and the share of runs that arrive later than each."""
    data = CensoredData(uncensored=found.times[found.reached], right=found.times[~found.reached])
    curve = ecdf(data).sf
    return curve.quantiles, curve.probabilities


def restricted_mean_time(found: TimesToTarget, horizon: float) -> float:
    """Return the mean of min(time, horizon), the area under the Kaplan-Meier curve up to the horizon (Irwin 1949).

    Args:
        found: times of one arm's runs.
        horizon: at most the latest time seen in the arm, beyond which the curve is not known unless it is at zero.

    Raises:
        Invalid: the horizon lies where the curve is not known.
    """
    limit = _known_until(found)
    require(
        0 < horizon <= limit,
        "horizon",
        f"must lie above 0 and not beyond {limit:g}, the latest that was seen; got {horizon:g}",
    )
    return float(_areas(found, np.ones((1, len(found.times)), dtype=int), horizon)[0])


def speedup(
    arm: TimesToTarget,
    baseline: TimesToTarget,
    generator: np.random.Generator,
    *,
    horizon: float | None = None,
    paired: bool = True,
    level: float = 0.95,
    replicates: int = REPLICATES,
) -> Speedup:
    """Return how many times sooner `arm` reaches the target than `baseline`, with a bootstrap interval over runs.

    Where runs never arrive, the ratio is of means that stop at the horizon, hence drawn towards 1.

    Args:
        arm: times of the runs of the arm in question.
        baseline: of the runs that it is compared with.
        generator: decides the replicates.
        horizon: up to where means are taken; None is as far as the curves of both arms are known.
        paired: run i of both arms has the same seed, and both are drawn together.
        level: confidence level; the interval is expanded for few runs as in `lab.evaluation.bootstrap`.
        replicates: how often is resampled.

    Raises:
        Invalid: paired arms of different size, or a horizon beyond what was seen.
    """
    counts = len(arm.times), len(baseline.times)
    require(
        not paired or counts[0] == counts[1], "paired", f"{counts[0]} runs cannot be paired with {counts[1]}"
    )
    horizon = _common_horizon(arm, baseline) if horizon is None else horizon
    means = restricted_mean_time(arm, horizon), restricted_mean_time(baseline, horizon)
    low = high = float("nan")
    if min(counts) > 1:
        drawn = [generator.multinomial(count, np.full(count, 1 / count), size=replicates) for count in counts]
        ours, theirs = _areas(arm, drawn[0], horizon), _areas(baseline, drawn[0 if paired else 1], horizon)
        ratios = theirs / np.maximum(ours, np.finfo(np.float64).tiny)
        low, high = np.quantile(ratios, expanded_quantiles(min(counts), min(counts) - 1, level))
    return Speedup(
        Interval(means[1] / means[0] if means[0] else float("inf"), float(low), float(high), level),
        float(horizon),
        *means,
        int(arm.reached.sum()),
        int(baseline.reached.sum()),
    )


def _areas(found: TimesToTarget, drawn: np.ndarray, horizon: float) -> np.ndarray:
    """Return areas under the curves of resampled runs, [replicate], all at once, which a library does one by one.

    Beyond the latest time drawn a curve goes on level.

    Args:
        found: times of the runs.
        drawn: int [replicate, run], how often each was drawn.
        horizon: up to where.
    """
    order = np.lexsort((~found.reached, found.times))  # at one time, arrivals come before what is censored
    times, reached, weights = found.times[order], found.reached[order], drawn[:, order]
    at_risk = weights[:, ::-1].cumsum(-1)[:, ::-1]
    stay = np.where(reached & (at_risk > 0), (at_risk - weights) / np.maximum(at_risk, 1), 1.0)
    alive = np.concatenate([np.ones((len(drawn), 1)), stay.cumprod(-1)], axis=1)
    edges = np.concatenate([[0.0], np.minimum(times, horizon), [horizon]])
    return np.asarray(alive @ np.diff(edges))


def _known_until(found: TimesToTarget) -> float:
    """A curve is known for ever once it is at zero: when nothing was censored at the latest time."""
    latest = found.times.max()
    return float("inf") if found.reached[found.times == latest].all() else float(latest)


def _common_horizon(arm: TimesToTarget, baseline: TimesToTarget) -> float:
    limit = min(_known_until(arm), _known_until(baseline))
    return limit if np.isfinite(limit) else float(max(arm.times.max(), baseline.times.max()))
