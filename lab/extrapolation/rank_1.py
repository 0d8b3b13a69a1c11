"""Rank 1: one direction over time, its coefficient carried on along a line.

The direction that holds most of a run is what RELEX (arXiv 2605.21468) and AlphaRL (arXiv 2510.00553) extrapolate. A
driftless walk in many dimensions has such a direction too, with a coefficient that looks straight
(`theory.low_rank_walk`), so that only skill tells them apart.
"""

from __future__ import annotations

from lab.extrapolation.components import ComponentExtrapolator
from lab.extrapolation.curves import CURVES
from lab.extrapolation.extrapolator import NO_RULES, JumpRules
from lab.extrapolation.settings import Rank1Settings


class Rank1(ComponentExtrapolator):
    """See `ComponentExtrapolator`, with one component and a line."""

    formula = (
        "w(t0) + c(t') v, v the first singular direction of the displacements, c(t) a line by least squares"
    )

    def __init__(self, settings: Rank1Settings, rules: JumpRules = NO_RULES) -> None:
        super().__init__(1, CURVES["line"], settings.joined, settings.scope, rules)
