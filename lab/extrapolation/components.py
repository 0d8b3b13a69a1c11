"""Forecasts along the leading components of the displacements over time, each coefficient carried on by a curve."""

from __future__ import annotations

import numpy as np

from lab.extrapolation.curves import Curve, curve_combination, fit_parameter
from lab.extrapolation.extrapolator import NO_RULES, Extrapolator, JumpRules, Scope
from lab.extrapolation.temporal import components, displacement_products
from lab.linearity.checks import FloatArray


class ComponentExtrapolator(Extrapolator):
    """w(t0) + sum over components of c(t') v: displacements w(t) - w(t0) are c(t) v + a rest that is dropped.

    v are the leading right singular vectors of the displacements, c(t) the coefficients, a curve in t fitted by least
    squares over all checkpoints (0 at the first). Joined to the last value, the forecast is w(t) plus what the curves
    add from t to t', which keeps the rest.

    Args:
        rank: components.
        curve: family of the coefficients.
        joined: see above.
        scope: components of each tensor, or of all together.
        rules: see `Extrapolator`.
    """

    def __init__(
        self, rank: int, curve: Curve, joined: bool, scope: Scope, rules: JumpRules = NO_RULES
    ) -> None:
        super().__init__(scope, rules)
        self._rank, self._curve, self._joined = rank, curve, joined

    def jumps(self, steps: FloatArray, products: FloatArray, targets: FloatArray) -> FloatArray:
        """See `Extrapolator.jumps`."""
        times = np.append(targets, steps[-1])
        total = np.zeros((len(times), len(steps) - 1))
        for vector in components(products, self._rank):
            parameter = fit_parameter(self._curve, steps, np.outer(vector, vector))
            coefficient = curve_combination(self._curve, parameter, steps, times) @ vector
            # v = sum_k vector_k (x_k - x_0) / |.|, and x_k - x_0 is the sum of the increments before k.
            direction = np.cumsum(vector[::-1])[::-1][1:]
            total += np.outer(coefficient, direction)
        at_last = total[-1] if self._joined else np.ones(len(steps) - 1)
        jumps: FloatArray = total[:-1] - at_last
        return jumps if products.any() else np.zeros_like(jumps)

    def details(self, steps: FloatArray, products: FloatArray) -> dict[str, float]:
        """Share of the squared displacements that each component holds, and its curve's parameter."""
        found: dict[str, float] = {}
        gram = displacement_products(products)
        for number, vector in enumerate(components(products, self._rank), start=1):
            found[f"share_{number}"] = float(vector @ gram @ vector / np.trace(gram))
            if self._curve.parameters > 2:
                found[f"parameter_{number}"] = fit_parameter(self._curve, steps, np.outer(vector, vector))
        return found
