"""Forecast skill: does a line through the past predict the future better than standing still?

Persistence predicts w(t+h) = w(t); the two-point forecast adds the step u = h / (t - t0) (w(t) - w(t0)); the
damped one adds lambda u. Skill = 1 - MSE(forecast) / MSE(persistence), both pooled over elements, out of
sample. For drift plus white noise of signal ratio S over the window, the MSE ratio of the two-point forecast
is (1 + h/t) / (1 + S² h/t) and the best damping is S² / (1 + S²): the line wins only if S > 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lab.linearity.checks import FloatArray, check_trajectory
from lab.linearity.products import increment_products, ratio, unflipped, weighted_product
from lab.settings import require

MINIMUM_INNER_TARGETS = 2
INNER_SHARE = 0.75  # Of the fit window, by steps, before the inner origin.


@dataclass(frozen=True)
class ForecastSkill:
    """Out-of-sample skill of linear forecasts from one origin.

    Attributes:
        origin_step: step of the last checkpoint of the fit window.
        damping: lambda in [0, 1], chosen on the fit window alone; NaN where that has fewer than four
            checkpoints or did not move.
        skill: of the two-point forecast, pooled over held-out checkpoints; NaN if persistence is perfect.
        skill_damped: of the damped forecast, likewise; NaN also if `damping` is.
        horizon: [target], steps from the origin to each held-out checkpoint.
        skill_by_horizon: [target], `skill` at each.
        skill_damped_by_horizon: [target], `skill_damped` at each.
    """

    origin_step: float
    damping: float
    skill: float
    skill_damped: float
    horizon: FloatArray
    skill_by_horizon: FloatArray
    skill_damped_by_horizon: FloatArray


def two_point_forecast(
    values: ArrayLike, steps: ArrayLike, horizon: float, damping: float = 1.0
) -> FloatArray:
    """w(t) + damping * horizon / (t - t0) * (w(t) - w(t0)), shape [element]; damping 0 is persistence.

    Args:
        values: [checkpoint, element], the known part of the trajectory; only its first and last rows matter.
        steps: [checkpoint].
        horizon: steps beyond the last checkpoint.
        damping: lambda.

    Raises:
        Invalid: see `check_trajectory`.
    """
    table, times = check_trajectory(values, steps)
    slope: FloatArray = (table[-1] - table[0]) / (times[-1] - times[0])
    forecast: FloatArray = table[-1] + damping * horizon * slope
    return forecast


def choose_damping(values: ArrayLike, steps: ArrayLike) -> float:
    """lambda* = sum(step . actual) / sum(step . step), clipped to [0, 1], inside a fit window.

    An inner origin is set at 75 % of the window (by steps; earlier if fewer than two checkpoints would
    follow). `step` is the two-point step from there to each later checkpoint of the window and `actual` the
    displacement that came; sums run over elements and these inner targets. It minimises their squared error.

    Args:
        values: [checkpoint, element], the fit window only.
        steps: [checkpoint].

    Returns:
        lambda*, or NaN for a window of fewer than four checkpoints (two to draw the line, two to judge it) or
        without motion before the inner origin.

    Raises:
        Invalid: see `check_trajectory`.
    """
    table, times = check_trajectory(values, steps)
    products = increment_products(table)
    return float(_damping(products, times, len(times) - 1, unflipped(products))[0])


def forecast_skill(values: ArrayLike, steps: ArrayLike, fit_share: float = 0.75) -> ForecastSkill:
    """Skill of the two-point and the damped forecast on the checkpoints after the fit window.

    The fit window ends at the last checkpoint within `fit_share` of the span in steps (at least the
    second checkpoint); all later checkpoints are targets, forecast from that one origin, and their squared
    errors are summed, so far horizons weigh most. Five equally spaced checkpoints are the fewest with a
    damped skill; with three or four, damping and skill_damped are NaN and the rest is defined.

    Args:
        values: [checkpoint, element].
        steps: [checkpoint].
        fit_share: in (0, 1).

    Raises:
        Invalid: see `check_trajectory`; `fit_share` outside (0, 1).
    """
    table, times = check_trajectory(values, steps)
    products = increment_products(table)
    origin = _origin(times, fit_share)
    damping = _damping(products, times, origin, unflipped(products))
    actual, shared, step = _moments(products, times, origin)
    return ForecastSkill(
        origin_step=float(times[origin]),
        damping=float(damping[0]),
        skill=float(_skill(actual.sum(), shared.sum(), step.sum(), np.ones(1))[0]),
        skill_damped=float(_skill(actual.sum(), shared.sum(), step.sum(), damping)[0]),
        horizon=times[origin + 1 :] - times[origin],
        skill_by_horizon=_skill(actual, shared, step, np.ones(1)),
        skill_damped_by_horizon=_skill(actual, shared, step, damping),
    )


def damped_skill_of_products(
    products: FloatArray, steps: FloatArray, signs: FloatArray, fit_share: float
) -> FloatArray:
    """Pooled `skill_damped` of `forecast_skill` for each sign pattern, [pattern]; each picks its damping."""
    origin = _origin(steps, fit_share)
    damping = _damping(products, steps, origin, signs)
    actual, shared, step = (
        weighted_product(products, weights, signs) for weights in _pooled_weights(steps, origin, len(steps))
    )
    return _skill(actual, shared, step, damping)


def _origin(steps: FloatArray, share: float) -> int:
    """Row of the last checkpoint within `share` of the span: never the first and never the last."""
    require(0.0 < share < 1.0, "fit_share", f"expected a number between 0 and 1, got {share}")
    span = steps[-1] - steps[0]
    within = int(np.searchsorted(steps, steps[0] + (share + 1e-9) * span, side="right")) - 1
    return min(max(within, 1), len(steps) - 2)


def _damping(products: FloatArray, steps: FloatArray, origin: int, signs: FloatArray) -> FloatArray:
    """lambda* of the fit window that ends at row `origin`, for each sign pattern, [pattern]."""
    latest = origin - MINIMUM_INNER_TARGETS
    if latest < 1:
        return np.full(len(signs), np.nan)
    inner = min(_origin(steps[: origin + 1], INNER_SHARE), latest)
    _, *both = _pooled_weights(steps, inner, origin + 1)
    shared, step = (weighted_product(products, weights, signs) for weights in both)
    return np.clip(ratio(shared, step), 0.0, 1.0)


def _moments(
    products: FloatArray, steps: FloatArray, origin: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """|actual|², step . actual and |step|² at each target after row `origin`, each [target]; no signs are flipped."""
    factors = (steps[origin + 1 :] - steps[origin]) / (steps[origin] - steps[0])
    actual = np.diagonal(products[origin:, origin:].cumsum(axis=0).cumsum(axis=1))
    shared = products[:origin, origin:].sum(axis=0).cumsum()
    return actual, factors * shared, np.square(factors) * products[:origin, :origin].sum()


def _pooled_weights(steps: FloatArray, origin: int, stop: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weights (`weighted_product`) of the sums over targets of `_moments`, each float64 [interval, interval].

    Targets are rows origin+1 to stop-1; intervals are those of all `steps`. The displacement to a target holds interval
    j if the target is later than row j, so a pair of intervals counts once for each target after the later of the two.
    """
    past, future = slice(0, origin), slice(origin, stop - 1)
    factors = (steps[origin + 1 : stop] - steps[origin]) / (steps[origin] - steps[0])
    targets = np.arange(len(factors), 0, -1)  # After each interval of the future.
    actual, shared, step = np.zeros((3, len(steps) - 1, len(steps) - 1))
    actual[future, future] = np.minimum(targets[:, None], targets)
    shared[past, future] = np.cumsum(factors[::-1])[::-1]
    step[past, past] = np.square(factors).sum()
    return actual, shared, step


def _skill(actual: FloatArray, shared: FloatArray, step: FloatArray, damping: FloatArray) -> FloatArray:
    """1 - |actual - damping step|² / |actual|², NaN where nothing moved after the origin."""
    return ratio(2.0 * damping * shared - np.square(damping) * step, actual)
