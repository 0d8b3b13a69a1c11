"""Gradient descent on coordinates of our own, by the lab's optimiser: prediction 6 and the filters of prediction 8."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from lab.optimizers import OptimizerSettings, ScheduleSettings, SGDSettings

Array = NDArray[np.float64]

CONSTANT = ScheduleSettings("constant", warmup_updates=0, final_share=1.0)


def sgd(learning_rate: float, heavy_ball: float = 0.0) -> SGDSettings:
    """Plain SGD or SGD with momentum: no decay, no clipping, constant rate."""
    return SGDSettings("sgd", learning_rate, 0.0, None, CONSTANT, heavy_ball)


def descend(
    settings: OptimizerSettings, position: Array, gradient: Callable[[int, Array, Array], object]
) -> Iterator[tuple[Array, dict[str, Array]]]:
    """Positions and moments after each update, for ever.

    Args:
        settings: of the optimiser.
        position: where the coordinates start, float64 [coordinate]; copied.
        gradient: called with (number of the update from 0, position, out): writes the gradient into `out`.

    Yields:
        The position and the optimiser's moments, views that the next update overwrites.
    """
    import torch

    parameter = torch.nn.Parameter(torch.from_numpy(np.array(position, dtype=np.float64)))
    slope = torch.zeros_like(parameter)
    parameter.grad = slope
    optimizer = settings.build([parameter])
    here, out = parameter.detach().numpy(), slope.numpy()
    update = 0
    while True:
        gradient(update, here, out)
        optimizer.step()
        yield here, {name: m.numpy() for name, m in settings.moments(optimizer.state[parameter]).items()}
        update += 1


def bowl(
    rho: float,
    noise: float,
    position: Array,
    marks: NDArray[np.int64],
    generator: np.random.Generator,
    learning_rate: float = 0.1,
) -> Array:
    """Noisy descent in a bowl whose distance shrinks by `rho` an update.

    Args:
        rho: 1 - learning rate x curvature.
        noise: standard deviation that one update adds to the position.
        position: distances at the start, float64 [replicate].
        marks: updates after which a checkpoint is taken, increasing whole numbers from 0.
        generator: source of the Gaussian gradient noise.
        learning_rate: the split of rho and noise into rate, curvature and gradient noise; without influence.

    Returns:
        Distances, [checkpoint, replicate].
    """
    curvature, spread = (1 - rho) / learning_rate, noise / learning_rate

    def gradient(update: int, here: Array, out: Array) -> None:
        if spread:
            generator.standard_normal(out=out)
            out *= spread
        else:
            out[:] = 0.0
        out += curvature * here

    taken = [np.array(position)] if marks[0] == 0 else []
    last = int(marks[-1])
    if last:
        wanted = set(int(mark) for mark in marks)
        for update, (here, _) in enumerate(descend(sgd(learning_rate), position, gradient), start=1):
            if update in wanted:
                taken.append(here.copy())
            if update == last:
                break
    return np.stack(taken)
