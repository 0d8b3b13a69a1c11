"""Principal components of simulated walks of many coordinates: prediction 11.

Several runs are walked, each of thousands of coordinates, and each is decomposed on its own, as a run would be. The
laws hold for infinitely many coordinates; those that are walked fall short of that by less than the laws' tolerance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lab.checks.estimate import Estimate, mean_estimate
from lab.checks.simulation import Parameters, Simulation
from lab.linearity import r_squared

Array = NDArray[np.float64]
Run = Callable[[Parameters, int, np.random.Generator], Estimate]

COORDINATES = 4_000
_LEAST_RUNS = 30
_MANY_CHECKPOINTS = 100  # In place of infinitely many, for the limits: the shares are off by 1/n², about.


def walk(n: int, drift: float, coordinates: int, generator: np.random.Generator) -> Array:
    """A run, [checkpoint, coordinate]: unit white noise and a drift of either sign an interval, from 0."""
    increments = generator.standard_normal((n - 1, coordinates))
    if drift:
        increments += drift * (2 * generator.integers(0, 2, coordinates) - 1)
    return np.concatenate([np.zeros((1, coordinates)), np.cumsum(increments, axis=0)])


def components(values: Array, *, centred: bool) -> tuple[Array, Array]:
    """Shares of energy and coefficients over checkpoints of the principal components, largest first.

    Args:
        values: [checkpoint, coordinate].
        centred: without the mean over checkpoints (PCA), else without the first checkpoint.

    Returns:
        (shares [component], coefficients [checkpoint, component] of unit length).
    """
    displacements = values - (values.mean(axis=0) if centred else values[0])
    energies, coefficients = np.linalg.eigh(displacements @ displacements.T)
    return energies[::-1] / energies.sum(), coefficients[:, ::-1]


def _share(*, centred: bool, many: bool = False) -> Run:
    def one(parameters: Parameters, generator: np.random.Generator) -> float:
        n = _MANY_CHECKPOINTS if many else int(parameters["n"])
        values = walk(n, parameters.get("drift", 0.0), COORDINATES, generator)
        return float(components(values, centred=centred)[0][int(parameters.get("component", 1)) - 1])

    return _over_runs(one)


def _straightness(*, centred: bool, many: bool = False) -> Run:
    def one(parameters: Parameters, generator: np.random.Generator) -> float:
        n = _MANY_CHECKPOINTS if many else int(parameters["n"])
        values = walk(n, 0.0, COORDINATES, generator)
        leading = components(values, centred=centred)[1][:, :1]
        return float(r_squared(leading, np.arange(n))[0])

    return _over_runs(one)


def _over_runs(one: Callable[[Parameters, np.random.Generator], float]) -> Run:
    """Mean over runs; `samples` counts coordinates, those of all runs."""

    def run(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        runs = max(samples // COORDINATES, _LEAST_RUNS)
        return mean_estimate(np.array([one(parameters, generator) for _ in range(runs)]))

    return run


SIMULATIONS: dict[str, Simulation] = {
    "centred_share": Simulation(_share(centred=True), 500_000),
    "centred_share_limit": Simulation(_share(centred=True, many=True), 250_000),
    "uncentred_share": Simulation(_share(centred=False), 500_000),
    "uncentred_share_limit": Simulation(_share(centred=False, many=True), 250_000),
    "centred_drift_share": Simulation(_share(centred=True), 500_000),
    "uncentred_drift_share": Simulation(_share(centred=False), 500_000),
    "centred_coefficient_r_squared": Simulation(_straightness(centred=True), 250_000),
    "centred_coefficient_limit": Simulation(_straightness(centred=True, many=True), 250_000),
    "uncentred_coefficient_r_squared": Simulation(_straightness(centred=False), 250_000),
    "uncentred_coefficient_limit": Simulation(_straightness(centred=False, many=True), 250_000),
}
