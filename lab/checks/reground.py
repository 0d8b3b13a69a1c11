"""SGD by the lab's own optimiser on a bowl with gradient noise, in blocks of real steps and a jump along them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lab.checks.estimate import Estimate, mean_estimate
from lab.checks.pooled import SLICES, jackknife
from lab.checks.simulation import Parameters
from lab.optimizers import ScheduleSettings, SGDSettings

Array = NDArray[np.float64]

_CURVATURE = 2.0
_FLAT_RATE = 0.1  # Learning rate where the loss is flat.
_BLOCKS = 3  # Blocks in a row for a judgement on convergence.


def sgd(learning_rate: float, heavy_ball: float = 0.0) -> SGDSettings:
    """SGD at a constant rate, plain unless there is a heavy ball."""
    return SGDSettings(
        name="sgd",
        learning_rate=learning_rate,
        weight_decay=0.0,
        clip_norm=None,
        schedule=ScheduleSettings(name="constant", warmup_updates=0, final_share=1.0),
        heavy_ball=heavy_ball,
    )


def block_mean(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Mean displacement of a block on a flat loss with drift and noise."""
    start = np.zeros(samples)
    drift = parameters["drift"]
    return mean_estimate(_block(start, parameters, drift=drift, noise=3 * abs(drift), generator=generator))


def block_variance(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Variance over replicates of the position after a block: in a bowl if there is `rho`, else with drift."""
    per_slice = -(-samples // SLICES)
    start = np.full(per_slice * SLICES, 2.0)
    noise = parameters["noise"]
    drift = 0.0 if "rho" in parameters else 0.3 * noise
    ends = _block(start, parameters, drift=drift, noise=noise, generator=generator).reshape(SLICES, per_slice)
    moments = np.stack([ends.mean(axis=1), (ends**2).mean(axis=1)], axis=1)
    return jackknife(moments, lambda mean: float(mean[1] - mean[0] ** 2), len(start))


def contraction(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Share of the distance to the optimum that a block without noise leaves."""
    start = np.array([1.0, -5.0])
    return _same(_block(start, parameters) / start)


def scaled_contraction(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Share of the distance that m steps at learning rate x (m+n)/m leave."""
    m, n = int(parameters["m"]), parameters["n"]
    curvature, rate = _bowl(parameters)
    start = np.array([1.0, -5.0])
    return _same(_descend(start, m, rate * (m + n) / m, curvature=curvature) / start)


def stability_limit(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """The smallest jump, in steps and not necessarily whole, after which the distance no longer shrinks."""
    low, high = 0.0, 1e6
    while high - low > 1e-8 * high:
        jumps = np.linspace(low, high, 1001)
        position = np.ones(len(jumps))
        for _ in range(_BLOCKS):
            position = _block(position, {**parameters, "n": jumps})
        first = int(np.argmax(np.abs(position) > 1))
        low, high = jumps[first - 1], jumps[first]
    return Estimate((low + high) / 2, 0.0, 1)


def _block(
    start: Array,
    parameters: Parameters,
    *,
    drift: float = 0.0,
    noise: float = 0.0,
    generator: np.random.Generator | None = None,
) -> Array:
    """Positions [replicate] after m real steps and a jump of n steps along their displacement.

    `parameters` may hold as many jumps n as there are replicates.
    """
    curvature, rate = _bowl(parameters)
    end = _descend(
        start, int(parameters["m"]), rate, curvature=curvature, drift=drift, noise=noise, generator=generator
    )
    jumped: Array = end + parameters["n"] / parameters["m"] * (end - start)
    return jumped


def _bowl(parameters: Parameters) -> tuple[float, float]:
    """(curvature, learning rate) that leave `rho` of the distance a step; flat without one."""
    rho = parameters.get("rho", 1.0)
    return (0.0, _FLAT_RATE) if rho == 1 else (_CURVATURE, (1 - rho) / _CURVATURE)


def _same(shares: Array) -> Estimate:
    """What is left from one start, which has to be the same from any."""
    if not np.allclose(shares, shares[0], rtol=1e-9, atol=1e-12):
        raise ArithmeticError(f"a linear map left different shares of different distances: {shares}")
    return Estimate(float(shares[0]), 0.0, 1)


def _descend(
    start: Array,
    updates: int,
    learning_rate: float,
    *,
    curvature: float = 0.0,
    drift: float = 0.0,
    noise: float = 0.0,
    generator: np.random.Generator | None = None,
) -> Array:
    """Positions [replicate] after `updates` of SGD from `start`.

    A step moves by `drift` and by noise of standard deviation `noise`, next to what the bowl does.
    """
    import torch

    position = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = sgd(learning_rate).build([position])
    for _ in range(updates):
        gradient = curvature * position.detach() - drift / learning_rate
        if generator is not None:
            gradient += torch.from_numpy(generator.standard_normal(len(start))) * (noise / learning_rate)
        position.grad = gradient
        optimizer.step()
    return position.detach().numpy()
