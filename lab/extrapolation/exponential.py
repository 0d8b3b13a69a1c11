"""Exponential approach: w(t) = w_inf + (w(t0) - w_inf) exp(-kappa (t - t0)), the mean of a walk in a bowl."""

from __future__ import annotations

import numpy as np

from lab.extrapolation.combination import jump_of_combination
from lab.extrapolation.curves import CURVES, curve_combination, fit_parameter
from lab.extrapolation.extrapolator import NO_RULES, Extrapolator, JumpRules
from lab.extrapolation.settings import ExponentialSettings
from lab.extrapolation.temporal import displacement_products
from lab.linearity.checks import FloatArray


class Exponential(Extrapolator):
    """One rate kappa for all elements of the scope, w_inf and the amplitude of each element by least squares.

    It is the mean path of the Ornstein-Uhlenbeck process (`theory.curved_bowl`). As kappa tends to 0 it becomes the
    line of least squares; it never turns back.
    """

    minimum_checkpoints = 4
    formula = "w_inf + (w(t0) - w_inf) exp(-kappa (t' - t0)); one kappa a scope, the rest by least squares"

    def __init__(self, settings: ExponentialSettings, rules: JumpRules = NO_RULES) -> None:
        super().__init__(settings.scope, rules)
        self._joined = settings.joined
        self._curve = CURVES["saturating"]

    def jumps(self, steps: FloatArray, products: FloatArray, targets: FloatArray) -> FloatArray:
        """See `Extrapolator.jumps`."""
        if not products.any():
            return np.zeros((len(targets), len(steps) - 1))
        parameter = fit_parameter(self._curve, steps, displacement_products(products))
        times = np.append(targets, steps[-1])
        jumps = jump_of_combination(curve_combination(self._curve, parameter, steps, times))
        return jumps[:-1] - jumps[-1] if self._joined else jumps[:-1]

    def details(self, steps: FloatArray, products: FloatArray) -> dict[str, float]:
        """The rate, in 1/step."""
        if not products.any():
            return {}
        parameter = fit_parameter(self._curve, steps, displacement_products(products))
        return {"kappa": parameter / float(steps[-1] - steps[0])}
