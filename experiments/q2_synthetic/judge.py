"""Which points of prediction Q2.5 hold, arm by arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from theory.gaussian_r_squared import random_walk_mean

Rows = Sequence[dict[str, Any]]

BEND, FLAT = "c=6", "c=0.25"
RISE = 0.03
"""By how much the peak is to stand above the value at 10 dB."""
DEVIATIONS = 3.0
"""Standard errors within which a curve follows theory."""
WALK = float(random_walk_mean(14))
ZERO = "zero"


def judge(rows: Rows, levels: Sequence[str]) -> list[dict[str, Any]]:
    """Every part of the prediction, for each optimiser and normalisation of the quadratic.

    Args:
        rows: cells, as `q2_synthetic.summarise` makes them.
        levels: labels from no added noise to no signal.

    Returns:
        for each: `statement`, `holds`, `found`.
    """
    points = []
    quadratic = [row for row in rows if row["model"] == "quadratic"]
    arms = dict.fromkeys((row["optimizer"], row["normalisation"]) for row in quadratic)
    for optimizer, normalisation in arms:
        chosen = [
            row for row in quadratic if (row["optimizer"], row["normalisation"]) == (optimizer, normalisation)
        ]
        name = f"{optimizer}, {normalisation}"
        bend = [row for level in levels for row in chosen if (row["arm"], row["snr_db"]) == (BEND, level)]
        flat = [row for level in levels for row in chosen if (row["arm"], row["snr_db"]) == (FLAT, level)]
        points.append(_point(f"{name}: {BEND} has a peak between 0 and -15 dB", *_peak(bend)))
        points.append(_point(f"{name}: {FLAT} has no interior peak", *_none(flat)))
        points.append(_point(f"{name}: within {DEVIATIONS:g} standard errors of theory", *_follows(chosen)))
    for row in quadratic:
        if (row["optimizer"], row["snr_db"], row["normalisation"]) == ("sgd", ZERO, "fixed_signal"):
            found = f"{row['r2_mean']:.4f} ± {row['standard_error']:.4f}"
            holds = abs(row["r2_mean"] - WALK) <= DEVIATIONS * row["standard_error"]
            points.append(_point(f"sgd, {row['arm']}: {WALK:.3f}, the walk's, without signal", holds, found))
    return points


def paired_rise(row: dict[str, Any], reference: dict[str, Any]) -> tuple[float, float]:
    """Mean over seeds of R² in one cell less that in another, and its standard error."""
    difference = np.subtract(row["r2_mean_by_seed"], reference["r2_mean_by_seed"])
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def _point(statement: str, holds: bool, found: str) -> dict[str, Any]:
    return {"statement": statement, "holds": holds, "found": found}


def _highest(rows: Rows) -> tuple[dict[str, Any], float, float]:
    """The highest of the levels between 10 dB and no signal, its rise above 10 dB, and the rise's standard error."""
    reference = next(row for row in rows if row["snr_db"] == "10")
    between = rows[rows.index(reference) + 1 : -1]
    best = max(between, key=lambda row: float(row["r2_mean"]))
    return best, *paired_rise(best, reference)


def _peak(rows: Rows) -> tuple[bool, str]:
    best, rise, error = _highest(rows)
    holds = -15 <= float(best["snr_db"]) <= 0 and rise - DEVIATIONS * error >= RISE
    return holds, f"highest at {best['snr_db']} dB, {rise:+.4f} ± {error:.4f} against 10 dB"


def _none(rows: Rows) -> tuple[bool, str]:
    best, rise, error = _highest(rows)
    return (
        rise <= DEVIATIONS * error,
        f"highest at {best['snr_db']} dB, {rise:+.4f} ± {error:.4f} against 10 dB",
    )


def _follows(rows: Rows) -> tuple[bool, str]:
    worst = max(rows, key=lambda row: abs(row["z"]))
    away = max(abs(row["r2_mean"] - row["theory"]["r2_mean"]) for row in rows)
    found = f"largest |z| {abs(worst['z']):.2f} of {len(rows)}, largest difference {away:.4f}"
    return abs(worst["z"]) <= DEVIATIONS, found
