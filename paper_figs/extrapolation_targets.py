"""Q5: pass rate of weight-space extrapolations at their target step, against standing still and training on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, VERMILION, Columns, style
from paper_figs.statistics import by_seed, how_many, labels, mean_interval, paired_difference

SOURCE = "experiments/q5_extrapolation/results.json"
STILL = "persistence"
ARMS = {
    "trained": ("training on", BLACK, "o"),
    "damped": ("damped", BLUE, "s"),
    "exponential": ("exponential", SKY, "v"),
    "least_squares": ("least squares", GREEN, "^"),
    "two_point": ("two-point", VERMILION, "D"),
    "rank_1": ("rank 1", ORANGE, "P"),
    "low_rank": ("low rank", PINK, "X"),
}
APART = 1.4
"""Steps between the marks of neighbouring arms, which would otherwise hide each other."""


def draw(results: Mapping[str, Any]) -> tuple[Figure, Columns]:
    """A panel a task: pass rate at the target minus that of the last checkpoint that was fitted on, paired by seed."""
    rows = results["runs"]
    tasks = labels(rows, "task")
    targets = sorted({int(key) for row in rows for key in row["weight_space"] if key.isdigit()})
    first, last = results["fitted_on_steps"]
    data: dict[str, np.ndarray] = {}
    counts: set[int] = set()
    with style():
        figure = Figure(figsize=(7.4, 3.4))
        axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
        for axis, task in zip(axes, tasks, strict=True):
            still = {
                target: by_seed(rows, ("weight_space", str(target), STILL), task=task) for target in targets
            }
            for index, (arm, (label, colour, mark)) in enumerate(ARMS.items()):
                reached = {
                    target: by_seed(rows, ("weight_space", str(target), arm), task=task) for target in targets
                }
                found = {target: paired_difference(still[target], reached[target]) for target in targets}
                there = {target: each for target, each in found.items() if each[2]}
                if not there:
                    continue
                means, halves, seeds = np.array(list(there.values())).T
                axis.errorbar(
                    np.array(list(there)) + APART * (index - (len(ARMS) - 1) / 2),
                    means,
                    halves,
                    color=colour,
                    marker=mark,
                    ms=3.5,
                    lw=1.0,
                    capsize=1.5,
                    label=label,
                )
                counts |= {int(number) for number in seeds}
                data |= {
                    f"{task}_{arm}_target": np.array(list(there), dtype=float),
                    f"{task}_{arm}_mean": means,
                    f"{task}_{arm}_half_width": halves,
                }
            axis.axhline(0, color=BLACK, lw=0.8, ls=":", label=f"standing still at step {last}")
            level, _ = mean_interval(list(still[targets[0]].values()))
            axis.axhline(-level, color=BLACK, lw=0.6, ls="--", label="pass rate 0")
            axis.set_title(f"{task}: {level:.2f} at step {last}", fontsize=8)
            axis.set_xticks(targets, [str(target) for target in targets], fontsize=7, rotation=60)
            axis.set_xlabel("target step")
        axes[0].set_ylabel(f"pass rate at the target\nminus that at step {last}")
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=7)
        evaluated = results["evaluation"]
        figure.suptitle(
            f"weight-space extrapolation of the built-in model, fitted on steps {first} to {last}; "
            f"{how_many(counts)} a point, 95 % paired intervals;\npass rate on {evaluated['problems']} held-out "
            f"problems x {evaluated['rollouts']} at temperature {evaluated['temperature']:g}",
            fontsize=8,
        )
    return figure, data
