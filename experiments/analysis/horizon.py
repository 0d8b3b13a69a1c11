"""Learning rate and horizon: how straight windows from the start of a run are, and from which length on they curve.

    python -m experiments.analysis.horizon runs/horizon/horizon experiments/horizon

Every run is read once; a horizon is a window of it, from the start to one of `ENDS`. Of each window: mean R² of weights
(momentum taken out) and what a driftless walk of as many checkpoints has, the place on the phase diagram with the mean
R² expected there, lag cosine, split half, skill, and the pass rate at its end. Mean R² is stored for every window of
the recorded grid besides, so that learning rates can be compared at equal learning rate x steps. A run whose policy is
destroyed may stand still before its end (no group of rollouts has a signal): windows that end later than that are kept
with the run, and left out of every mean.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.analysis.statistics import Rows, by_seed, cells, interval
from experiments.collect import (
    SHORTEST_WINDOW,
    config_of,
    placement_numbers,
    positions,
    runs_of,
    trained_by,
    training_pass_rate,
)
from lab.files import write_json
from lab.linearity import (
    exact_mean_walk_r_squared,
    forecast_skill,
    lag_cosine,
    r_squared,
    split_half,
    to_json,
)
from lab.linearity.placement import place
from lab.provenance import code_version
from lab.trajectory.series import RunSeries
from lab.trajectory.store import group

Array = NDArray[np.float64]

ENDS = (60, 120, 240, 480, 900)
"""Last step of each window."""
AXIS = "optimizer.learning_rate"
SUMMARISED = (
    "r2_mean",
    "excess",
    "signal_squared",
    "curvature_horizon",
    "expected_excess",
    "lag_cosine",
    "split_half",
    "skill",
    "skill_damped",
    "pass_rate",
    "training_pass_rate",
    "displacement",
)


def window_of(raw: Array, free: Array, steps: Array) -> dict[str, Any]:
    """Return the numbers of one window.

    Args:
        raw: weights, [checkpoint, element].
        free: momentum-free positions, likewise.
        steps: [checkpoint], equally spaced.

    Returns:
        `excess` is the mean R² less a walk's, `expected_excess` the same of what the place expects; `lag_cosine` is of
        displacements of one interval; undefined ones are NaN, the place of a window too short for one is left out.
    """
    r2 = float(np.nanmean(r_squared(free, steps)))
    walk = exact_mean_walk_r_squared(len(steps))
    forecast = forecast_skill(free, steps)
    found: dict[str, Any] = {
        "checkpoints": len(steps),
        "r2_mean": r2,
        "walk": walk,
        "excess": r2 - walk,
        "raw_r2_mean": float(np.nanmean(r_squared(raw, steps))),
        "lag_cosine": float(lag_cosine(free, steps, (1,))[0]),
        "split_half": split_half(free, steps),
        "skill": forecast.skill,
        "skill_damped": forecast.skill_damped,
        "displacement": float(np.sqrt(((raw[-1] - raw[0]) ** 2).sum())),
    }
    placed = place(free, steps)
    if placed is not None:
        found |= {
            **placement_numbers(placed),
            "expected_excess": placed.expected_r_squared - walk,
        }
    return found


def still_since(raw: Array, steps: Array) -> float | None:
    """Return the recorded step from which on no weight moves until the end; None where they move until then."""
    moved = np.flatnonzero((np.diff(raw, axis=0) != 0).any(axis=1))
    last = int(moved[-1]) + 1 if len(moved) else 0
    return None if last == len(steps) - 1 else float(steps[last])


def numbers_of(run: Path) -> dict[str, Any]:
    """Return the numbers of one run and of its windows."""
    series = RunSeries(run)
    raw, free = positions(series)
    steps = series.steps.astype(np.float64)
    held_out = group(series.tree, "evaluation")["pass_rate"].values
    training = training_pass_rate(series)
    windows: dict[str, Any] = {}
    for end in ENDS:
        if end not in steps:
            continue
        stop = int(np.flatnonzero(steps == end)[0]) + 1
        windows[str(end)] = {
            **window_of(raw[:stop], free[:stop], steps[:stop]),
            "pass_rate": held_out[stop - 1],
            "training_pass_rate": np.nan if training is None else training[stop - 2],
        }
    return {
        "steps": steps,
        "pass_rate": held_out,
        "training_pass_rate": training,
        "still_since": still_since(raw, steps),
        "windows": windows,
        "window_r2_mean": [
            float(np.nanmean(r_squared(free[:stop], steps[:stop])))
            for stop in range(SHORTEST_WINDOW, len(steps) + 1)
        ],
    }


def number(row: Mapping[str, Any], end: str, name: str) -> float:
    """Return a number of one window of a run, NaN where it is not defined or the run stood still before its end."""
    value = row["windows"].get(end, {}).get(name)
    return np.nan if value is None or float(end) > moving_until(row) else float(value)


def moving_until(row: Mapping[str, Any]) -> float:
    """Return the recorded step until which a run moved, infinite where it moved to its end."""
    return np.inf if row["still_since"] is None else float(row["still_since"])


def excess_at(row: Mapping[str, Any], path: float) -> float:
    """Return mean R² less a walk's of the window that ends at learning rate x steps = `path`, between recorded ones.

    NaN where the run has no window of that length, or stood still before its end.
    """
    ends = np.asarray(row["steps"][SHORTEST_WINDOW - 1 :], dtype=np.float64) * float(row[AXIS])
    excess = np.asarray(row["window_r2_mean"]) - [
        exact_mean_walk_r_squared(SHORTEST_WINDOW + i) for i in range(len(ends))
    ]
    close = 1e-9 * path
    last = min(ends[-1], moving_until(row) * float(row[AXIS]))
    if not ends[0] - close <= path <= last + close:
        return np.nan
    return float(np.interp(path, ends, excess))


def summarise(rows: Rows) -> list[dict[str, Any]]:
    """Return one row for each learning rate and window, with t intervals over seeds.

    `longer` is the excess of the window less that of the window before it, `faster` that of this learning rate less
    that of the smallest one at the same window, both paired by seed; `curved` counts runs whose interval of curvature x
    horizon leaves 0 out, of `placed` ones; `still` those that are left out, see the module.
    """
    by_rate = {rate: by_seed(members) for (rate,), members in cells(rows, (AXIS,)).items()}
    slowest = by_rate[min(by_rate, key=float)]
    found = []
    for rate, members in by_rate.items():
        ends = [str(end) for end in ENDS if any(str(end) in row["windows"] for row in members.values())]
        for place_, end in enumerate(ends):
            before = ends[place_ - 1] if place_ else None
            lows = [
                row["windows"][end]["curvature_interval"][0]
                for row in members.values()
                if "curvature_interval" in row["windows"].get(end, {}) and moving_until(row) >= float(end)
            ]
            found.append(
                {
                    AXIS: rate,
                    "end": int(end),
                    "learning_rate_x_steps": float(rate) * int(end),
                    **{
                        name: interval(number(row, end, name) for row in members.values())
                        for name in SUMMARISED
                    },
                    "longer": None
                    if before is None
                    else interval(
                        number(row, end, "excess") - number(row, before, "excess") for row in members.values()
                    ),
                    "faster": None
                    if members is slowest
                    else interval(
                        number(members[seed], end, "excess") - number(slowest[seed], end, "excess")
                        for seed in sorted(members.keys() & slowest.keys())
                    ),
                    "curved": sum(low > 0 for low in lows),
                    "placed": len(lows),
                    "still": sum(moving_until(row) < float(end) for row in members.values()),
                }
            )
    return found


def at_equal_path(rows: Rows) -> list[dict[str, Any]]:
    """Return, at the whole path of each learning rate, the excess of every learning rate that has such a window.

    `difference` is that of a learning rate less that of the one whose whole path it is, paired by seed.
    """
    by_rate = {rate: by_seed(members) for (rate,), members in cells(rows, (AXIS,)).items()}
    found = []
    for rate, members in by_rate.items():
        path = float(rate) * max(row["steps"][-1] for row in members.values())
        for other, others in by_rate.items():
            seeds = sorted(members.keys() & others.keys())
            excess = {seed: excess_at(others[seed], path) for seed in seeds}
            if np.isfinite(list(excess.values())).any():
                found.append(
                    {
                        "learning_rate_x_steps": path,
                        AXIS: other,
                        "steps": path / float(other),
                        "excess": interval(excess.values()),
                        "difference": None
                        if other == rate
                        else interval(excess[seed] - excess_at(members[seed], path) for seed in seeds),
                    }
                )
    return found


def analyse(study: Path) -> dict[str, Any]:
    """Return all rows of a study, their summary, and what it takes to repeat it."""
    found = [(axes, run) for axes, run in runs_of(study)]
    rows = [to_json({**axes, **numbers_of(run)}) for axes, run in found]
    config = config_of(found[0][1])
    del config["optimizer"]["learning_rate"]  # the axis
    return {
        "study": study.name,
        "command": f"lab sweep experiment={study.parent.name}",
        "trained_by": trained_by(study),
        "collected_by": code_version(),
        "seeds": sorted({int(row["seed"]) for row in rows}),
        "config": {
            name: config[name]
            for name in ("steps", "task", "objective", "optimizer", "recorder", "evaluation")
        },
        "ends": ENDS,
        "window_ends": rows[0]["steps"][SHORTEST_WINDOW - 1 :],
        "window_walks": [
            exact_mean_walk_r_squared(n) for n in range(SHORTEST_WINDOW, len(rows[0]["steps"]) + 1)
        ],
        "summary": summarise(rows),
        "equal_path": at_equal_path(rows),
        "runs": rows,
    }


def _said(found: Mapping[str, Any] | None, digits: int = 3) -> str:
    if found is None or not found["n"]:
        return "-"
    if found["n"] < 2:
        return f"{found['mean']:+.{digits}f} (one run)"
    half = (found["high"] - found["low"]) / 2
    return f"{found['mean']:+.{digits}f} ± {half:.{digits}f}"


def print_table(summary: Sequence[Mapping[str, Any]], equal: Sequence[Mapping[str, Any]]) -> None:
    """Print what the findings quote."""
    for row in summary:
        print(
            f"{row[AXIS]:>7s} to {row['end']:3d}: R² - walk {_said(row['excess'])}, "
            f"expected {_said(row['expected_excess'])}, "
            f"longer {_said(row['longer'])}, faster {_said(row['faster'])}, "
            f"S² {_said(row['signal_squared'], 1)}, curvature x horizon {_said(row['curvature_horizon'], 2)} "
            f"(above 0: {row['curved']} of {row['placed']}), damped skill {_said(row['skill_damped'])}, "
            f"pass rate {_said(row['training_pass_rate'])}"
        )
    for row in equal:
        print(
            f"at learning rate x steps {row['learning_rate_x_steps']:.3f}: {row[AXIS]:>7s} to {row['steps']:.0f}: "
            f"{_said(row['excess'])}, difference {_said(row['difference'])}"
        )


def main(study: str, directory: str) -> None:
    """Write `results.json` into `directory`, and print a table."""
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    found = to_json(analyse(Path(study)))
    write_json(target / "results.json", found)
    print_table(found["summary"], found["equal_path"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
