"""Q5: what extrapolated decoding gains over the last checkpoint, as it is and at a temperature tuned as much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, GREEN, PINK, VERMILION, Columns, style
from paper_figs.statistics import by_seed, how_many, labels, mean_interval, relative_gain

SOURCE = "experiments/q5_extrapolation/results.json"
PANELS = {"last": "over the last checkpoint", "temperature_tuned": "over it at the tuned temperature"}
COLOURS, MARKS = (BLUE, VERMILION, GREEN), "osD"
ALL = "all tasks"
# arXiv 2601.04537: mean relative gain over its four benchmarks, over the last checkpoint as it is
PUBLISHED = 0.042


def draw(results: Mapping[str, Any]) -> tuple[Figure, Columns]:
    """A panel for each thing to beat; a row a design, a mark a task and one for the mean of all within each seed."""
    rows = results["runs"]
    tasks = labels(rows, "task")
    designs = list(dict.fromkeys(name for row in rows for name in row["output_space"]))
    looks = {
        **{task: (COLOURS[i % len(COLOURS)], MARKS[i % len(MARKS)]) for i, task in enumerate(tasks)},
        ALL: (BLACK, "P"),
    }
    data: dict[str, np.ndarray] = {"published": np.array([PUBLISHED])}
    counts: set[int] = set()
    with style():
        figure = Figure(figsize=(7.4, 3.8))
        axes = figure.subplots(1, len(PANELS), sharey=True)
        for axis, (beaten, title) in zip(axes, PANELS.items(), strict=True):
            gains = {design: _gains(rows, tasks, design, beaten) for design in designs}
            for index, (task, (colour, mark)) in enumerate(looks.items()):
                places = [place for place, design in enumerate(designs) if gains[design].get(task)]
                if not places:
                    continue
                values = [list(gains[designs[place]][task].values()) for place in places]
                means, halves = np.array([mean_interval(each) for each in values]).T
                axis.errorbar(
                    100 * means,
                    np.array(places) + 0.17 * (index - (len(looks) - 1) / 2),
                    xerr=100 * halves,
                    color=colour,
                    marker=mark,
                    ms=4,
                    lw=1.1,
                    ls="none",
                    capsize=2,
                    label="mean of the tasks" if task == ALL else task,
                )
                counts |= {len(each) for each in values}
                data |= {
                    f"{task}_over_{beaten}_design": np.array(places, dtype=float),
                    f"{task}_over_{beaten}_mean": means,
                    f"{task}_over_{beaten}_half_width": halves,
                }
            axis.axvline(0, color=BLACK, lw=0.8, ls=":")
            if beaten == "last":
                axis.axvline(
                    100 * PUBLISHED, color=PINK, lw=1.0, ls="--", label=f"published ({PUBLISHED:+.1%})"
                )
            for border in range(1, len(designs)):
                axis.axhline(border - 0.5, color=BLACK, lw=0.3, alpha=0.4)
            axis.set_title(title)
            axis.set_xlabel("relative gain in avg@4 (%)")
        axes[0].set_yticks(range(len(designs)), [_said(design) for design in designs], fontsize=7)
        axes[0].set_ylim(len(designs) - 0.5, -0.5)
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=7)
        figure.suptitle(
            f"extrapolated decoding of the built-in model, alpha chosen on half of the problems, scored on the other; "
            f"{how_many(counts)},\n95 % intervals; dotted: no gain (alpha 1 at the same temperature)",
            fontsize=8,
        )
    return figure, data


def _gains(
    rows: list[dict[str, Any]], tasks: list[str], design: str, beaten: str
) -> dict[str, dict[int, float]]:
    """Relative gain by task and seed, and its mean over tasks for the seeds that have all of them."""
    found = {}
    for task in tasks:
        scores = [
            by_seed(rows, ("output_space", design, arm, "avg@4"), task=task)
            for arm in (beaten, "extrapolated")
        ]
        found[task] = relative_gain(*scores)
    whole = sorted(set.intersection(*(set(gain) for gain in found.values())))
    return {**found, ALL: {seed: float(np.mean([found[task][seed] for task in tasks])) for seed in whole}}


def _said(design: str) -> str:
    """`80-160 at 1` as it reads on an axis."""
    pair, temperature = design.split(" at ")
    return f"steps {pair.replace('-', ', ')}\ntemperature {temperature}"
