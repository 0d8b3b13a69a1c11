"""What the figures on token sign noise share: levels of noise, the published points, and the noiseless bowl's curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from theory.curved_bowl import bowl_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = ("10", "5", "0", "-3", "-5", "-10", "-15", "-20", "zero")
# arXiv 2601.04537, median R² of weights of SFT, read off its figure
PUBLISHED = (0.505, 0.445, 0.435, 0.51, 0.56, 0.582, 0.525, 0.415, 0.40)
_NAMES = {"none": "no\nnoise", "zero": "no\nsignal"}


def label_levels(axis: Axes, levels: Sequence[str] = LEVELS) -> None:
    """Name the levels, equally spaced, on the horizontal axis."""
    axis.set_xticks(range(len(levels)), [_NAMES.get(level, level) for level in levels])
    axis.set_xlabel("signal-to-noise ratio of a token's weight (dB)")


def signal_power(levels: Sequence[str] = LEVELS) -> np.ndarray:
    """a²/(a² + b²) at each level of the weight a + b eps, float64 [level]."""
    fixed = {"none": 1.0, "zero": 0.0}
    return np.array(
        [fixed[level] if level in fixed else 1 / (1 + 10 ** (-float(level) / 10)) for level in levels]
    )


def bowl_curve(curvature_horizon: float, signal_squared: float, checkpoints: int = 14) -> np.ndarray:
    """E[R²] at each of `LEVELS` of a run that lies there without noise: SGD with a² + b² = 1, or Adam in much noise.

    The drift falls as sqrt(x), x = `signal_power`, at noise of constant power: so does the curvature, and by the
    moments of `theory.curved_bowl` S² is proportional to c tanh(c/2), c the curvature x horizon.

    Args:
        curvature_horizon: without noise, positive.
        signal_squared: S² without noise.
        checkpoints: of the window.
    """
    curvature = curvature_horizon * np.sqrt(signal_power())
    whole = curvature_horizon * np.tanh(curvature_horizon / 2)
    squares = signal_squared * curvature * np.tanh(curvature / 2) / whole
    return bowl_mean(checkpoints, curvature, np.sqrt(squares))
