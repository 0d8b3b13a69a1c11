"""How straight a trajectory is, how well it can be forecast, and what chance alone would give.

Pure functions on arrays: values[checkpoint, element] at steps[checkpoint]. Labels, files and plots are
left to callers.
"""

from lab.linearity.checks import check_steps, check_trajectory
from lab.linearity.filters import PROTOCOLS, Protocol, get_protocol, round_to_bfloat16
from lab.linearity.forecast import ForecastSkill, choose_damping, forecast_skill, two_point_forecast
from lab.linearity.increments import lag_cosine, split_half
from lab.linearity.measure import Curves, measure_trajectory, to_json
from lab.linearity.momentum import minimum_spacing, momentum_free_adam, momentum_free_sgd
from lab.linearity.r_squared import RSquaredSummary, r_squared, summarise
from lab.linearity.sign_flip import (
    SignFlipResult,
    SignPatterns,
    flip_increments,
    sign_flip_test,
    sign_patterns,
)
from lab.linearity.statistics import DampedSkill, LagCosine, MedianRSquared, SplitHalf
from lab.linearity.verdict import verdict
from lab.linearity.walk import (
    SelectionMatched,
    exact_mean_walk_r_squared,
    selection_matched,
    walk_r_squared,
)

__all__ = [
    "PROTOCOLS",
    "Curves",
    "DampedSkill",
    "ForecastSkill",
    "LagCosine",
    "MedianRSquared",
    "Protocol",
    "RSquaredSummary",
    "SelectionMatched",
    "SignFlipResult",
    "SignPatterns",
    "SplitHalf",
    "check_steps",
    "check_trajectory",
    "choose_damping",
    "exact_mean_walk_r_squared",
    "flip_increments",
    "forecast_skill",
    "get_protocol",
    "lag_cosine",
    "measure_trajectory",
    "minimum_spacing",
    "momentum_free_adam",
    "momentum_free_sgd",
    "r_squared",
    "round_to_bfloat16",
    "selection_matched",
    "sign_flip_test",
    "sign_patterns",
    "split_half",
    "summarise",
    "to_json",
    "two_point_forecast",
    "verdict",
    "walk_r_squared",
]
