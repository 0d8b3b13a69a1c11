"""The noisy quadratic at a place on the phase diagram, and what theory expects once sign noise is added.

Gradient h w + s xi without added noise. Token sign noise a + b eps, eps = +1 or -1, scales the drift by a and adds
noise of the kind that is there: a h w + s sqrt(a² + b²) xi. Without any signal a = 0 and b = 1.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import root

from lab.errors import BadInput
from theory.adam_bowl import checkpoint_moments
from theory.curved_bowl import bowl_r_squared
from theory.gaussian_r_squared import mean_r_squared
from theory.prediction import InvalidArgument

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bowl:
    """A noisy quadratic in one coordinate.

    Attributes:
        start: distance of the start from the bottom.
        curvature: h.
        noise: standard deviation s of the gradient.
    """

    start: float
    curvature: float
    noise: float

    def with_sign_noise(self, signal: float, noise: float) -> Bowl:
        """The bowl that a weight signal + noise eps of every token makes of it."""
        return Bowl(self.start, signal * self.curvature, self.noise * float(np.hypot(signal, noise)))

    def overrides(self) -> dict[str, Any]:
        """Keys of a cell of `objective=quadratic`."""
        return {
            "start": self.start,
            "noise": self.noise,
            "spectrum": {"name": "constant", "largest": self.curvature, "smallest": None, "exponent": None},
        }


def sgd_moments(bowl: Bowl, learning_rate: float, steps: Array) -> tuple[float, float]:
    """Curvature x horizon and S² of the window under SGD (an AR(1) from a point)."""
    rho, updates = 1 - learning_rate * bowl.curvature, float(steps[-1])
    travelled = bowl.start * (1 - rho**updates)
    gathered = learning_rate**2 * bowl.noise**2 * (1 - rho ** (2 * updates)) / (1 - rho**2)
    return -updates * float(np.log(rho)), float(travelled**2 / gathered)


def adamw_moments(bowl: Bowl, learning_rate: float, steps: Array) -> tuple[float, float]:
    """The same under Adam: the path's contraction -log(mean at the end / start), and S² of the displacement."""
    mean, covariance = checkpoint_moments(steps, bowl.start, bowl.curvature, bowl.noise, learning_rate)
    travelled = bowl.start - mean[-1]
    left = max(mean[-1] / bowl.start, np.finfo(float).tiny)  # it can overshoot
    return -float(np.log(left)), float(travelled**2 / covariance[-1, -1])


MOMENTS = {"sgd": sgd_moments, "adamw": adamw_moments}


def place_bowl(
    optimizer: str, curvature_horizon: float, signal_squared: float, learning_rate: float, steps: Array
) -> Bowl:
    """The bowl with unit noise that lies at this place on the phase diagram.

    Args:
        optimizer: `sgd` or `adamw`.
        curvature_horizon: over the window, positive.
        signal_squared: S² over the window, positive.
        learning_rate: of the run.
        steps: [checkpoint], from 0.

    Raises:
        BadInput: there is none, or none was found.
    """
    updates = float(steps[-1])
    wanted = np.log([curvature_horizon, signal_squared])
    # under Adam noise of unit size, and little signal in a gradient, makes a step of lr times the gradient
    curvature = (1 - np.exp(-curvature_horizon / updates)) / learning_rate
    unit = MOMENTS["sgd"](Bowl(1.0, curvature, 1.0), learning_rate, steps)[1]
    guess = np.log([curvature, np.sqrt(signal_squared / unit)])

    def miss(logarithms: Array) -> Array:
        bowl = Bowl(float(np.exp(logarithms[1])), float(np.exp(logarithms[0])), 1.0)
        with np.errstate(divide="ignore"):  # far from the place
            return np.asarray(np.log(MOMENTS[optimizer](bowl, learning_rate, steps)) - wanted)

    with suppress(InvalidArgument):  # the search has left the domain
        found = root(miss, guess, tol=1e-10)
        if np.abs(miss(found.x)).max() < 1e-6:
            return Bowl(float(np.exp(found.x[1])), float(np.exp(found.x[0])), 1.0)
    raise BadInput(
        f"quadratic: no bowl found where {optimizer} has curvature x horizon {curvature_horizon:g} and S² "
        f"{signal_squared:g} within {updates:g} updates; take more updates"
    )


def expected_r_squared(optimizer: str, bowl: Bowl, learning_rate: float, steps: Array) -> float:
    """E[R²] of weights at the checkpoints: exact for SGD, linearised for Adam."""
    if optimizer == "sgd":
        rho = 1 - learning_rate * bowl.curvature
        return float(bowl_r_squared(steps, rho, bowl.start, learning_rate * bowl.noise))
    mean, covariance = checkpoint_moments(steps, bowl.start, bowl.curvature, bowl.noise, learning_rate)
    return float(mean_r_squared(mean, covariance, steps))
