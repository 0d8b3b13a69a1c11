"""Reads the runs of a study of re-grounding: what each arm costs until the target, beside plain training.

    python -m experiments.regrounding_study.analyse runs/q6_confirmation/q6_confirmation experiments/q6_confirmation

All arms are evaluated on one grid. Cost is in steps of training and in sampled tokens, what an arm's own reward checks
sampled included; a run that has not arrived by the horizon is censored there and counts as the horizon. Arms
are compared run by run: the logarithm of the ratio of costs, averaged over tasks within a seed, with a t interval
over seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import lab
from experiments.collect import runs_of, trained_by
from lab.cell_summary import mean_interval
from lab.errors import BadInput
from lab.files import write_json
from lab.provenance import code_version
from lab.time_to_target import time_to_target, total_cost

TARGETS = {"addition": 0.42, "maximum": 0.75, "maximum of three": 0.15}
"""Pass rate to be reached, by task."""
ROLLOUTS_PER_STEP = 128
SEVERAL = 3
"""Means of at least so many seeds get an interval."""


def costs_of(run: Path) -> dict[str, np.ndarray]:
    """Return step, pass rate, and cost in steps and in tokens, at each evaluation of a run, [evaluation] each."""
    tree = lab.open(run)
    evaluation, metrics = tree["evaluation"], tree["metrics"]
    steps = evaluation["step"].values
    at = np.searchsorted(metrics["step"].values, steps, side="right")

    def until(name: str) -> np.ndarray:
        """Return the sum of a metric up to each evaluation."""
        if name not in metrics:
            return np.zeros(len(steps))
        return np.concatenate([[0.0], np.nancumsum(metrics[name].values)])[at]

    rollouts, tokens = until("regrounding__check_rollouts"), until("regrounding__check_tokens")
    return {
        "evaluated_at": steps,
        "pass_rate": evaluation["pass_rate"].values,
        "steps": total_cost(steps, np.diff(rollouts, prepend=0.0) / ROLLOUTS_PER_STEP),
        "tokens": total_cost(until("num_tokens"), np.diff(tokens, prepend=0.0)),
    }


def collect(study: Path) -> list[dict[str, Any]]:
    """Return a row for each finished run: task, arm, seed, what it cost to arrive, and where it ended."""
    rows = []
    for axes, run in runs_of(study):
        found = costs_of(run)
        row: dict[str, Any] = {"task": axes["task"], "arm": axes["arm"], "seed": int(axes["seed"])}
        for unit in ("steps", "tokens"):
            times = time_to_target(found[unit], found["pass_rate"][None], TARGETS[axes["task"]])
            row[unit] = float(times.times[0])
            row["reached"] = bool(times.reached[0])
            row[f"{unit}_in_all"] = float(found[unit][-1])
        row["evaluated_at"] = [int(step) for step in found["evaluated_at"]]
        row["steps_spent"] = [round(float(cost), 2) for cost in found["steps"]]
        row["pass_rate"] = [round(float(value), 4) for value in found["pass_rate"]]
        rows.append(row)
    return rows


def capped(row: dict[str, Any], unit: str, horizons: dict[str, float]) -> float:
    """Return what a run cost to arrive; the task's horizon where it did not, or later."""
    horizon = horizons[row["task"]]
    return min(row[unit], horizon) if row["reached"] else horizon


def log_ratios(
    rows: list[dict[str, Any]], arm: str, baseline: str, unit: str, tasks: list[str]
) -> np.ndarray:
    """Return log(cost of the baseline / cost of the arm) of each seed, averaged over tasks, float64 [seed].

    The horizon of a task is the least that any run of the two arms was trained for, so every cost up to it is known.
    """
    pair = [row for row in rows if row["arm"] in (arm, baseline)]
    horizons = {task: min(row[f"{unit}_in_all"] for row in pair if row["task"] == task) for task in tasks}
    cost = {
        (row["task"], row["arm"], row["seed"]): capped(row, unit, horizons)
        for row in pair
        if row["task"] in tasks
    }
    seeds = sorted(
        seed
        for seed in {row["seed"] for row in pair}
        if all((task, which, seed) in cost for task in tasks for which in (arm, baseline))
    )
    return np.array(
        [
            np.mean([np.log(cost[task, baseline, seed] / cost[task, arm, seed]) for task in tasks])
            for seed in seeds
        ]
    )


