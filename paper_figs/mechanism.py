"""Q4: is it v_R or the gap v_R - v_W that stays? The bandit, where both are exact, and the language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, VERMILION, Columns, style
from paper_figs.statistics import how_many, labels
from paper_figs.stored import stored
from theory.grpo_drift import slope_gap_constant, slope_right_constant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCE = "experiments/mechanism/bandit.json"
LANGUAGE_MODEL = "experiments/mechanism/language_model.json"
SQUARES = {"right_score_square": ("|v_R|²", BLUE, SKY), "gap_square": ("|v_R - v_W|²", VERMILION, ORANGE)}
OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD"}
MARKS = "osD^"
COSINES = {
    "right corrected": ("v_R", BLUE),
    "gap corrected": ("v_R - v_W", VERMILION),
    "drift corrected": ("update", GREEN),
}


def draw(results: Mapping[str, Any]) -> tuple[Figure, Columns]:
    """Left: slopes on log(1 - p) in the bandit. Right, where it is stored: cosines with the start in the model."""
    language_model = stored(LANGUAGE_MODEL)
    data: dict[str, np.ndarray] = {}
    with style():
        figure = Figure(figsize=(7.4 if language_model else 3.8, 4.0))
        axes = figure.subplots(1, 2 if language_model else 1, squeeze=False)[0]
        said = _draw_slopes(axes[0], results["runs"], data)
        if language_model:
            said += "\n" + _draw_cosines(axes[1], language_model["summary"], results["runs"], data)
        figure.suptitle(said, fontsize=8)
    return figure, data


def _draw_slopes(axis: Axes, rows: list[dict[str, Any]], data: dict[str, np.ndarray]) -> str:
    cells, optimizers, flips = (labels(rows, name) for name in ("cell", "optimizer", "flips"))
    groups = [(optimizer, cell) for optimizer in optimizers for cell in cells]
    counts = set()
    for number, (optimizer, cell) in enumerate(groups):
        own = [row for row in rows if (row["optimizer"], row["cell"]) == (optimizer, cell)]
        for square, (_, *colours) in SQUARES.items():
            found = [(row["flips"], row["slope_on_log_failure"][square]) for row in own]
            if not found:
                continue
            means, lows, highs = np.array(
                [[each[key] for key in ("mean", "low", "high")] for _, each in found], dtype=float
            ).T
            place = np.array([flips.index(label) for label, _ in found])
            axis.errorbar(
                place + 0.11 * (number - (len(groups) - 1) / 2),
                means,
                (means - lows, highs - means),
                color=colours[optimizers.index(optimizer) % 2],
                marker=MARKS[cells.index(cell) % len(MARKS)],
                ms=4,
                lw=0.9,
                ls="none",
                capsize=1.5,
            )
            counts |= {each["n"] for _, each in found}
            name = f"bandit_{optimizer}_{cell}_{square}"
            data |= {
                f"{name}_flips": np.array([float(label) for label, _ in found]),
                f"{name}_mean": means,
                f"{name}_low": lows,
                f"{name}_high": highs,
            }
    constant_gap, constant_right = float(slope_gap_constant(0.5)), float(slope_right_constant(0.5))
    axis.axhline(constant_gap, color=BLACK, lw=0.8, ls="--")
    axis.axhline(constant_right, color=BLACK, lw=0.8, ls=":")
    for label, *colours in SQUARES.values():
        for optimizer, colour in zip(optimizers, colours, strict=False):
            axis.plot(
                [], [], "s", color=colour, ms=4, label=f"{label}, {OPTIMIZERS.get(optimizer, optimizer)}"
            )
    for cell, mark in zip(cells, MARKS, strict=False):
        axis.plot([], [], mark, mfc="none", color=BLACK, ms=4, label=cell.replace("x", " x "))
    axis.legend(fontsize=7, ncols=2, loc="center")
    axis.set_xticks(range(len(flips)), flips)
    axis.set(xlabel="share of rewards flipped", ylabel="slope of log of the square on log(1 - p)")
    axis.set_title(f"bandit, exact: {len(rows)} cells", fontsize=8)
    return (
        f"left: {how_many(counts, 'replicates')} a cell; slope in theory: dashed, of |v_R|² where the gap is constant "
        f"({constant_gap:g}); dotted, of whichever is constant ({constant_right:g})"
    )


def _draw_cosines(
    axis: Axes, summary: Mapping[str, Any], bandit: list[dict[str, Any]], data: dict[str, np.ndarray]
) -> str:
    counts = set()
    arms = [
        (task, vector)
        for task in summary
        for vector in COSINES
        if vector in summary[task]["cosine_with_start"]
    ]
    tasks = list(dict.fromkeys(task for task, _ in arms))
    for index, (task, vector) in enumerate(arms):
        later = slice(1, None)  # with itself the start has a cosine of 1
        steps = np.array(summary[task]["steps"], dtype=float)[later]
        found = summary[task]["cosine_with_start"][vector][later]
        means, lows, highs = np.array(
            [[each[key] for key in ("mean", "low", "high")] for each in found], dtype=float
        ).T
        axis.errorbar(
            steps + 5 * (index - (len(arms) - 1) / 2),
            means,
            (means - lows, highs - means),
            color=COSINES[vector][1],
            marker=MARKS[tasks.index(task) % len(MARKS)],
            mfc=COSINES[vector][1] if tasks.index(task) == 0 else "white",
            ms=4,
            lw=0.9,
            ls="none",
            capsize=1.5,
        )
        counts |= {each["n"] for each in found}
        name = f"{task}_{vector}".replace(" ", "_")
        data |= {f"{name}_step": steps, f"{name}_mean": means, f"{name}_low": lows, f"{name}_high": highs}
    exact = np.array([[each["mean"] for each in row["right_score_cosine_with_start"]] for row in bandit])
    axis.plot(bandit[0]["steps"], exact.mean(axis=0), color=PINK, lw=1.2)
    data |= {"bandit_step": np.array(bandit[0]["steps"], dtype=float), "bandit_cosine": exact.mean(axis=0)}
    axis.axhline(0, color=BLACK, lw=0.8, ls=":")
    for label, colour in COSINES.values():
        axis.plot([], [], "s", color=colour, ms=4, label=label)
    for place, task in enumerate(tasks):
        look = BLACK if place == 0 else "white"
        axis.plot([], [], MARKS[place % len(MARKS)], mfc=look, mec=BLACK, ms=4, label=task)
    axis.plot([], [], color=PINK, lw=1.2, label="bandit, v_R")
    axis.legend(fontsize=7, ncols=2, loc="upper center")
    axis.set_ylim(axis.get_ylim()[0], 1.5)
    axis.set_yticks([-0.5, 0.0, 0.5, 1.0])
    axis.set_title("language model: direction kept since the start", fontsize=8)
    axis.set(xlabel="step", ylabel="corrected cosine with step 0")
    return (
        f"right: {how_many(counts)}, products of independent batches; dotted: unrelated directions; "
        "95 % intervals throughout"
    )
