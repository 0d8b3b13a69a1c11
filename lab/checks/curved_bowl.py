"""Gradient descent on a noisy quadratic, by the lab's own optimiser: prediction 6."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lab.checks.descent import bowl
from lab.checks.estimate import Estimate, mean_estimate
from lab.checks.simulation import Parameters, Simulation
from lab.linearity.r_squared import r_squared

Array = NDArray[np.float64]

_SPACING = 2  # updates between checkpoints where the law does not say how many
_FORGOTTEN = 1e-8  # share of the stationary variance that may be missing
_DENSE = 1000  # checkpoints that stand for infinitely many, once extrapolated
_CHUNK = 50_000  # replicates at a time


def _in_chunks(samples: int, run: Callable[[int], Array]) -> Array:
    """`run(replicates)` over chunks that add up to `samples`, joined in the last axis."""
    return np.concatenate([run(min(_CHUNK, samples - start)) for start in range(0, samples, _CHUNK)], axis=-1)


def _settling(rho: float) -> int:
    """Updates after which a run from a point is as good as stationary."""
    return 1 if rho == 0 else int(np.ceil(np.log(_FORGOTTEN) / np.log(rho**2)))


def _mean(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    offset, marks = float(parameters["offset"]), np.array([int(parameters["step"])])

    def run(count: int) -> Array:
        start = np.full(count, offset)
        return bowl(parameters["rho"], 0.2 * abs(offset), start, marks, generator)

    return mean_estimate(_in_chunks(samples, run)[0])


def _covariance(earlier: Array, later: Array) -> Estimate:
    products = (earlier - earlier.mean()) * (later - later.mean())
    return mean_estimate(products * (len(products) / (len(products) - 1)))


def _point_covariance(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    first, second = int(parameters["first"]), int(parameters["second"])
    marks, which = np.unique([first, second], return_inverse=True)

    def run(count: int) -> Array:
        return bowl(parameters["rho"], parameters["noise"], np.ones(count), marks, generator)

    path = _in_chunks(samples, run)
    return _covariance(path[which[0]], path[which[1]])


def _stationary_covariance(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    rho, gap = float(parameters["rho"]), int(parameters["gap"])
    start = _settling(rho)
    marks = np.unique([start, start + gap])

    def run(count: int) -> Array:
        return bowl(rho, parameters["noise"], np.zeros(count), marks, generator)

    path = _in_chunks(samples, run)
    return _covariance(path[0], path[-1])


def _factor(curvature_horizon: float, updates: int) -> float:
    """rho of so many updates; the horizon may be infinite."""
    return float(np.exp(-curvature_horizon / updates))


def _noiseless(checkpoints: int, curvature_horizon: float, generator: np.random.Generator) -> float:
    steps = np.arange(checkpoints)
    path = bowl(_factor(curvature_horizon, checkpoints - 1), 0.0, np.ones(1), steps, generator)
    return float(r_squared(path, steps)[0])


def _noiseless_few(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    value = _noiseless(int(parameters["n"]), float(parameters["curvature_horizon"]), generator)
    return Estimate(value, 0.0, 1)


def _noiseless_dense(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Four runs of ever denser checkpoints; errors of order 1/n, 1/n² and 1/n³ cancel."""
    values = [
        _noiseless(_DENSE // thinner + 1, float(parameters["curvature_horizon"]), generator)
        for thinner in (8, 4, 2, 1)
    ]
    for power in (1, 2, 3):
        values = [
            (2**power * fine - coarse) / (2**power - 1)
            for coarse, fine in zip(values, values[1:], strict=False)
        ]
    return Estimate(values[0], 0.0, 1)


def _straightness(
    parameters: Parameters, samples: int, generator: np.random.Generator, *, stationary: bool
) -> Estimate:
    """Mean R² of noisy descent from a point at S standard deviations, or of a run that has long arrived."""
    intervals = int(parameters["n"]) - 1
    rho = _factor(float(parameters["curvature_horizon"]), intervals * _SPACING)
    marks = _SPACING * np.arange(intervals + 1)
    signal = 0.0 if stationary else float(parameters["signal"])
    noise, offset = 1.0, 0.0
    if stationary:
        marks = marks + _settling(rho)
    elif np.isinf(signal):
        noise, offset = 0.0, 1.0
    elif signal > 0:
        # S = mean displacement over the window / standard deviation of the noise it has gathered
        gathered = np.sqrt((rho ** (2 * np.arange(marks[-1]))).sum())
        offset = signal * gathered / (1 - rho ** marks[-1])

    def run(count: int) -> Array:
        path = bowl(rho, noise, np.full(count, offset), marks, generator)
        return r_squared(path, marks)

    return mean_estimate(_in_chunks(samples, run))


def _floor(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    return _straightness(parameters, samples, generator, stationary=True)


def _noisy(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    return _straightness(parameters, samples, generator, stationary=False)


SIMULATIONS: dict[str, Simulation] = {
    "path_mean": Simulation(_mean, 100_000),
    "point_covariance": Simulation(_point_covariance, 400_000),
    "stationary_covariance": Simulation(_stationary_covariance, 300_000),
    "noiseless_r_squared": Simulation(_noiseless_few, 1),
    "noiseless_limit": Simulation(_noiseless_dense, 1),
    "floor_mean": Simulation(_floor, 100_000),
    "bowl_mean": Simulation(_noisy, 100_000),
}