def ratio(logs: np.ndarray, level: float = 0.95) -> dict[str, Any]:
    """Return the geometric mean ratio with its t interval over seeds; above 1 the arm arrives sooner."""
    mean = float(np.mean(logs))
    found: dict[str, Any] = {"ratio": float(np.exp(mean)), "seeds": len(logs), "low": None, "high": None}
    if len(logs) >= SEVERAL:
        _, low, high = mean_interval(logs, level)
        found |= {"low": float(np.exp(low)), "high": float(np.exp(high))}
    return found


def analyse(rows: list[dict[str, Any]], baseline: str) -> dict[str, Any]:
    """Return every arm against the baseline, by task and over all tasks.

    Raises:
        BadInput: no run of the baseline is there.
    """
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    if baseline not in arms:
        raise BadInput(f"baseline: no finished run of {baseline!r}; there are {', '.join(map(repr, arms))}")
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    found: dict[str, Any] = {}
    for arm in arms:
        own = [row for row in rows if row["arm"] == arm]
        done = [task for task in tasks if any(row["task"] == task for row in own)]
        found[arm] = {
            "reached": {
                task: f"{sum(row['reached'] for row in own if row['task'] == task)} of "
                f"{sum(row['task'] == task for row in own)}"
                for task in done
            },
            "pass_rate_end": {
                task: float(np.mean([row["pass_rate"][-1] for row in own if row["task"] == task]))
                for task in done
            },
        }
        for unit in ("steps", "tokens"):
            logs = {task: log_ratios(rows, arm, baseline, unit, [task]) for task in done}
            found[arm][f"speedup_{unit}"] = {task: ratio(each) for task, each in logs.items() if len(each)}
            whole = log_ratios(rows, arm, baseline, unit, tasks) if len(done) == len(tasks) else np.zeros(0)
            if len(whole):
                found[arm][f"speedup_{unit}"]["all tasks"] = ratio(whole)
    return found


def contrasts(rows: list[dict[str, Any]], pairs: list[list[str]]) -> list[dict[str, Any]]:
    """Return, of each pair (arm, other), how much sooner the arm arrives than the other; see `analyse`."""
    return [
        {
            "arm": arm,
            "over": other,
            **{
                key: value
                for key, value in analyse([row for row in rows if row["arm"] in (arm, other)], other)[
                    arm
                ].items()
                if key.startswith("speedup")
            },
        }
        for arm, other in pairs
    ]


def curves(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return, by task and arm, the mean pass rate at each evaluation with its t interval over seeds.

    `evaluated_at` is in steps of training, `steps_spent` in steps with what checks cost, mean over seeds; `low` and
    `high` are None with fewer than `SEVERAL` seeds.

    Raises:
        BadInput: two runs of one arm and task were evaluated at different steps.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task, arm in dict.fromkeys((row["task"], row["arm"]) for row in rows):
        own = [row for row in rows if (row["task"], row["arm"]) == (task, arm)]
        grid = own[0]["evaluated_at"]
        if any(row["evaluated_at"] != grid for row in own):
            raise BadInput(f"{task}, {arm}: runs were evaluated at different steps")
        rates = np.array([row["pass_rate"] for row in own])
        means, lows, highs = np.array([mean_interval(column) for column in rates.T]).T
        several = len(own) >= SEVERAL
        found.setdefault(task, {})[arm] = {
            "evaluated_at": grid,
            "steps_spent": np.mean([row["steps_spent"] for row in own], axis=0).round(2).tolist(),
            "mean": means.round(4).tolist(),
            "low": lows.round(4).tolist() if several else None,
            "high": highs.round(4).tolist() if several else None,
            "seeds": len(own),
        }
    return found


def main() -> None:
    """Analyse, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--baseline", default="plain 2e-4")
    parser.add_argument("--contrast", nargs=2, action="append", default=[], metavar=("ARM", "OVER"))
    arguments = parser.parse_args()
    rows = collect(arguments.study)
    arms = analyse(rows, arguments.baseline)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    write_json(
        arguments.directory / "results.json",
        {
            "command": f"lab sweep experiment={arguments.study.parent.name}",
            "targets": TARGETS,
            "baseline": arguments.baseline,
            "trained_by": trained_by(arguments.study),
            "collected_by": code_version(),
            "arms": arms,
            "contrasts": contrasts(rows, arguments.contrast),
            "curves": curves(rows),
            "runs": rows,
        },
    )
    for arm, numbers in arms.items():
        whole = numbers["speedup_steps"].get("all tasks")
        if whole is not None:
            interval = "" if whole["low"] is None else f" [{whole['low']:.2f}, {whole['high']:.2f}]"
            print(f"{whole['ratio']:.2f}{interval}  {arm}  reached {', '.join(numbers['reached'].values())}")


if __name__ == "__main__":
    main()
