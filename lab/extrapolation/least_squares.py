"""Least squares: the line through all checkpoints, carried on."""

from __future__ import annotations

from lab.extrapolation.combination import jump_of_combination
from lab.extrapolation.curves import CURVES, curve_combination
from lab.extrapolation.extrapolator import NO_RULES, Extrapolator, JumpRules
from lab.extrapolation.settings import LeastSquaresSettings
from lab.linearity.checks import FloatArray


class LeastSquares(Extrapolator):
    """Line of least squares of each weight on the step; joined to the last value, only its slope is used."""

    uses_products = False
    formula = "w(t) + (t' - t) slope if joined, else mean(w) + (t' - mean t) slope; slope by least squares"

    def __init__(self, settings: LeastSquaresSettings, rules: JumpRules = NO_RULES) -> None:
        super().__init__("pooled", rules)
        self._joined = settings.joined

    def jumps(self, steps: FloatArray, products: FloatArray, targets: FloatArray) -> FloatArray:
        """See `Extrapolator.jumps`."""
        fitted = jump_of_combination(curve_combination(CURVES["line"], 1.0, steps, targets))
        if not self._joined:
            return fitted
        return fitted - jump_of_combination(curve_combination(CURVES["line"], 1.0, steps, steps[-1:]))
