"""One plain sentence, computed from a measurement, that a person can quote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.settings import require


def verdict(weights: Mapping[str, Any], level: str = "this run", alpha: float = 0.05) -> str:
    """Say whether a measurement is straighter than chance and how far it can be forecast.

    Straighter than chance: sign-flip p of the median R² <= alpha. Forecastable to H: pooled damped skill > 0,
    its sign-flip p <= alpha, and damped skill > 0 at every horizon up to H (the largest such). Where there
    is no p-value, or so few sign patterns that none could reach alpha, it cannot be told.

    Args:
        weights: a measurement, the dictionary that `measure_trajectory` returns.
        level: what the sentence is about; the unit of inference is the run.
        alpha: level of both tests, in (0, 1).

    Returns:
        One line without a full stop, e.g. "this run: straighter than chance (sign-flip p=.001); forecastable
        to 100 steps beyond the fit window with damping .55 (skill .38); undamped .02".

    Raises:
        Invalid: `alpha` outside (0, 1).
    """
    require(0.0 < alpha < 1.0, "alpha", f"expected a number between 0 and 1, got {alpha}")
    reason = weights["null_p_value_reason"]
    n_patterns = weights["nulls"]["sign_flip"]["n_patterns"]
    if n_patterns is not None and n_patterns * alpha < 1.0:
        reason = f"{n_patterns} sign patterns cannot give p={_number(alpha)}; take more checkpoints or flips"
    if reason is not None:
        known = weights["r2_median"]
        median = "" if known is None else f" (median R² {_number(known)}, untested)"
        return f"{level}: cannot be told{median}: {reason}"
    return f"{level}: {_straight(weights, alpha)}; {_forecast(weights, alpha)}"


def _straight(weights: Mapping[str, Any], alpha: float) -> str:
    p = weights["null_p_value"]
    if p is None:
        return "cannot be told whether it is straighter than chance"
    return f"{'' if p <= alpha else 'not '}straighter than chance (sign-flip p={_number(p)})"


def _forecast(weights: Mapping[str, Any], alpha: float) -> str:
    skill, p, undamped = weights["skill_damped"], weights["skill_p_value"], weights["skill"]
    if skill is None or p is None:
        return "cannot be told whether it is forecastable: too few checkpoints, or nothing moved"
    numbers = f"damped skill {_number(skill)}, p={_number(p)}; undamped {_number(undamped)}"
    reach = _reach(weights["skill_by_horizon"])
    if skill <= 0 or p > alpha:
        return f"not forecastable ({numbers})"
    if reach is None:
        return f"not forecastable at the nearest horizon, though on the whole ({numbers})"
    damping = _number(weights["damping"])
    return (
        f"forecastable to {reach:g} steps beyond the fit window with damping {damping} "
        f"(skill {_number(skill)}); undamped {_number(undamped)}"
    )


def _reach(by_horizon: Mapping[str, Any]) -> float | None:
    """The largest horizon up to which damped skill is positive throughout; None if it is not at the first."""
    reach = None
    for horizon, skill in zip(by_horizon["horizon"], by_horizon["skill_damped"], strict=True):
        if skill is None or skill <= 0:
            break
        reach = float(horizon)
    return reach


def _number(number: float) -> str:
    """Two decimals, more for small ones, no zero before the point: .38, -.02, 1.00, .001."""
    rounded = f"{number:.2f}" if abs(number) >= 0.095 or number == 0 else f"{number:.2g}"
    if "e" in rounded:
        rounded = f"{number:.6f}"
    return rounded.replace("0.", ".", 1) if rounded.lstrip("-").startswith("0.") else rounded
