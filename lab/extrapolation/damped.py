"""Damped: the two-point jump times lambda, chosen on a held-out last part of the checkpoints."""

from __future__ import annotations

import numpy as np

from lab.extrapolation.extrapolator import NO_RULES, Extrapolator, JumpRules
from lab.extrapolation.settings import DampedSettings
from lab.extrapolation.temporal import path_with_products
from lab.extrapolation.two_point import straight_jumps
from lab.linearity.checks import FloatArray
from lab.linearity.forecast import choose_damping


class Damped(Extrapolator):
    """w(t) + lambda (t' - t)/(t - t0) (w(t) - w(t0)); lambda as in `lab.linearity.forecast.choose_damping`.

    For drift plus white noise the best lambda is S²/(1 + S²) whatever the horizon (`theory.forecast_error`). A tensor
    that did not move gives no evidence for a jump: lambda is 0.
    """

    minimum_checkpoints = 4
    formula = (
        "w(t) + lambda (t' - t)/(t - t0) (w(t) - w(t0)), lambda chosen on the last quarter of the checkpoints"
    )

    def __init__(self, settings: DampedSettings, rules: JumpRules = NO_RULES) -> None:
        super().__init__(settings.scope, rules)

    def jumps(self, steps: FloatArray, products: FloatArray, targets: FloatArray) -> FloatArray:
        """See `Extrapolator.jumps`."""
        return self._damping(steps, products) * straight_jumps(steps, targets)

    def details(self, steps: FloatArray, products: FloatArray) -> dict[str, float]:
        """The lambda chosen."""
        return {"damping": self._damping(steps, products)}

    @staticmethod
    def _damping(steps: FloatArray, products: FloatArray) -> float:
        damping = choose_damping(path_with_products(products), steps)
        return float(np.nan_to_num(damping, nan=0.0))
