"""ExPO: the last checkpoint plus alpha times the displacement so far, whatever the step (Zheng et al., 2404.16792)."""

from __future__ import annotations

import numpy as np

from lab.extrapolation.extrapolator import NO_RULES, Extrapolator, JumpRules
from lab.extrapolation.settings import ExpoSettings
from lab.linearity.checks import FloatArray


class Expo(Extrapolator):
    """w(t1) + alpha (w(t1) - w(t0)): the two-point forecast for the step that `target` returns."""

    uses_products = False
    formula = "w(t1) + alpha (w(t1) - w(t0))"

    def __init__(self, settings: ExpoSettings, rules: JumpRules = NO_RULES) -> None:
        super().__init__("pooled", rules)
        self.alpha = settings.alpha

    def jumps(self, steps: FloatArray, products: FloatArray, targets: FloatArray) -> FloatArray:
        """See `Extrapolator.jumps`; the same for every target."""
        return np.full((len(targets), len(steps) - 1), self.alpha)

    def target(self, steps: FloatArray) -> float:
        """Return the step at which a straight path would be there."""
        return float(steps[-1] + self.alpha * (steps[-1] - steps[0]))
