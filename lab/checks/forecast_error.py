"""Forecasts of simulated paths, and SGD that jumps: prediction 9.

Paths are built from Gaussian increments. Coordinates differ in drift and in noise, so that laws about the pooled S²
are not tested on equal coordinates alone. With each draw of noise comes its mirror image, which takes out the chance
agreement of noise with drift.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lab.checks import reground
from lab.checks.estimate import Estimate
from lab.checks.pooled import (
    best_damping,
    damped_error,
    in_slices,
    jackknife,
    products,
    representatives,
    two_point_skill,
)
from lab.checks.simulation import Parameters, Simulation

Array = NDArray[np.float64]
Statistic = Callable[[Array, Array], float]
Run = Callable[[Parameters, int, np.random.Generator], Estimate]

_WINDOW = 4  # Intervals of the window, where the law does not say how many.
_KINDS = np.array([(0.4, 0.5), (0.4, 1.5), (1.6, 0.5), (1.6, 1.5)])  # Squared drift, noise variance; mean 1.
_HORIZONS = np.geomspace(0.05, 40.0, 32)


def _paths(times: Array, parameters: Parameters, draws: int, generator: np.random.Generator) -> Array:
    """Trajectories at `times`, of which the window is [0, 1]: [checkpoint, 2 x draws], mirror images last.

    Over the window, the noise has unit variance and the displacement a mean square of S², in the mean of coordinates.
    `draws` is a multiple of four: all kinds of coordinates are equally many.
    """
    drift_power, noise_power = np.tile(_KINDS, (draws // len(_KINDS), 1)).T
    size = np.sqrt(drift_power * parameters["signal_squared"])
    bend = parameters.get("curvature", 0.0)
    mean = np.outer(times + bend * (times**2 - times) / 2, size)
    increments = generator.standard_normal((len(times) - 1, draws)) * np.sqrt(noise_power)
    increments *= np.sqrt(np.diff(times))[:, None]
    noise = np.concatenate([np.zeros((1, draws)), np.cumsum(increments, axis=0)])
    return np.concatenate([mean + noise, mean - noise], axis=1)


def _pooled(statistic: Callable[[Array, Array, Parameters], float]) -> Run:
    """A statistic of trajectories and their steps, pooled over coordinates; the last row is what is forecast."""

    def run(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        intervals = int(parameters["n"]) - 1 if "n" in parameters else _WINDOW
        times = np.append(np.linspace(0.0, 1.0, intervals + 1), 1 + parameters.get("horizon_ratio", 1.0))
        slices, draws = in_slices(
            lambda width: products(_paths(times, parameters, width, generator)),
            samples,
            len(_KINDS),
        )
        return jackknife(slices, lambda mean: statistic(representatives(mean), times, parameters), draws)

    return run


def _line_ratio(joined: bool) -> Callable[[Array, Array, Parameters], float]:
    """Squared error of the least-squares line over that of persistence; joined to the last value, or not."""

    def ratio(values: Array, steps: Array, parameters: Parameters) -> float:
        slope, intercept = np.polyfit(steps[:-1], values[:-1], 1)
        start = values[-2] if joined else intercept + slope * steps[-2]
        forecast = start + slope * (steps[-1] - steps[-2])
        return float(((values[-1] - forecast) ** 2).sum() / ((values[-1] - values[-2]) ** 2).sum())

    return ratio


def _horizon(greatest: bool) -> Run:
    """The horizon at which the squared error that the two-point forecast saves is greatest, or has vanished.

    Every path is watched at many horizons, and a spline joins what is saved there. Averaging over each future and the
    one with its noise turned round keeps the curve smooth: the saving, a² - (a - u)² = 2 a u - u² with a what came and
    u the forecast step, is linear in what came, so this puts the mean future in its place.
    """

    def run(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        from scipy.interpolate import CubicSpline

        times = np.concatenate([[0.0, 1.0], 1 + _HORIZONS])

        def saved(width: int) -> Array:
            values = _paths(times, parameters, width, generator)
            ahead, seen = values[2:] - values[1], values[1] - values[0]
            # Mirror images lie half the array apart, with the same drift: their mean future is free of noise.
            ahead = np.tile((ahead[:, :width] + ahead[:, width:]) / 2, 2)
            step = _HORIZONS[:, None] * seen
            return np.asarray((2 * ahead * step - step**2).mean(axis=1))

        def horizon(savings: Array) -> float:
            curve = CubicSpline(_HORIZONS, savings)
            roots = (curve.derivative() if greatest else curve).roots(extrapolate=False)
            return float(roots[0])

        slices, draws = in_slices(saved, samples, len(_KINDS))
        return jackknife(slices, horizon, draws)

    return run


SIMULATIONS: dict[str, Simulation] = {
    "two_point_ratio": Simulation(
        _pooled(lambda values, steps, _: 1 - two_point_skill(values, steps)), 500_000
    ),
    "slope_ratio": Simulation(_pooled(_line_ratio(joined=True)), 300_000),
    "line_ratio": Simulation(_pooled(_line_ratio(joined=False)), 300_000),
    "damped_skill": Simulation(
        _pooled(
            lambda values, steps, parameters: (
                1 - damped_error(values, steps, parameters["damping"]) / damped_error(values, steps, 0.0)
            )
        ),
        500_000,
    ),
    "optimal_damping": Simulation(_pooled(lambda values, steps, _: best_damping(values, steps)[0]), 500_000),
    "best_skill": Simulation(_pooled(lambda values, steps, _: best_damping(values, steps)[1]), 500_000),
    "curved_ratio": Simulation(_pooled(lambda values, steps, _: 1 - two_point_skill(values, steps)), 500_000),
    "break_even_horizon": Simulation(_horizon(greatest=False), 100_000),
    "best_horizon": Simulation(_horizon(greatest=True), 100_000),
    "reground_block_mean": Simulation(reground.block_mean, 100_000),
    "reground_block_variance": Simulation(reground.block_variance, 400_000),
    "reground_contraction": Simulation(reground.contraction, 1),
    "scaled_contraction": Simulation(reground.scaled_contraction, 1),
    "reground_curved_variance": Simulation(reground.block_variance, 400_000),
    "stability_limit": Simulation(reground.stability_limit, 1),
}
