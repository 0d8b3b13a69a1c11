"""White gradients through the momentum of the lab's own SGD, recorded at checkpoints of its steady state."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lab.checks.reground import sgd

Array = NDArray[np.float64]

_LEARNING_RATE = 0.01
_FORGOTTEN = 1e-9  # Share of the first gradient that is left in the momentum when recording starts.


def warm_up(beta: float) -> int:
    """Updates after which the momentum has forgotten that it started from nothing."""
    return math.ceil(math.log(_FORGOTTEN) / math.log(beta)) if beta > 0 else 0


def momentum_positions(
    beta: float,
    window: int,
    checkpoints: int,
    signal_to_noise: float,
    coordinates: int,
    generator: np.random.Generator,
) -> Array:
    """Positions every `window` updates under heavy-ball momentum, [checkpoint, coordinate].

    Gradients of an update have standard deviation 1 and mean `signal_to_noise`; half of the coordinates are mirror
    images of the other half in the noise, not in the mean.

    Args:
        beta: decay of the momentum.
        window: updates between checkpoints.
        checkpoints: how many.
        signal_to_noise: mean of the gradient over its standard deviation.
        coordinates: even.
    """
    import torch

    position = torch.nn.Parameter(torch.zeros(coordinates, dtype=torch.float64))
    optimizer = sgd(_LEARNING_RATE, heavy_ball=beta).build([position])
    recorded = [warm_up(beta) + window * index for index in range(checkpoints)]
    rows = []
    for update in range(recorded[-1] + 1):
        if update in recorded:
            rows.append(position.detach().numpy().copy())
        noise = generator.standard_normal(coordinates // 2)
        position.grad = torch.from_numpy(np.concatenate([noise, -noise]) - signal_to_noise)
        optimizer.step()
    return np.stack(rows)
