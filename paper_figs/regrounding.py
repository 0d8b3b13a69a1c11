"""Q6: what schedules of re-grounding and their baselines cost until the target, and where they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from lab.figures.style import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, VERMILION, YELLOW, Columns, style
from paper_figs.statistics import by_seed, how_many, labels, mean_interval, paired_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCE = "experiments/q6_confirmation/results.json"
FAMILIES = {
    "plain": BLACK,
    "lookahead": ORANGE,
    "nesterov": GREEN,
    "average": PINK,
    "adam": "0.55",
    "first": YELLOW,
    "fixed": VERMILION,
    "adaptive": BLUE,
}
"""Colour of an arm's curve, by the first word of its name."""
DASHES = ("-", "--", ":", "-.")
"""Of the arms of one family, in order."""
BANDED = "adaptive"
"""The family whose curves show their intervals, beside the baseline."""
SEVERAL = 3
"""Means of at least so many seeds get an interval."""
TASKS = ((SKY, "o"), (VERMILION, "s"), (GREEN, "^"), (PINK, "D"))
ALL = "all tasks"
SCALE = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
"""Ticks of speed that may be shown."""

Rows = Sequence[Mapping[str, Any]]


def draw(results: Mapping[str, Any]) -> tuple[Figure, Columns]:
    """By arm: speed over the baseline, runs that arrived, pass rate at the end; below, curves of pass rate by task."""
    rows, baseline = results["runs"], results["baseline"]
    tasks = labels(rows, "task")
    arms = [baseline, *(arm for arm in labels(rows, "arm") if arm != baseline)]
    curves = results.get("curves") or {}
    data: dict[str, np.ndarray] = {}
    with style():
        height = 1.5 + 0.23 * len(arms)
        figure = Figure(figsize=(7.4, height + (2.9 if curves else 0.0)))
        above: Any = figure.subfigures(2, 1, height_ratios=[height, 2.9]) if curves else [figure, None]
        speeds, shares, rates = above[0].subplots(1, 3, sharey=True, width_ratios=[1.6, 1.0, 1.2])
        _draw_speeds(speeds, results["arms"], rows, arms, baseline, tasks, data)
        _draw_shares(shares, rows, arms, results["targets"], data)
        _draw_ends(rates, rows, arms, baseline, tasks, data)
        speeds.set_yticks(range(len(arms)), arms, fontsize=7.5)
        speeds.set_ylim(len(arms) - 0.5, -0.5)
        handles, names = speeds.get_legend_handles_labels()
        above[0].legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=7)
        seeds = how_many(
            len({row["seed"] for row in rows if (row["arm"], row["task"]) == (arm, task)})
            for arm in arms
            for task in tasks
        )
        figure.suptitle(
            f"GRPO on the built-in model, {seeds} an arm and task; 95 % intervals from {SEVERAL} seeds on.\n"
            "Hollow: runs that had not arrived count as the horizon (beside all tasks: how many, of both arms);\n"
            "an arrow: which way a task's ratio would move if they were followed further, two: either way",
            fontsize=8,
        )
        if curves:
            _draw_curves(above[1], curves, arms, baseline, tasks, results["targets"], data)
    return figure, data


def censored(rows: Rows, arm: str, baseline: str, task: str) -> tuple[int, int]:
    """Return how many runs of an arm and of the baseline had not arrived by the horizon that they share.

    That is the least that any run of the two was trained for, checks included.
    """
    pair = [row for row in rows if row["task"] == task and row["arm"] in (arm, baseline)]
    horizon = min(row["steps_in_all"] for row in pair)
    late = [row["arm"] for row in pair if not row["reached"] or row["steps"] > horizon]
    return late.count(arm), late.count(baseline)


def _draw_speeds(
    axis: Axes,
    found: Mapping[str, Any],
    rows: Rows,
    arms: Sequence[str],
    baseline: str,
    tasks: Sequence[str],
    data: dict[str, np.ndarray],
) -> None:
    marked = {ALL: (BLACK, "D", 0.0)} | {
        task: (*TASKS[index % len(TASKS)], 0.16 + 0.16 * index) for index, task in enumerate(tasks)
    }
    for name, (colour, mark, below) in marked.items():
        ratios = [found[arm]["speedup_steps"].get(name) for arm in arms]
        there = [place for place, each in enumerate(ratios) if each is not None]
        values = np.array(
            [[_number(ratios[place][key]) for key in ("ratio", "low", "high")] for place in there]
        )
        late = np.zeros((len(arms), 2), dtype=int)
        for place in there:
            if arms[place] != baseline:
                each = [
                    censored(rows, arms[place], baseline, task)
                    for task in (tasks if name == ALL else (name,))
                ]
                late[place] = np.sum(each, axis=0)
        for place, (ratio, low, high) in zip(there, values, strict=True):
            y = place - 0.22 + below
            if name == ALL and np.isfinite(low):
                axis.plot([low, high], [y, y], color=colour, lw=1.3)
            axis.plot(
                [ratio],
                [y],
                marker=mark,
                color=colour,
                ms=5 if name == ALL else 3.8,
                mfc="white" if late[place].any() else colour,
                label=name if place == there[0] else None,
                ls="",
            )
            if name == ALL and late[place].any():
                axis.annotate(
                    f"{late[place].sum()}",
                    (max(ratio, _or(high, ratio)), y),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=6,
                )
            for count, factor in zip(late[place], (0.955, 1 / 0.955), strict=True):
                if count and name != ALL:  # of slower ones at most this, of a slower baseline at least
                    axis.annotate(
                        "",
                        xy=(ratio * factor**1.6, y),
                        xytext=(ratio, y),
                        arrowprops={
                            "arrowstyle": "->",
                            "lw": 0.7,
                            "color": colour,
                            "shrinkA": 2.5,
                            "shrinkB": 0,
                        },
                    )
        data |= {f"{name}_speed_arm": np.array(there, dtype=float)} | {
            f"{name}_speed_{part}": values[:, index] for index, part in enumerate(("ratio", "low", "high"))
        }
        data |= {
            f"{name}_late_arm": late[there, 0].astype(float),
            f"{name}_late_baseline": late[there, 1].astype(float),
        }
    axis.axvline(1, color=BLACK, lw=0.8, ls=":")
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    axis.xaxis.set_major_locator(FixedLocator(_spread([tick for tick in SCALE if low <= tick <= high])))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xticks([], minor=True)
    axis.set_xlabel(f"speed to the target over {baseline}")


