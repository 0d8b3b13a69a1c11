"""Learning rate and horizon: straightness of windows from the start of a run, in steps and in learning rate x steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, VERMILION, Columns, style
from paper_figs.statistics import by_seed, how_many, labels, mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCE = "experiments/horizon/results.json"
AXIS = "optimizer.learning_rate"
COLOURS = (BLUE, GREEN, ORANGE, VERMILION, PINK, SKY)
MARKS = ("o", "s", "^", "D", "v", "P")
APART = 1.05
"""Factor between the marks of neighbouring learning rates, which would otherwise hide each other."""
LOST = 0.1
"""A learning rate whose mean pass rate at the end lies below has destroyed its policy."""

Rows = Sequence[Mapping[str, Any]]


def draw(results: Mapping[str, Any]) -> tuple[Figure, Columns]:
    """Mean R² less a walk's against the window and against learning rate x steps; below, curvature and damped skill."""
    rows = results["runs"]
    ends = [int(end) for end in results["ends"]]
    rates = sorted(labels(rows, AXIS), key=float)
    data: dict[str, np.ndarray] = {}
    counts: set[int] = set()
    with style():
        figure = Figure(figsize=(7.4, 5.8))
        (windows, paths), (bends, skills) = figure.subplots(2, 2)
        paths.sharey(windows)
        for index, rate in enumerate(rates):
            colour, mark = COLOURS[index % len(COLOURS)], MARKS[index % len(MARKS)]
            own = [row for row in rows if row[AXIS] == rate]
            lost = np.mean([row["pass_rate"][-1] for row in own]) < LOST
            dash = ":" if lost else "-"
            beside = APART ** (index - (len(rates) - 1) / 2)
            label = f"{_said(rate)} (policy destroyed)" if lost else _said(rate)
            columns = {
                name: _column(own, ends, name)
                for name in ("excess", "expected_excess", "curvature_horizon", "skill_damped")
            }
            counts |= {int(n) for n in columns["excess"][:, 3]}
            for axis, name in ((windows, "excess"), (bends, "curvature_horizon"), (skills, "skill_damped")):
                _bars(axis, columns[name], beside, colour=colour, mark=mark, dash=dash, label=label)
            hollow = {"marker": mark, "ls": "", "mfc": "white", "mec": colour, "ms": 5.5}
            expected = columns["expected_excess"]
            windows.plot(expected[:, 0] * beside * 1.02, expected[:, 1], **hollow, zorder=1)

            whole = _everywhere(own, results)
            paths.plot(whole[:, 0] * float(rate), whole[:, 1], color=colour, lw=1.2, ls=dash)
            marked = columns["excess"]
            _bars(paths, marked, float(rate), colour=colour, mark=mark, dash="")
            for name, found in {**columns, "every_window": whole}.items():
                parts = ("end", "mean", "half_width", "runs")[: found.shape[1]]
                data |= {f"{rate}_{name}_{part}": found[:, i] for i, part in enumerate(parts)}
        windows.plot(
            [], [], marker="o", ls="", mfc="white", mec=BLACK, ms=5.5, label="expected from S² and curvature"
        )
        for axis in (windows, paths, bends, skills):
            axis.axhline(0, color=BLACK, lw=0.8, ls="--")
        for axis in (windows, bends, skills):
            axis.set_xscale("log")
            axis.set_xticks(ends, [str(end) for end in ends])
            axis.set_xticks([], minor=True)
            axis.set_xlim(ends[0] / 1.25, ends[-1] * 1.25)
            axis.set_xlabel("window: from the start to step")
        paths.set_xscale("log")
        paths.set_xlabel("learning rate x steps")
        windows.set_ylabel("mean R² minus a walk's")
        paths.set_ylabel("mean R² minus a walk's")
        bends.set_ylabel("fitted curvature x horizon")
        skills.set_ylabel("damped skill")
        handles, names = windows.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=7.5)
        figure.suptitle(
            f"GRPO on the built-in model, AdamW, by learning rate; {how_many(counts)} a point, 95 % intervals.\n"
            "Dashed: a walk of as many checkpoints, no curvature, standing still; "
            "windows of runs that stand still are left out",
            fontsize=8,
        )
    return figure, data


def _column(rows: Rows, ends: Sequence[int], name: str) -> np.ndarray:
    """End, mean, half-width and number of runs, [window, 4], of windows in which at least one run has a number."""
    found = []
    for end in ends:
        values = list(by_seed(_moving(rows, end), ("windows", str(end), name)).values())
        if values:
            found.append((end, *mean_interval(values), len(values)))
    return np.array(found, dtype=np.float64).reshape(-1, 4)


def _moving(rows: Rows, end: float) -> list[Mapping[str, Any]]:
    """Rows of runs that do not stand still before a step."""
    return [row for row in rows if row["still_since"] is None or row["still_since"] >= end]


def _everywhere(rows: Rows, results: Mapping[str, Any]) -> np.ndarray:
    """End and mean over seeds of R² less a walk's, [window, 2], of every recorded window in which all runs move."""
    walks = dict(zip(results["window_ends"], results["window_walks"], strict=True))
    ends = [end for end in walks if len(_moving(rows, end)) == len(rows)]
    means = np.mean([row["window_r2_mean"][: len(ends)] for row in rows], axis=0)
    return np.column_stack([ends, means - [walks[end] for end in ends]])


def _bars(
    axis: Axes,
    found: np.ndarray,
    beside: float,
    *,
    colour: str,
    mark: str,
    dash: str,
    label: str | None = None,
) -> None:
    axis.errorbar(
        found[:, 0] * beside,
        found[:, 1],
        np.nan_to_num(found[:, 2]),
        color=colour,
        marker=mark,
        ms=3.5,
        lw=1.0,
        ls=dash,
        capsize=1.5,
        label=label,
    )


def _said(rate: str) -> str:
    return f"{float(rate):.0e}".replace("e-0", "e-")
