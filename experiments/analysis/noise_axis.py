"""Gradient noise as the common axis of batch size and flips: mean R² of every cell against its noise scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from experiments.analysis.statistics import Rows, cells, interval


def table(rows: Rows, axes: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row a cell: its labels, mean R², damped skill, and its noise scale.

    The noise scale tr(noise) / |mean gradient|² of one batch is a ratio whose denominator noise can bring to zero or
    below, so that its median over runs is given, a run without a positive signal counting as infinite.
    """
    found = []
    for labels, members in cells(rows, axes).items():
        scales = [np.inf if row["noise_scale"] is None else row["noise_scale"] for row in members]
        found.append(
            {
                **dict(zip(axes, labels, strict=True)),
                "noise_scale_median": float(np.median(scales)),
                "without_signal": int(np.isinf(scales).sum()),
                "r2_mean": interval(row["r2_mean"] for row in members),
                "skill_damped": interval(
                    np.nan if row["skill_damped"] is None else row["skill_damped"] for row in members
                ),
                "signal_squared": interval(
                    np.nan if row.get("signal_squared") is None else row["signal_squared"] for row in members
                ),
            }
        )
    return sorted(found, key=lambda row: row["noise_scale_median"])


def rank_correlation(cells_: Sequence[dict[str, Any]], by: str | None) -> dict[str, Any]:
    """Return Spearman's correlation of mean R² with the noise scale over cells, of all and within labels of `by`.

    Cells share seeds, so that no p-value is given.
    """
    groups = {"all": list(cells_)}
    if by is not None:
        for row in cells_:
            groups.setdefault(str(row[by]), []).append(row)
    found: dict[str, Any] = {}
    for name, members in groups.items():
        if len(members) >= 3:
            scales = [row["noise_scale_median"] for row in members]
            straight = [row["r2_mean"]["mean"] for row in members]
            found[name] = {"rho": float(spearmanr(scales, straight).statistic), "cells": len(members)}
    return found
