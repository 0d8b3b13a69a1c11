"""Noisy descent in a bowl by SGD, forecast and measured as a run would be: prediction 12."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lab.checks.estimate import Estimate, mean_estimate
from lab.checks.pooled import (
    best_damping,
    in_slices,
    jackknife,
    products,
    representatives,
    two_point_skill,
)
from lab.checks.quantiles import quantile_estimate
from lab.checks.simulation import Parameters, Simulation
from lab.linearity import r_squared
from lab.linearity.walk import walk_r_squared

Array = NDArray[np.float64]
Statistic = Callable[[Array, Array], float]
Run = Callable[[Parameters, int, np.random.Generator], Estimate]

_LARGEST_DENOMINATOR = 50
_UPDATES = 4  # Least number of updates in a window.

_LEAST_RUNS = 400
_WALKS = 10_000  # Walks at a time.


def descent(
    updates: int, window: int, parameters: Parameters, draws: int, generator: np.random.Generator
) -> Array:
    """Distances to the optimum after 0, 1, ... `updates` steps of noisy descent, [update + 1, 2 x draws].

    A step multiplies the distance by rho = exp(-curvature x horizon / window) and adds unit noise. The start lies S
    times as far as makes the mean displacement over the window equal to the standard deviation of the displacement;
    in a flat loss a steady drift takes the place of the start. Mirror images in the noise come last.
    """
    a, signal = parameters["curvature_horizon"], parameters["signal"]
    rho = np.exp(-a / window)
    accumulated = np.sqrt((rho ** (2 * np.arange(window))).sum())
    drift = signal * accumulated / window if a == 0 else 0.0
    start = 0.0 if a == 0 else signal * accumulated / (rho**window - 1)
    mean, noise = start, np.zeros(draws)
    rows = [np.full(2 * draws, mean)]
    for _ in range(updates):
        mean = rho * mean + drift
        noise = rho * noise + generator.standard_normal(draws)
        rows.append(np.concatenate([mean + noise, mean - noise]))
    return np.stack(rows)


def _r_squared(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Mean R² of the positions at n checkpoints, an update apart."""
    n = int(parameters["n"])
    values = r_squared(descent(n - 1, n - 1, parameters, samples, generator), np.arange(n))
    return mean_estimate(values.reshape(2, -1).mean(axis=0))


def _pooled(statistic: Statistic) -> Run:
    """A statistic of (positions, steps), pooled over coordinates; the last row is what is forecast."""

    def run(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        ratio = Fraction(parameters["horizon_ratio"]).limit_denominator(_LARGEST_DENOMINATOR)
        window = ratio.denominator * -(-_UPDATES // ratio.denominator)
        updates = window + int(ratio * window)
        steps = np.append(np.arange(window + 1), updates)
        slices, draws = in_slices(
            lambda width: products(descent(updates, window, parameters, width, generator)[steps]), samples
        )
        return jackknife(slices, lambda mean: statistic(representatives(mean), steps), draws)

    return run


def _null_quantile(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Quantile over runs of their mean R², each run so many driftless walks."""
    walks = int(parameters["effective_coordinates"])
    runs = max(samples // walks, _LEAST_RUNS)
    group = -(-_WALKS // walks)  # Runs walked at a time.
    values = [
        walk_r_squared(np.arange(parameters["n"]), group * walks, generator) for _ in range(0, runs, group)
    ]
    means = np.concatenate([part.reshape(group, walks).mean(axis=1) for part in values])[:runs]
    return quantile_estimate(means, parameters["level"])


SIMULATIONS: dict[str, Simulation] = {
    "r_squared": Simulation(_r_squared, 100_000),
    "null_mean_quantile": Simulation(_null_quantile, 1_000_000),
    "two_point_skill": Simulation(_pooled(two_point_skill), 300_000),
    "best_damping": Simulation(_pooled(lambda values, steps: best_damping(values, steps)[0]), 300_000),
    "damped_skill": Simulation(_pooled(lambda values, steps: best_damping(values, steps)[1]), 300_000),
}
