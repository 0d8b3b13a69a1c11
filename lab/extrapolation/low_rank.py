"""Low rank: several directions over time, each coefficient along its own curve (as NExt, arXiv 2604.11446)."""

from __future__ import annotations

from lab.extrapolation.components import ComponentExtrapolator
from lab.extrapolation.curves import CURVES
from lab.extrapolation.extrapolator import NO_RULES, JumpRules
from lab.extrapolation.settings import LowRankSettings


class LowRank(ComponentExtrapolator):
    """See `ComponentExtrapolator`; a curve has three numbers, so at least four checkpoints are needed to judge it."""

    minimum_checkpoints = 4
    formula = "w(t0) + sum_i c_i(t') v_i, v_i the first singular directions of the displacements, c_i = a + b f(t; p)"

    def __init__(self, settings: LowRankSettings, rules: JumpRules = NO_RULES) -> None:
        super().__init__(settings.rank, CURVES[settings.curve], settings.joined, settings.scope, rules)
