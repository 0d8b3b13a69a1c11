"""Two points: the line through the first and the last checkpoint, carried on (Wang et al., arXiv 2601.04537)."""

from __future__ import annotations

import numpy as np

from lab.extrapolation.extrapolator import NO_RULES, Extrapolator, JumpRules
from lab.extrapolation.settings import TwoPointSettings
from lab.linearity.checks import FloatArray


class TwoPoint(Extrapolator):
    """w(t0) + beta (w(t1) - w(t0)), beta = (t' - t0)/(t1 - t0).

    It starts from w(t0), as the published arithmetic does, so that float32 results agree bit for bit.
    """

    uses_products = False
    reference = 0
    formula = "w(t0) + beta (w(t1) - w(t0)), beta = (t' - t0)/(t1 - t0)"

    def __init__(self, settings: TwoPointSettings, rules: JumpRules = NO_RULES) -> None:
        super().__init__("pooled", rules)

    def jumps(self, steps: FloatArray, products: FloatArray, targets: FloatArray) -> FloatArray:
        """See `Extrapolator.jumps`."""
        return straight_jumps(steps, targets)

    def details(self, steps: FloatArray, products: FloatArray) -> dict[str, float]:
        """The two steps."""
        return {"t0": float(steps[0]), "t1": float(steps[-1])}


def straight_jumps(steps: FloatArray, targets: FloatArray) -> FloatArray:
    """Return the displacement so far times (t' - t)/(t - t0), [target, interval]."""
    factors = (targets - steps[-1]) / (steps[-1] - steps[0])
    return np.repeat(factors[:, None], len(steps) - 1, axis=1)
