"""Weights under AdamW that sees nothing but noise: what a filter makes of a run without any signal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lab.optimizers import AdamWSettings, ScheduleSettings

Array = NDArray[np.float64]

WEIGHT_SCALE = 0.03
"""Standard deviation of the weights, drawn from a normal distribution: that of linear layers in models of 1.5B."""

CHECKPOINT_STEPS = np.arange(14) * 100.0
"""Steps at which the published runs were saved."""

UPDATES_PER_STEP = 2
_GRADIENT_SCALE = 1e-5  # Any scale well above epsilon gives the same weights.


def adamw(learning_rate: float) -> AdamWSettings:
    """AdamW as the published runs used it, at a constant rate."""
    return AdamWSettings(
        name="adamw",
        learning_rate=learning_rate,
        weight_decay=0.01,
        clip_norm=None,
        schedule=ScheduleSettings(name="constant", warmup_updates=0, final_share=1.0),
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
    )


def noise_trajectories(
    learning_rates: Sequence[float], coordinates: int, generator: np.random.Generator
) -> list[Array]:
    """Weights [checkpoint, coordinate] at each learning rate, from the same start and the same white gradients.

    Arithmetic is float32, as that of master weights in mixed precision.
    """
    import torch

    start = generator.standard_normal(coordinates, dtype=np.float32) * np.float32(WEIGHT_SCALE)
    weights = [torch.nn.Parameter(torch.from_numpy(start.copy())) for _ in learning_rates]
    optimizers = [adamw(rate).build([weight]) for rate, weight in zip(learning_rates, weights, strict=True)]
    rows: list[list[Array]] = [[start.astype(np.float64)] for _ in learning_rates]
    for steps in np.diff(CHECKPOINT_STEPS).astype(int):
        for _ in range(steps * UPDATES_PER_STEP):
            gradient = torch.from_numpy(generator.standard_normal(coordinates, dtype=np.float32))
            gradient *= _GRADIENT_SCALE
            for weight, optimizer in zip(weights, optimizers, strict=True):
                weight.grad = gradient
                optimizer.step()
        for recorded, weight in zip(rows, weights, strict=True):
            recorded.append(weight.detach().numpy().astype(np.float64))
    return [np.stack(recorded) for recorded in rows]
