"""Straightness of SFT against the signal-to-noise ratio of token sign noise, beside the published points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, VERMILION, Columns, style
from paper_figs.statistics import by_seed, mean_interval
from theory.curved_bowl import bowl_mean
from theory.gaussian_r_squared import random_walk_mean

SOURCE = "experiments/q2_snr/results.json"
LEVELS = ("10", "5", "0", "-3", "-5", "-10", "-15", "-20", "zero")
ARMS = {
    "adamw_fixed": ("AdamW 1e-4, a fixed", BLUE, "o"),
    "adamw_unit": ("AdamW 1e-4, a² + b² = 1", SKY, "s"),
    "adamw_long": ("AdamW 1e-3, a² + b² = 1", GREEN, "^"),
    "sgd_fixed": ("SGD .003, a fixed", VERMILION, "D"),
    "sgd_unit": ("SGD .003, a² + b² = 1", ORANGE, "v"),
}
# arXiv 2601.04537, median R² of weights of SFT, read off its figure
PUBLISHED = (0.505, 0.445, 0.435, 0.51, 0.56, 0.582, 0.525, 0.415, 0.40)
# the place on the phase diagram, without noise, from which theory comes nearest to the published peak
THEORY_CURVATURE, THEORY_SIGNAL_SQUARED = 8.0, 60.0


def draw(results: Mapping[str, Any]) -> tuple[Figure, Columns]:
    """Left: mean R² of each arm, momentum taken out, with 95 % intervals over seeds. Right: the published points."""
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
        power = np.array(
            [1 / (1 + 10 ** (-float(level) / 10)) if level != "zero" else 0.0 for level in LEVELS]
        )
        expected = bowl_mean(14, THEORY_CURVATURE * np.sqrt(power), np.sqrt(THEORY_SIGNAL_SQUARED * power))
        right.plot(x, PUBLISHED, "o-", color=PINK, label="published (median R², read off the figure)")
        right.plot(
            x,
            expected,
            "--",
            color=BLACK,
            label=f"theory: curvature x horizon {THEORY_CURVATURE:g}, S² {THEORY_SIGNAL_SQUARED:g} without noise",
        )
        data |= {"published": np.array(PUBLISHED), "theory": expected}
        for axis in (left, right):
            axis.axhline(walk, color=BLACK, lw=0.7, ls=":")
            axis.set_xticks(x, ["no\nsignal" if level == "zero" else level for level in LEVELS])
            axis.set_xlabel("signal-to-noise ratio of a token's weight (dB)")
        left.set_ylabel("mean R² of weights")
        left.set_ylim(0.2, 1.0)
        left.legend(fontsize=6.5)
        right.legend(fontsize=6.5)
        seeds = len({row["seed"] for row in rows})
        figure.suptitle(
            f"built-in model, {seeds} seeds a point, 95 % intervals; dotted: random walk", fontsize=8
        )
    return figure, data
