"""Q1: straightness against reward flips at a fixed learning rate, at matched drift, and against the signal ratio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, VERMILION, Columns, style
from paper_figs.statistics import by_seed, mean_interval
from theory.gaussian_r_squared import random_walk_mean

SOURCE = "experiments/q1_headline/results.json"
FIXED, MATCHED = ("0", "0.2", "0.4"), ("0", "0.2 matched", "0.4 matched")


def draw(results: Mapping[str, Any]) -> tuple[Figure, Columns]:
    """Left: mean R² against flips, two arms. Right: every run, mean R² expected at its place against measured."""
    rows = results["runs"]
    data: dict[str, np.ndarray] = {"flips": np.array([0.0, 0.2, 0.4])}
    with style():
        figure = Figure(figsize=(7.0, 3.0))
        left, right = figure.subplots(1, 2)
        for labels, name, colour, mark, shift in (
            (FIXED, "fixed learning rate", BLUE, "o", -0.004),
            (MATCHED, "learning rate / drift factor", VERMILION, "s", 0.004),
        ):
            found = [list(by_seed(rows, "r2_mean", flips=label).values()) for label in labels]
            means, halves = np.array([mean_interval(values) for values in found]).T
            left.errorbar(
                data["flips"] + shift, means, halves, color=colour, marker=mark, ms=5, capsize=3, label=name
            )
            data |= {f"{name}_mean": means, f"{name}_half_width": halves}
        walk = float(random_walk_mean(len(rows[0]["steps"])))
        left.axhline(walk, color=BLACK, lw=0.8, ls=":", label=f"random walk ({walk:.2f})")
        left.set(xlabel="share of rewards flipped", ylabel="mean R² of weights")
        left.legend(fontsize=7)
        expected = np.array([row["expected_r2_mean"] for row in rows], dtype=float)
        measured = np.array([row["r2_mean"] for row in rows], dtype=float)
        right.plot(expected, measured, "o", ms=3.5, color=BLUE, alpha=0.7)
        ends = np.array([min(expected.min(), measured.min()), max(expected.max(), measured.max())])
        right.plot(ends, ends, color=BLACK, lw=0.8)
        right.set(xlabel="mean R² expected at the run's place", ylabel="measured, a dot a run")
        data |= {"expected": expected, "measured": measured}
        seeds = len({row["seed"] for row in rows})
        figure.suptitle(
            f"GRPO, built-in model, 16 x 8, AdamW, momentum taken out: {seeds} seeds a point, 95 % intervals",
            fontsize=8,
        )
    return figure, data
