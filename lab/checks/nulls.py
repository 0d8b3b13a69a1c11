"""What chance alone gives, as a table: exactly where theory knows it, and by simulation.

An R², a share of variance or a forecast error says little until its null stands beside it. Each null here is a few
numbers that a driftless process shows; those that were stated before they were computed are compared with that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lab.checks.adam_noise import CHECKPOINT_STEPS, noise_trajectories
from lab.checks.estimate import Estimate, mean_estimate
from lab.checks.low_rank_walk import components, walk
from lab.checks.pooled import in_slices, jackknife
from lab.checks.quantiles import quantile_estimate
from lab.checks.rows import NullRow
from lab.draw import Draw
from lab.linearity import get_protocol, r_squared
from lab.linearity.r_squared import STRAIGHT
from lab.linearity.walk import walk_r_squared

Array = NDArray[np.float64]
Null = Callable[[float, np.random.Generator], list[NullRow]]

_N = 14  # Checkpoints of the published runs.
_QUARTILES = {"lower quartile": 0.25, "median": 0.5, "upper quartile": 0.75}
_MOVED_SHARE = 0.2
_MANY_CHECKPOINTS = 1_000  # In place of infinitely many.
_RUN_CHECKPOINTS = 101
_PREFIX = 21
_RATES = (1e-6, 1e-5)
_POWERS = np.linspace(0.25, 2.5, 10)  # Among which S² at the threshold is looked for.
_DIGIT = 0.005  # Half a unit of the second digit, to which most were stated,
_ROUGH = 0.015  # and what is allowed to those stated as approximate.


def null_table(seed: int, effort: float = 1.0) -> list[NullRow]:
    """All nulls.

    Args:
        seed: root of all randomness; a null's numbers depend on it and on the name of the null alone.
        effort: factor on the number of samples.
    """
    draw = Draw(seed)
    return [row for name, null in NULLS.items() for row in null(effort, draw.generator(f"null {name}"))]


def _samples(base: int, effort: float, least: int = 400) -> int:
    return max(round(base * effort), least)


def _pair(
    null: str,
    statistic: str,
    exact: float | None,
    simulated: Estimate | None,
    stated: float | None = None,
    tolerance: float | None = _DIGIT,
) -> list[NullRow]:
    """The rows of one number: exact, simulated, or both."""
    allowed = None if stated is None else tolerance
    rows = []
    if exact is not None:
        rows.append(NullRow(null, statistic, "exact", float(exact), 0.0, stated, allowed))
    if simulated is not None:
        value, error = simulated.value, simulated.standard_error
        rows.append(NullRow(null, statistic, "simulated", value, error, stated, allowed))
    return rows


def _share_above(values: Array, threshold: float) -> Estimate:
    return mean_estimate((values > threshold).astype(np.float64))


def walk_means(effort: float, generator: np.random.Generator) -> list[NullRow]:
    """Mean R² of driftless walks by number of checkpoints."""
    from theory.gaussian_r_squared import random_walk_limit, random_walk_mean

    rows = []
    for n, stated in ((4, 0.538), (8, 0.458), (14, 0.442), (50, 0.435)):
        values = walk_r_squared(np.arange(n), _samples(200_000, effort), generator)
        exact = float(random_walk_mean(n))
        rows += _pair(f"driftless walk, n = {n}", "mean R²", exact, mean_estimate(values), stated, 0.0005)
    many = walk_r_squared(np.arange(_MANY_CHECKPOINTS), _samples(10_000, effort), generator)
    limit = float(random_walk_limit())
    return rows + _pair("driftless walk, n → ∞", "mean R²", limit, mean_estimate(many), 0.434, 0.0005)


def walk_distribution(effort: float, generator: np.random.Generator) -> list[NullRow]:
    """Quantiles of R² of driftless walks at 14 checkpoints, and the share that looks straight."""
    from theory.gaussian_r_squared import walk_cumulative, walk_quantile

    null = f"driftless walk, n = {_N}"
    values = walk_r_squared(np.arange(_N), _samples(200_000, effort), generator)
    rows = []
    for (statistic, level), stated in zip(_QUARTILES.items(), (0.15, 0.45, 0.72), strict=True):
        exact, simulated = float(walk_quantile(_N, level)), quantile_estimate(values, level)
        rows += _pair(null, f"{statistic} of R²", exact, simulated, stated, _ROUGH)
    above = 1 - float(walk_cumulative(_N, STRAIGHT))
    simulated = _share_above(values, STRAIGHT)
    return rows + _pair(null, f"share of R² > {STRAIGHT}", above, simulated, 0.27, _ROUGH)


def moved_most(effort: float, generator: np.random.Generator) -> list[NullRow]:
    """R² of the fifth of driftless walks that moved most from end to end."""
    paths = walk(_N, 0.0, _samples(200_000, effort), generator)
    change = np.abs(paths[-1] - paths[0])
    values = r_squared(paths[:, change > np.quantile(change, 1 - _MOVED_SHARE)], np.arange(_N))
    null = f"driftless walk, n = {_N}, the {_MOVED_SHARE:.0%} that moved most"
    rows = _pair(null, "median of R²", None, quantile_estimate(values, 0.5), 0.83, _ROUGH)
    return rows + _pair(null, f"share of R² > {STRAIGHT}", None, _share_above(values, STRAIGHT), 0.79, _ROUGH)


def paper_filter(effort: float, generator: np.random.Generator) -> list[NullRow]:
    """R² of weights under AdamW without signal, through the published cast and filter."""
    protocol = get_protocol("paper")
    stated = {1e-6: (0.71, 0.83, 0.89, 0.02), 1e-5: (None, 0.49, None, 0.83)}
    rows = []
    runs = noise_trajectories(_RATES, _samples(100_000, effort, least=4_000), generator)
    for rate, weights in zip(_RATES, runs, strict=True):
        stored = protocol.cast(weights, "weights")
        kept = protocol.keep(stored, "weights")
        values = r_squared(stored[:, kept], CHECKPOINT_STEPS)
        *quartiles, retained = stated[rate]
        null = f"AdamW without signal, lr {rate:g}, published filter"
        for (statistic, level), known in zip(_QUARTILES.items(), quartiles, strict=True):
            simulated = quantile_estimate(values, level)
            rows += _pair(null, f"{statistic} of R²", None, simulated, known, 2 * _ROUGH)
        rows += _pair(null, "share retained", None, mean_estimate(kept.astype(np.float64)), retained, _ROUGH)
        rows += _pair(null, f"share of R² > {STRAIGHT}", None, _share_above(values, STRAIGHT))
    return rows


def low_rank(effort: float, generator: np.random.Generator) -> list[NullRow]:
    """Principal components of a driftless walk of many coordinates, and the rank-1 path carried on."""
    from theory import low_rank_walk as theory

    coordinates, runs = 2_000, max(round(200 * effort), 20)
    found = np.array([_run_components(coordinates, generator) for _ in range(runs)])
    estimates = [mean_estimate(column) for column in found.T]
    null = "driftless walk of many coordinates, n → ∞"
    rows = _pair(null, "share of centred PC1", float(theory.centred_share_limit()), estimates[0], 0.61)
    rows += _pair(
        null, "share of uncentred rank 1", float(theory.uncentred_share_limit()), estimates[1], 0.81
    )
    limit = float(theory.uncentred_coefficient_limit())
    rows += _pair(null, "R² of the rank-1 coefficient", limit, estimates[2], 0.96)
    exact = _expected_rank_one_ratio(_RUN_CHECKPOINTS, _PREFIX)
    return rows + _pair(
        null,
        "RMSE of the rank-1 line from a 20 % prefix to the end, over persistence",
        exact,
        estimates[3],
        2.2,
        0.05,
    )


def _run_components(coordinates: int, generator: np.random.Generator) -> tuple[float, float, float, float]:
    """(share of centred PC1, share of rank 1, R² of its coefficient, error of the rank-1 line) of one run."""
    values = walk(_RUN_CHECKPOINTS, 0.0, coordinates, generator)
    centred, _ = components(values, centred=True)
    shares, coefficients = components(values, centred=False)
    straight = float(r_squared(coefficients[:, :1], np.arange(_RUN_CHECKPOINTS))[0])
    window = values[:_PREFIX]
    left, singular, right = np.linalg.svd(window, full_matrices=False)
    slope, intercept = np.polyfit(np.arange(_PREFIX), left[:, 0] * singular[0], 1)
    forecast = (intercept + slope * (_RUN_CHECKPOINTS - 1)) * right[0]
    error, held = (np.linalg.norm(guess - values[-1]) for guess in (forecast, window[-1]))
    return float(centred[0]), float(shares[0]), straight, float(error / held)


def _expected_rank_one_ratio(n: int, prefix: int) -> float:
    """The ratio of errors for infinitely many coordinates, whose inner products are their expectations min(i, j)."""
    time = np.arange(n, dtype=np.float64)
    products = np.minimum.outer(time, time)
    leading = np.linalg.eigh(products[:prefix, :prefix])[1][:, -1]
    slope, intercept = np.polyfit(time[:prefix], leading, 1)
    # The line ends at a multiple of the leading direction, which is `leading` applied to the rows of the window.
    weights = np.zeros(n)
    weights[:prefix] = (intercept + slope * (n - 1)) * leading
    weights[-1] -= 1.0
    held = products[-1, -1] - products[prefix - 1, prefix - 1]
    return float(np.sqrt(weights @ products @ weights / held))


def drift(effort: float, generator: np.random.Generator) -> list[NullRow]:
    """Mean R² of walks with drift per interval over unit noise: what it takes to stand out."""
    from theory.gaussian_r_squared import drift_walk_mean

    rows = []
    for rate, stated in ((0.1, 0.459), (0.3, 0.578), (0.5, 0.730), (1.0, 0.930), (2.0, 0.985)):
        values = r_squared(walk(_N, rate, _samples(100_000, effort), generator), np.arange(_N))
        exact = float(drift_walk_mean(_N, rate))
        rows += _pair(
            f"walk with drift {rate:g}, n = {_N}", "mean R²", exact, mean_estimate(values), stated, 0.001
        )
    return rows


def threshold(effort: float, generator: np.random.Generator) -> list[NullRow]:
    """The signal from which a straight forecast beats persistence, and how straight a path looks by then."""
    from theory.forecast_error import slope_ratio, two_point_ratio
    from theory.gaussian_r_squared import walk_quantile

    samples = _samples(100_000, effort)
    null, forecast = f"walk with drift, n = {_N}", "S² from which {} beats persistence"
    line = forecast.format("a least-squares slope")
    exact = _root(lambda power: float(two_point_ratio(power, 1.0)) - 1)
    simulated = _break_even(lambda window: window[-1] - window[0], samples, generator)
    rows = _pair(null, forecast.format("the two-point line"), exact, simulated, 1.0)
    exact = _root(lambda power: float(slope_ratio(_N, power, 1.0)) - 1)
    simulated = _break_even(_fitted_step, samples, generator)
    rows += _pair(null, line, exact, simulated)
    exact = _root(lambda power: float(slope_ratio(10**6, power, 1.0)) - 1)
    rows += _pair("walk with drift, n → ∞", line, exact, None, 1.2)
    values = r_squared(walk(_N, 1 / np.sqrt(_N - 1), samples, generator), np.arange(_N))
    median = float(walk_quantile(_N, 0.5, 1.0))
    return rows + _pair(
        f"{null}, S = 1", "median of R²", median, quantile_estimate(values, 0.5), 0.64, _ROUGH
    )


def _root(function: Callable[[float], float]) -> float:
    from scipy.optimize import brentq

    return float(brentq(function, _POWERS[0], _POWERS[-1]))


def _fitted_step(window: Array) -> Array:
    """How far the least-squares line moves over as long as it was fitted."""
    return np.asarray(np.polyfit(np.arange(len(window)), window, 1)[0] * (len(window) - 1))


def _break_even(step: Callable[[Array], Array], samples: int, generator: np.random.Generator) -> Estimate:
    """S² at which a forecast one window ahead saves no squared error; the same noise is seen under every drift.

    Args:
        step: the window [checkpoint, coordinate] -> what the forecast adds to its last row.
        samples: coordinates.
        generator: source of randomness.
    """
    from scipy.interpolate import CubicSpline

    span = _N - 1
    time = np.arange(2 * span + 1)[:, None]

    def saved(width: int) -> Array:
        noise = walk(2 * span + 1, 0.0, width, generator)
        savings = []
        for power in _POWERS:
            values = np.concatenate([noise, -noise], axis=1) + np.sqrt(power / span) * time
            ahead = values[-1] - values[span]
            savings.append((ahead**2 - (ahead - step(values[:_N])) ** 2).mean())
        return np.array(savings)

    slices, draws = in_slices(saved, samples)
    return jackknife(
        slices, lambda mean: float(CubicSpline(_POWERS, mean).roots(extrapolate=False)[0]), draws
    )


NULLS: dict[str, Null] = {
    "walk_means": walk_means,
    "walk_distribution": walk_distribution,
    "moved_most": moved_most,
    "paper_filter": paper_filter,
    "low_rank": low_rank,
    "drift": drift,
    "threshold": threshold,
}
