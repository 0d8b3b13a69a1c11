"""Curves in time with one non-linear parameter, and the straight line, which has none.

A path is modelled as a + b f(s; p) with s the share of the observed span that has passed (0 at the first
checkpoint, 1 at the last). Given p, the best a and b are linear in the path, so the forecast is a combination of
checkpoints and p alone is searched for: variable projection (Golub & Pereyra, SIAM J. Numer. Anal. 10, 1973).
The residual is a function of the inner products of the path with itself over time, so one search serves a path
of billions of elements that share p as well as a single coefficient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lab.linearity.checks import FloatArray

_GRID = 61


@dataclass(frozen=True)
class Curve:
    """A family f(s; p).

    Attributes:
        basis: (p [..., 1], s [time]) to f [..., time].
        low: least p, positive.
        high: largest p; equal to `low` for a family without a parameter.
    """

    basis: Callable[[FloatArray, FloatArray], FloatArray]
    low: float
    high: float

    @property
    def parameters(self) -> int:
        """Numbers that a fit chooses: a, b and, where there is one, p."""
        return 2 if self.low == self.high else 3


def _line(parameter: FloatArray, share: FloatArray) -> FloatArray:
    return np.broadcast_to(share, np.broadcast_shapes(parameter.shape, share.shape))


def _power(parameter: FloatArray, share: FloatArray) -> FloatArray:
    return np.asarray(share**parameter)


def _saturating(parameter: FloatArray, share: FloatArray) -> FloatArray:
    return np.asarray(-np.expm1(-parameter * share) / parameter)  # tends to s as p tends to 0


CURVES: dict[str, Curve] = {
    "line": Curve(_line, 1.0, 1.0),
    "power": Curve(_power, 0.1, 3.0),
    "saturating": Curve(_saturating, 1e-4, 30.0),
}
"""By name. `power`: s^p, p from .1 to 3. `saturating`: (1 - exp(-p s))/p, from all but straight to all but a step."""


def shares(steps: FloatArray, times: ArrayLike) -> FloatArray:
    """Return the share of the span of `steps` that has passed at each of `times`."""
    share: FloatArray = (np.asarray(times, dtype=np.float64) - steps[0]) / (steps[-1] - steps[0])
    return share


def fit_parameter(curve: Curve, steps: FloatArray, gram: FloatArray) -> float:
    """Return the p with the least squared residual, summed over the elements of the path.

    The search is over a grid even in log p, refined around its best point, so it is deterministic and does not
    stop in a far local minimum.

    Args:
        curve: the family.
        steps: [checkpoint].
        gram: [checkpoint, checkpoint], inner products of the path with itself, from any origin.
    """
    if curve.low == curve.high:
        return curve.low
    from scipy.optimize import minimize_scalar

    share = shares(steps, steps)

    def explained(logs: FloatArray) -> FloatArray:
        f = curve.basis(np.exp(logs)[:, None], share)
        f = f - f.mean(axis=1, keepdims=True)
        return np.asarray(np.einsum("pk,kl,pl->p", f, gram, f) / np.einsum("pk,pk->p", f, f))

    logs = np.linspace(np.log(curve.low), np.log(curve.high), _GRID)
    best = int(np.argmax(explained(logs)))
    bounds = (logs[max(best - 1, 0)], logs[min(best + 1, _GRID - 1)])
    refined = minimize_scalar(
        lambda log: -float(explained(np.array([log]))[0]),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-10},
    )
    choices = np.array([logs[best], refined.x])
    return float(np.exp(choices[np.argmax(explained(choices))]))


def curve_combination(curve: Curve, parameter: float, steps: FloatArray, times: ArrayLike) -> FloatArray:
    """Return the weights on the checkpoints that give the fitted curve at `times`; [time, checkpoint], rows sum to 1.

    With f centred over the checkpoints, the least-squares curve at t is mean(x) + (f(t) - mean f) (f'x)/(f'f).
    """
    p = np.array([parameter])
    f = curve.basis(p, shares(steps, steps))
    centred = f - f.mean()
    ahead = curve.basis(p, shares(steps, np.atleast_1d(times))) - f.mean()
    combination: FloatArray = 1.0 / len(steps) + np.outer(ahead, centred / (centred @ centred))
    return combination
