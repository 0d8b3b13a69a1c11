"""A trajectory without the lab: one at a time, a Python loop over steps, NumPy over its coordinates."""

from __future__ import annotations

import numpy as np


def sgd_trajectory(
    generator: np.random.Generator, curvature: np.ndarray, learning_rate: float, steps: int
) -> np.ndarray:
    """Return where SGD with unit noise on a quadratic is after `steps` from ones, float32 [coordinate]."""
    noise = generator.standard_normal((steps, len(curvature)), dtype=np.float32)
    weights = np.ones_like(curvature)
    gradient = np.empty_like(curvature)
    for row in noise:
        np.multiply(curvature, weights, out=gradient)
        gradient += row
        gradient *= learning_rate
        weights -= gradient
    return weights


def adamw_trajectory(
    generator: np.random.Generator, curvature: np.ndarray, learning_rate: float, steps: int
) -> np.ndarray:
    """The same with AdamW (betas .9 and .999, no decay)."""
    noise = generator.standard_normal((steps, len(curvature)), dtype=np.float32)
    weights = np.ones_like(curvature)
    first, second = np.zeros_like(curvature), np.zeros_like(curvature)
    gradient, scale = np.empty_like(curvature), np.empty_like(curvature)
    for step, row in enumerate(noise, start=1):
        np.multiply(curvature, weights, out=gradient)
        gradient += row
        first *= 0.9
        np.multiply(gradient, 0.1, out=scale)
        first += scale
        gradient *= gradient
        gradient *= 0.001
        second *= 0.999
        second += gradient
        np.sqrt(second, out=scale)
        scale *= 1 / (1 - 0.999**step) ** 0.5
        scale += 1e-8
        np.divide(first, scale, out=gradient)
        gradient *= learning_rate / (1 - 0.9**step)
        weights -= gradient
    return weights


TRAJECTORIES = {"sgd": sgd_trajectory, "adamw": adamw_trajectory}
"""The loop of each optimiser."""
