"""Persistence: the forecast is the last checkpoint. What every other method has to beat."""

from __future__ import annotations

import numpy as np

from lab.extrapolation.extrapolator import NO_RULES, Extrapolator, JumpRules
from lab.extrapolation.settings import PersistenceSettings
from lab.linearity.checks import FloatArray


class Persistence(Extrapolator):
    """w(t') = w(t)."""

    minimum_checkpoints = 1
    uses_products = False
    formula = "w(t)"

    def __init__(self, settings: PersistenceSettings, rules: JumpRules = NO_RULES) -> None:
        super().__init__("pooled", rules)

    def jumps(self, steps: FloatArray, products: FloatArray, targets: FloatArray) -> FloatArray:
        """See `Extrapolator.jumps`."""
        return np.zeros((len(targets), len(steps) - 1))
