"""Extrapolating weights: forecasts from checkpoints, what they are worth, and models written from them.

An extrapolator forecasts every tensor as a combination of checkpoints (`lab.extrapolation.extrapolator`); `compare`
judges methods on held-out checkpoints in one pass; `lab extrapolate` writes a model that Transformers loads.
"""

from __future__ import annotations

from lab.extrapolation.combination import apply_combination
from lab.extrapolation.extrapolator import Extrapolator, JumpRules, State
from lab.extrapolation.settings import EXTRAPOLATORS, build_extrapolator, default_method
from lab.extrapolation.skill import Comparison, compare, compare_products, skill_of_combination

__all__ = [
    "EXTRAPOLATORS",
    "Comparison",
    "Extrapolator",
    "JumpRules",
    "State",
    "apply_combination",
    "build_extrapolator",
    "compare",
    "compare_products",
    "default_method",
    "skill_of_combination",
]
