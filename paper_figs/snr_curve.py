"""Straightness of SFT against the signal-to-noise ratio of token sign noise, beside the published points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, VERMILION, Columns, style
from paper_figs.sign_noise import LEVELS, PUBLISHED, bowl_curve, label_levels
from paper_figs.statistics import by_seed, mean_interval
from theory.gaussian_r_squared import random_walk_mean

SOURCE = "experiments/q2_snr/results.json"
ARMS = {
    "adamw_fixed": ("AdamW 1e-4, a fixed", BLUE, "o"),
    "adamw_unit": ("AdamW 1e-4, a² + b² = 1", SKY, "s"),
    "adamw_long": ("AdamW 1e-3, a² + b² = 1", GREEN, "^"),
    "sgd_fixed": ("SGD .003, a fixed", VERMILION, "D"),
    "sgd_unit": ("SGD .003, a² + b² = 1", ORANGE, "v"),
}
# predicted before the runs for AdamW 1e-4 (experiments/PREDICTIONS.md, Q2.1), at LEVELS
PREDICTED = (0.62, 0.60, 0.57, 0.54, 0.52, 0.48, 0.46, 0.45, 0.44)
# the place without noise whose curve comes nearest to the published points (least squares over a grid)
THEORY_CURVATURE, THEORY_SIGNAL_SQUARED = 7.9, 23.0


def draw(results: Mapping[str, Any]) -> tuple[Figure, Columns]:
    """Left: mean R² of each arm with 95 % intervals over seeds. Right: the published points, and theory."""
    rows = results["runs"]
    x = np.arange(len(LEVELS), dtype=float)
    data: dict[str, np.ndarray] = {"level": x}
    checkpoints = len(rows[0]["steps"])
    walk = float(random_walk_mean(checkpoints))
    with style():
        figure = Figure(figsize=(7.4, 3.2))
        left, right = figure.subplots(1, 2, sharey=True)
        for index, (arm, (label, colour, mark)) in enumerate(ARMS.items()):
            found = [list(by_seed(rows, "r2_mean", arm=arm, snr_db=level).values()) for level in LEVELS]
            if not all(found):
                continue
            means, halves = np.array([mean_interval(values) for values in found]).T
            left.errorbar(
                x + 0.06 * (index - 2),
                means,
                halves,
                color=colour,
                marker=mark,
                ms=4,
                lw=1.1,
                capsize=2,
                label=label,
            )
            data |= {f"{arm}_mean": means, f"{arm}_half_width": halves}
        left.plot(x, PREDICTED, color=BLUE, lw=0.9, ls="--", label="predicted, AdamW 1e-4")
        expected = bowl_curve(THEORY_CURVATURE, THEORY_SIGNAL_SQUARED)
        right.plot(x, PUBLISHED, "o-", color=PINK, label="published (median R², read off)")
        place = f"curvature x horizon {THEORY_CURVATURE:g}, S² {THEORY_SIGNAL_SQUARED:g}"
        right.plot(x, expected, "--", color=BLACK, label=f"theory, fitted: without noise\n{place}")
        data |= {"predicted": np.array(PREDICTED), "published": np.array(PUBLISHED), "theory": expected}
        for axis in (left, right):
            axis.axhline(walk, color=BLACK, lw=0.7, ls=":")
            label_levels(axis)
        left.set_ylabel("mean R² (momentum taken out)")
        right.set_ylabel("median R² (theory: mean)")
        left.set_ylim(0.3, 0.85)
        left.legend(fontsize=6.5)
        right.legend(fontsize=6.5)
        seeds = len({row["seed"] for row in rows})
        figure.suptitle(
            f"built-in model, SFT, {seeds} seeds a point, 95 % intervals; dotted: random walk ({walk:.2f})",
            fontsize=8,
        )
    return figure, data
