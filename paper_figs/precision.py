"""What the published filter and bfloat16 weights do to straightness, by learning rate, each beside its nulls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, ORANGE, VERMILION, Columns, style
from paper_figs.statistics import by_seed, how_many, labels, mean_interval

SOURCE = "experiments/precision/results.json"
RATE = "optimizer.learning_rate"
ARMS = {
    "float32": ("float32", BLUE, "o"),
    "bfloat16": ("bfloat16", VERMILION, "s"),
    "float32 twin": ("float32, pure-noise twin", ORANGE, "D"),
}
FILTERS = {"unfiltered": "none", "cast alone": "cast", "thresholds alone": "thresholds", "paper": "both"}
PLANNED = 9
"""Cells of the study: three arms at three learning rates."""


def draw(results: Mapping[str, Any]) -> tuple[Figure, Columns]:
    """A column a learning rate; above the median R² under each filter with its walk null, below the share kept."""
    rows = results["runs"]
    rates = sorted(labels(rows, RATE), key=float, reverse=True)
    data: dict[str, np.ndarray] = {}
    cells = {(row["arm"], str(row[RATE])) for row in rows}
    with style():
        figure = Figure(figsize=(7.4, 4.6))
        grid = figure.subplots(
            2, len(rates), sharex=True, sharey="row", squeeze=False, height_ratios=(2.2, 1.0)
        )
        for column, rate in enumerate(rates):
            above, below = grid[:, column]
            counts = []
            for index, (arm, (_, colour, mark)) in enumerate(ARMS.items()):
                point = {"arm": arm, RATE: rate}
                if (arm, rate) not in cells:
                    continue
                counts.append(
                    len({row["seed"] for row in rows if (row["arm"], str(row[RATE])) == (arm, rate)})
                )
                shift = 0.22 * (index - (len(ARMS) - 1) / 2)
                for axis, value in ((above, "r2_median"), (above, "walk_r2_median"), (below, "kept")):
                    found = {
                        place: list(by_seed(rows, ("filters", name, value), **point).values())
                        for place, name in enumerate(FILTERS)
                    }
                    there = {place: mean_interval(values) for place, values in found.items() if values}
                    if not there:
                        continue
                    means, halves = np.array(list(there.values())).T
                    x = np.array(list(there)) + shift
                    if value == "walk_r2_median":
                        axis.plot(x, means, "_", color=colour, ms=9, mew=1.6)
                    else:
                        axis.errorbar(
                            x, means, halves, color=colour, marker=mark, ms=4, lw=1.0, ls="none", capsize=2
                        )
                    name = f"{arm}_{rate}_{value}"
                    data |= {
                        f"{name}_filter": np.array(list(there), dtype=float),
                        f"{name}_mean": means,
                        f"{name}_half_width": halves,
                    }
            absent = [arm for arm in ARMS if (arm, rate) not in cells]
            lacking = f"; no runs of {', '.join(absent)}" if absent else ""
            above.set_title(f"learning rate {float(rate):g}\n{how_many(counts)} an arm{lacking}", fontsize=8)
            below.set_xticks(range(len(FILTERS)), list(FILTERS.values()), fontsize=7)
            below.set_xlabel("part of the published filter")
            below.set_ylim(-0.1, 1.1)
        grid[0, 0].set_ylabel("median R² of weights")
        grid[1, 0].set_ylabel("share kept")
        for label, colour, mark in ARMS.values():
            grid[0, 0].plot([], [], mark, color=colour, ms=4, label=label)
        grid[0, 0].plot([], [], "_", color=BLACK, ms=9, mew=1.6, label="random walks, same filter")
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=7)
        figure.suptitle(
            f"GRPO, built-in model, momentum left in; {len(cells)} of {PLANNED} cells stored, {len(rows)} runs; "
            "95 % intervals over seeds",
            fontsize=8,
        )
    return figure, data
