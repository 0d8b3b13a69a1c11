"""Lag cosines of simulated motion, update by update: prediction 10.

A coordinate is a sequence of windows; the cosine of displacements `lag` windows apart is pooled over coordinates
and over all pairs of windows that far apart. Half of the coordinates are mirror images in the noise of the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lab.checks.estimate import Estimate
from lab.checks.momentum import momentum_positions, warm_up
from lab.checks.pooled import SLICES, in_slices, jackknife, products
from lab.checks.simulation import Parameters, Simulation
from lab.linearity.increments import lag_cosine_of_products
from lab.linearity.products import unflipped

Array = NDArray[np.float64]
Run = Callable[[Parameters, int, np.random.Generator], Estimate]
Motion = Callable[[Parameters, int, int, np.random.Generator], Array]
Statistic = Callable[[Array], float]

_WINDOWS = 6  # Windows of a path, next to those that the lag spans.
_MULTIPLE = 4  # Paths of a slice come in fours: two sizes of drift, each with its mirror image.
_GRID = 2  # Points of a motion in continuous time in a window.


def lag_cosine(inner_products: Array, lag: int) -> float:
    """Cosine of displacements `lag` windows apart, pooled over where they start.

    Args:
        inner_products: of the displacements over windows, [window, window].
        lag: 1 or more.
    """
    if lag == 1:
        return float(lag_cosine_of_products(inner_products, unflipped(inner_products), 1)[0])
    energy = np.diag(inner_products)
    return float(np.trace(inner_products, lag) / np.sqrt(energy[:-lag].sum() * energy[lag:].sum()))


def _cosine(motion: Motion) -> Run:
    """The lag cosine of a motion; `samples` counts the updates that are drawn."""

    def run(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        lag = int(parameters.get("lag", 1))
        windows = _WINDOWS + lag
        length = windows * int(parameters.get("window", _GRID))
        slices, paths = in_slices(
            lambda width: products(_from_zero(motion(parameters, windows, width, generator))),
            max(samples // length, 2 * SLICES),
            multiple=_MULTIPLE,
        )
        return jackknife(slices, lambda mean: lag_cosine(mean, lag), paths)

    return run


def _from_zero(displacements: Array) -> Array:
    """Positions at the ends of windows, [window + 1, coordinate], of displacements [window, coordinate]."""
    return np.concatenate([np.zeros((1, displacements.shape[1])), np.cumsum(displacements, axis=0)])


def _white(windows: int, window: int, paths: int, generator: np.random.Generator) -> Array:
    """Unit white noise summed update by update over windows, [window, path]; the second half mirrors the first."""
    noise = generator.standard_normal((windows, window, paths // 2)).sum(axis=1)
    return np.concatenate([noise, -noise], axis=1)


def _drifting(parameters: Parameters, windows: int, paths: int, generator: np.random.Generator) -> Array:
    """A constant drift in white noise; signs and sizes of the drift differ between coordinates."""
    window = int(parameters["window"])
    size = parameters["signal_to_noise"] * np.sqrt(np.tile([0.5, 1.5], paths // _MULTIPLE))
    size[1::4] *= -1
    return np.tile(size * window, 2) + _white(windows, window, paths, generator)


def _fractional(parameters: Parameters, windows: int, paths: int, generator: np.random.Generator) -> Array:
    """Fractional Brownian motion at a grid of times, drawn from the covariance of its positions."""
    times = np.arange(1, windows * _GRID + 1, dtype=np.float64)
    power = 2 * parameters["hurst"]
    apart = np.abs(np.subtract.outer(times, times))
    root = np.linalg.cholesky((times[:, None] ** power + times**power - apart**power) / 2)
    positions = root @ generator.standard_normal((len(times), paths))
    return np.diff(_at_window_ends(positions), axis=0)


def _at_window_ends(positions: Array) -> Array:
    return np.concatenate([np.zeros((1, positions.shape[1])), positions[_GRID - 1 :: _GRID]])


def _restoring(parameters: Parameters, windows: int, paths: int, generator: np.random.Generator) -> Array:
    """Noisy steps in a bowl; the start is drawn from the state in which the spread neither grows nor shrinks."""
    rho = np.exp(-parameters["curvature_window"] / _GRID)
    position = generator.standard_normal(paths) / np.sqrt(1 - rho**2)
    ends = [position]
    for _ in range(windows):
        for _ in range(_GRID):
            position = rho * position + generator.standard_normal(paths)
        ends.append(position)
    return np.diff(np.stack(ends), axis=0)


def _turning(parameters: Parameters, windows: int, paths: int, generator: np.random.Generator) -> Array:
    """A drift in a plane that turns left or right at random by the angle whose cosine is `memory`, each update."""
    angle = np.arccos(parameters["memory"])
    turns = generator.integers(0, 2, (windows * int(parameters["window"]), paths // 2)) * 2 - 1
    return _steered(parameters, np.cumsum(angle * turns, axis=0), windows, paths, generator)


def _rotating(parameters: Parameters, windows: int, paths: int, generator: np.random.Generator) -> Array:
    """A drift in a plane that rotates steadily."""
    headings = parameters["angle"] * np.arange(windows * int(parameters["window"]))[:, None]
    return _steered(parameters, headings, windows, paths, generator)


def _steered(
    parameters: Parameters, headings: Array, windows: int, paths: int, generator: np.random.Generator
) -> Array:
    """White noise and a drift of steady size with these headings [update, plane or 1], each plane two coordinates.

    The size is such that its mean square over the two coordinates is the squared signal-to-noise ratio.
    """
    window = int(parameters["window"])
    first = 2 * np.pi * generator.random(paths // 2)
    size = np.sqrt(2) * parameters["signal_to_noise"]
    drift = size * np.concatenate([np.cos(headings + first), np.sin(headings + first)], axis=1)
    noise = generator.standard_normal((windows, window, paths // 2 * 2)).sum(axis=1)
    return np.asarray(drift.reshape(windows, window, -1).sum(axis=1) + noise)


def _momentum(checkpoints: Callable[[Parameters], int], statistic: Callable[[Parameters], Statistic]) -> Run:
    """A statistic of the inner products of displacements under momentum; `samples` counts updates."""

    def run(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        count, window = checkpoints(parameters), int(parameters["window"])
        updates = warm_up(parameters["beta"]) + count * window
        per_slice = 2 * -(-samples // (2 * SLICES * updates))
        positions = momentum_positions(
            parameters["beta"],
            window,
            count,
            parameters.get("signal_to_noise", 0.0),
            per_slice * SLICES,
            generator,
        )
        # A coordinate and its mirror image lie half the array apart, and belong to the same slice.
        slices = positions.reshape(count, 2, SLICES, per_slice // 2).swapaxes(1, 2).reshape(count, SLICES, -1)
        return jackknife(
            np.stack([products(slices[:, index]) for index in range(SLICES)]),
            statistic(parameters),
            per_slice * SLICES,
        )

    return run


def _odd_with_even(inner_products: Array) -> float:
    """Cosine of the sum of odd displacements with the sum of even ones."""
    odd = np.arange(len(inner_products)) % 2 == 1
    cross = inner_products[odd][:, ~odd].sum()
    return float(cross / np.sqrt(inner_products[odd][:, odd].sum() * inner_products[~odd][:, ~odd].sum()))


SIMULATIONS: dict[str, Simulation] = {
    "drift_cosine": Simulation(_cosine(_drifting), 10_000_000),
    "fractional_cosine": Simulation(_cosine(_fractional), 5_000_000),
    "restoring_cosine": Simulation(_cosine(_restoring), 5_000_000),
    "turning_cosine": Simulation(_cosine(_turning), 5_000_000),
    "rotating_cosine": Simulation(_cosine(_rotating), 6_000_000),
    "momentum_cosine": Simulation(
        _momentum(
            lambda parameters: 1 + _WINDOWS + int(parameters["lag"]),
            lambda parameters: lambda mean: lag_cosine(mean, int(parameters["lag"])),
        ),
        12_000_000,
    ),
    "momentum_split_half": Simulation(
        _momentum(lambda parameters: int(parameters["n"]), lambda _: _odd_with_even), 12_000_000
    ),
}
