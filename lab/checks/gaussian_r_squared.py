"""R² of paths built from Gaussian increments: prediction 5."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from lab.checks.estimate import Estimate, mean_estimate
from lab.checks.simulation import Parameters, Simulation
from lab.linearity.r_squared import r_squared

Array = NDArray[np.float64]
Paths = Callable[[Parameters, int, np.random.Generator], Array]
"""Parameters, number of paths -> paths, [checkpoint, path]."""

_CHUNK = 1 << 20  # numbers drawn at a time, which bounds memory
_DENSE = 100  # intervals that stand for infinitely many, once the error of order 1/intervals² is taken out


def _chunks(samples: int, checkpoints: int) -> Iterator[int]:
    """Numbers of paths that add up to `samples`."""
    most = max(_CHUNK // checkpoints, 1)
    for start in range(0, samples, most):
        yield min(most, samples - start)


def straightness(paths: Paths, parameters: Parameters, samples: int, generator: np.random.Generator) -> Array:
    """R² of so many paths at equally spaced checkpoints, [path]."""
    count = int(parameters.get("n", 3))
    return np.concatenate(
        [
            r_squared(paths(parameters, width, generator), np.arange(count))
            for width in _chunks(samples, count)
        ]
    )


def _mean_of(paths: Paths) -> Callable[[Parameters, int, np.random.Generator], Estimate]:
    def run(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        return mean_estimate(straightness(paths, parameters, samples, generator))

    return run


def _walk(intervals: int, count: int, generator: np.random.Generator) -> Array:
    """Driftless walks of unit increments from 0, [checkpoint, path]."""
    path = np.zeros((intervals + 1, count))
    np.cumsum(generator.standard_normal((intervals, count)), axis=0, out=path[1:])
    return path


def _driftless(parameters: Parameters, count: int, generator: np.random.Generator) -> Array:
    return _walk(int(parameters["n"]) - 1, count, generator)


def _drifting(parameters: Parameters, count: int, generator: np.random.Generator) -> Array:
    intervals = int(parameters["n"]) - 1
    return _walk(intervals, count, generator) + parameters["drift"] * np.arange(intervals + 1)[:, None]


def _signalling(parameters: Parameters, count: int, generator: np.random.Generator) -> Array:
    """A drift over the window of S standard deviations of the noise over it, perhaps bent; S infinite is no noise."""
    intervals = int(parameters["n"]) - 1
    signal = float(parameters["signal"])
    time = np.linspace(0.0, 1.0, intervals + 1)[:, None]
    # (slope at the end - slope at the start)/mean slope is the curvature
    path = time + float(parameters.get("curvature", 0.0)) / 2 * (time**2 - time)
    if np.isinf(signal):
        return np.repeat(path, count, axis=1)
    return signal * path + _walk(intervals, count, generator) / np.sqrt(intervals)


def _gaussian_drifts(parameters: Parameters, count: int, generator: np.random.Generator) -> Array:
    signal = np.sqrt(parameters["signal_squared"]) * generator.standard_normal(count)
    return _with_signals(int(parameters["n"]) - 1, signal, generator)


def _sparse_drifts(parameters: Parameters, count: int, generator: np.random.Generator) -> Array:
    carries = generator.random(count) < parameters["share"]
    signal = np.sqrt(parameters["signal_squared"] / parameters["share"]) * carries
    return _with_signals(int(parameters["n"]) - 1, signal, generator)


def _with_signals(intervals: int, signal: Array, generator: np.random.Generator) -> Array:
    """Straight drifts, one S a path, under walks of unit variance over the window."""
    walks = _walk(intervals, len(signal), generator) / np.sqrt(intervals)
    return walks + np.linspace(0.0, 1.0, intervals + 1)[:, None] * signal


def _contrasts(parameters: Parameters, count: int, generator: np.random.Generator) -> Array:
    """Three checkpoints as sums of a line and a bow of independent Gaussian sizes."""
    line = np.array([-1.0, 0.0, 1.0])[:, None] / np.sqrt(2)
    bow = np.array([1.0, -2.0, 1.0])[:, None] / np.sqrt(6)
    sizes = np.sqrt([parameters["linear_variance"], parameters["quadratic_variance"]])
    tilt, bend = sizes[:, None] * generator.standard_normal((2, count))
    return line * tilt + bow * bend


def _variance(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    values = straightness(_driftless, parameters, samples, generator)
    return mean_estimate((values - values.mean()) ** 2 * (len(values) / (len(values) - 1)))


def _limit(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Each walk at many checkpoints and at every second of them, extrapolated to infinitely many."""
    steps = np.arange(_DENSE + 1)
    values = []
    for count in _chunks(samples, _DENSE + 1):
        path = _walk(_DENSE, count, generator)
        values.append((4 * r_squared(path, steps) - r_squared(path[::2], steps[::2])) / 3)
    return mean_estimate(np.concatenate(values))


def _cumulative(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    values = straightness(_signalling, parameters, samples, generator)
    return mean_estimate((values <= parameters["r"]).astype(np.float64))


SIMULATIONS: dict[str, Simulation] = {
    "three_checkpoints_mean": Simulation(_mean_of(_contrasts), 200_000),
    "random_walk_mean": Simulation(_mean_of(_driftless), 200_000),
    "random_walk_variance": Simulation(_variance, 300_000),
    "random_walk_limit": Simulation(_limit, 200_000),
    "drift_walk_mean": Simulation(_mean_of(_drifting), 50_000),
    "curved_walk_mean": Simulation(_mean_of(_signalling), 50_000),
    "walk_cumulative": Simulation(_cumulative, 200_000),
    "gaussian_drifts_mean": Simulation(_mean_of(_gaussian_drifts), 200_000),
    "sparse_drifts_mean": Simulation(_mean_of(_sparse_drifts), 200_000),
}
