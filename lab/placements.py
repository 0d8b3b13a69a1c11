"""Recorded runs on the phase diagram: the rim around `lab.linearity.placement`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from lab.linearity.placement import Placement, place
from lab.report import Row
from lab.trajectory.series import RunSeries


def place_run(source: xr.DataTree | str | Path) -> Placement | None:
    """Place the sampled weights of a run, by their momentum-free positions where those were recorded.

    Returns:
        the placement; None with fewer than five recorded steps or where nothing moved.

    Raises:
        BadInput: the store is missing, unreadable or does not follow the schema.
    """
    series = RunSeries(source)
    parts = []
    for name, info in series.tensors.items():
        free = series.read_momentum_free(name, 0, info.size)
        parts.append(series.read(name, 0, info.size) if free is None else free)
    return place(np.concatenate(parts, axis=1), series.steps)


def to_numbers(placement: Placement | None) -> dict[str, Any] | None:
    """Return a placement as plain values for `summary.json`."""
    if placement is None:
        return None
    pooled = placement.pooled
    return {
        "curvature_horizon": pooled.curvature_horizon,
        "curvature_horizon_interval": list(pooled.curvature_interval),
        "signal_squared": pooled.signal_squared,
        "signal_squared_interval": list(pooled.signal_squared_interval),
        "noise_rank": pooled.noise_rank,
        "signal_grid": placement.signals.tolist(),
        "signal_weights": placement.weights.tolist(),
        "expected_r2_mean": placement.expected_r_squared,
        "measured_r2_mean": placement.measured_r_squared,
        "expected_skill": placement.expected_two_point_skill,
        "expected_skill_damped": placement.expected_damped_skill,
        "elements": placement.elements,
        "interval_level": 0.95,
    }


def placement_rows(placements: Mapping[str, Placement | None]) -> list[Row]:
    """Return the rows of a report's table, a value for each run."""
    each = list(placements.values())

    def row(name: str, read: Any, meaning: str) -> Row:
        return Row(name, [None if placed is None else read(placed) for placed in each], meaning)

    def interval(values: tuple[float, float]) -> str:
        return f"{values[0]:.2f} to {values[1]:.2f}"

    return [
        row(
            "pooled S²",
            lambda placed: placed.pooled.signal_squared,
            "Squared drift over the window per variance of the noise gathered in it, less what noise alone gives.",
        ),
        row(
            "95 % interval of S²",
            lambda placed: interval(placed.pooled.signal_squared_interval),
            "Given the effective rank of the noise, and over the interval of the curvature.",
        ),
        row(
            "curvature x horizon",
            lambda placed: placed.pooled.curvature_horizon,
            "How far the window reaches round the bend: 0 is a straight descent, 3 has used up 95 % of it.",
        ),
        row(
            "95 % interval of curvature x horizon",
            lambda placed: interval(placed.pooled.curvature_interval),
            "By likelihood ratio.",
        ),
        row(
            "effective rank of the noise",
            lambda placed: placed.pooled.noise_rank,
            "So many independent coordinates the thousands amount to.",
        ),
        row(
            "mean R² expected there",
            lambda placed: placed.expected_r_squared,
            "From the distribution of S over coordinates (empirical Bayes) and the curvature.",
        ),
        row(
            "mean R² measured",
            lambda placed: placed.measured_r_squared,
            "If the two differ, the model fails.",
        ),
        row(
            "two-point skill expected",
            lambda placed: placed.expected_two_point_skill,
            "For a forecast as far ahead as the window is long.",
        ),
    ]
