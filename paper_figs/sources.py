"""Q3: straightness of RL, of SFT, and of SFT on the policy's own correct completions, against the signal ratio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, GREEN, ORANGE, PINK, VERMILION, Columns, style
from paper_figs.statistics import by_seed, mean_interval
from theory.gaussian_r_squared import random_walk_mean

SOURCE = "experiments/q3_sources/results.json"
ARMS = {
    "rl": ("RL, 16 x 8", BLUE, "o"),
    "sft": ("SFT, 128 answers", ORANGE, "s"),
    "sft small": ("SFT, 16 answers", VERMILION, "D"),
    "own fresh": ("SFT, 16 own, fresh", GREEN, "^"),
    "own frozen": ("SFT, 16 own, frozen", PINK, "v"),
}


def draw(results: Mapping[str, Any]) -> tuple[Figure, Columns]:
    """Left: mean R² by arm with intervals over seeds. Right: every run at its pooled S²."""
    rows = results["runs"]
    data: dict[str, np.ndarray] = {}
    with style():
        figure = Figure(figsize=(7.2, 3.0))
        left, right = figure.subplots(1, 2, sharey=True)
        for index, (arm, (label, colour, mark)) in enumerate(ARMS.items()):
            straight, signal = by_seed(rows, "r2_mean", arm=arm), by_seed(rows, "signal_squared", arm=arm)
            mean, half = mean_interval(list(straight.values()))
            left.errorbar([index], [mean], [half], color=colour, marker=mark, ms=6, capsize=3)
            seeds = sorted(straight.keys() & signal.keys())
            power = np.array([max(signal[seed], 0.05) for seed in seeds])
            right.plot(power, [straight[seed] for seed in seeds], mark, color=colour, ms=4.5, label=label)
            data |= {
                f"{arm}_r2": np.array([straight[seed] for seed in seeds]),
                f"{arm}_signal_squared": power,
            }
        walk = float(random_walk_mean(len(rows[0]["steps"])))
        for axis in (left, right):
            axis.axhline(walk, color=BLACK, lw=0.8, ls=":")
        left.set_xticks(
            range(len(ARMS)), [label.replace(", ", "\n") for label, _, _ in ARMS.values()], fontsize=7
        )
        left.set_ylabel("mean R² of weights")
        low, high = right.get_xlim()
        right.set(xscale="log", xlabel="pooled S² of the run")
        shown = [tick for tick in (1, 2, 3, 5, 10, 20, 30, 50) if low <= tick <= high]
        right.set_xticks(shown, [str(tick) for tick in shown])
        right.set_xticks([], minor=True)
        right.legend(fontsize=7)
        seeds_used = len({row["seed"] for row in rows})
        figure.suptitle(
            f"built-in model, 300 updates, momentum taken out, {seeds_used} seeds, 95 % intervals; "
            f"dotted: random walk ({walk:.2f})",
            fontsize=8,
        )
    return figure, data