def _draw_shares(
    axis: Axes, rows: Rows, arms: Sequence[str], targets: Mapping[str, float], data: dict[str, np.ndarray]
) -> None:
    tasks = labels(rows, "task")
    arrived = np.full((len(arms), len(tasks)), np.nan)
    for column, task in enumerate(tasks):
        for place, arm in enumerate(arms):
            own = [row["reached"] for row in rows if (row["arm"], row["task"]) == (arm, task)]
            if own:
                arrived[place, column] = np.mean(own)
                axis.text(column, place, f"{sum(own)} of {len(own)}", ha="center", va="center", fontsize=6.5)
        data[f"{task}_share_arrived"] = arrived[:, column]
    axis.imshow(arrived, cmap="Greens", vmin=0, vmax=1.8, aspect="auto")
    names = [f"{task.replace(' of ', chr(10) + 'of ')}\n≥ {targets[task]:g}" for task in tasks]
    axis.set_xticks(range(len(tasks)), names, fontsize=6)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xlabel("runs that arrived")


def _draw_ends(
    axis: Axes,
    rows: Rows,
    arms: Sequence[str],
    baseline: str,
    tasks: Sequence[str],
    data: dict[str, np.ndarray],
) -> None:
    for index, task in enumerate(tasks):
        colour, mark = TASKS[index % len(TASKS)]
        ends = {
            arm: by_seed([{**row, "end": row["pass_rate"][-1]} for row in rows], "end", task=task, arm=arm)
            for arm in arms
        }
        found = np.array(
            [
                (
                    place,
                    *paired_difference(ends[baseline], ends[arm])[:2],
                    mean_interval(list(ends[arm].values()))[0],
                    len(ends[arm].keys() & ends[baseline].keys()),
                )
                for place, arm in enumerate(arms)
                if ends[arm] and ends[baseline]
            ]
        ).reshape(-1, 5)
        others = found[found[:, 0] > 0]
        axis.errorbar(
            others[:, 1],
            others[:, 0] - 0.18 + 0.18 * index,
            xerr=np.where(others[:, 4] >= SEVERAL, others[:, 2], 0.0),
            color=colour,
            marker=mark,
            ms=3.5,
            lw=1.0,
            ls="",
            capsize=1.5,
        )
        data |= {
            f"{task}_end_{part}": found[:, column]
            for column, part in enumerate(("arm", "difference", "half_width", "pass_rate", "seeds"))
        }
    axis.axvline(0, color=BLACK, lw=0.8, ls=":")
    axis.set_xlabel(f"pass rate at the end\nminus that of {baseline}")


def _draw_curves(
    figure: Any,
    curves: Mapping[str, Any],
    arms: Sequence[str],
    baseline: str,
    tasks: Sequence[str],
    targets: Mapping[str, float],
    data: dict[str, np.ndarray],
) -> None:
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    seen: dict[str, int] = {}
    looks = {}
    for arm in arms:
        family = arm.split()[0]
        seen[family] = seen.get(family, -1) + 1
        looks[arm] = FAMILIES.get(family, "0.4"), DASHES[seen[family] % len(DASHES)]
    handles = {}
    for axis, task in zip(axes, tasks, strict=True):
        for arm, (colour, dash) in looks.items():
            found = curves[task].get(arm)
            if found is None:
                continue
            spent, means = np.array(found["steps_spent"]), np.array(found["mean"])
            strong = arm == baseline or arm.startswith(BANDED)
            (handles[arm],) = axis.plot(
                spent, means, color=colour, ls=dash, lw=1.6 if strong else 1.0, zorder=3 if strong else 2
            )
            if strong and found["low"] is not None:
                axis.fill_between(spent, found["low"], found["high"], color=colour, alpha=0.15, lw=0)
            data |= {f"{task}_{arm}_steps".replace(",", ";"): spent}
            data |= {
                f"{task}_{arm}_{part}".replace(",", ";"): np.array(found[part])
                for part in ("mean", "low", "high")
                if found[part] is not None
            }
        axis.axhline(targets[task], color=BLACK, lw=0.8, ls=":")
        axis.set_title(f"{task}: target {targets[task]:g}", fontsize=8)
        axis.set_xlabel("steps, checks included")
    axes[0].set_ylabel("held-out pass rate")
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=5, fontsize=6.5)


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


def _or(value: float, other: float) -> float:
    return value if np.isfinite(value) else other


def _spread(ticks: Sequence[float], least: float = 1.08) -> list[float]:
    """Leave out ticks that would stand too near to the one before, 1 never."""
    chosen: list[float] = []
    for tick in ticks:
        if chosen and tick == 1.0 and tick / chosen[-1] < least:
            chosen.pop()
        if not chosen or tick / chosen[-1] >= least:
            chosen.append(tick)
    return chosen
