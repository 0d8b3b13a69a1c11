"""Mean scores along runs of a language model: what drives RL, and whether v_R or v_R - v_W is the more constant.

    python -m experiments.mechanism.language_model runs/q5_runs/q5_runs experiments/mechanism --axis task \\
        --labels addition maximum

At every chosen checkpoint of every run two independent batches are drawn (prompts, rollouts), so that squares and
cosines are free of noise in expectation; the uncorrected ones stand beside them. What is done is stored run by run; the
command given again goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from experiments.analysis.statistics import interval, jackknife
from experiments.collect import config_of, runs_of
from experiments.mechanism.estimates import (
    Halves,
    common_slope,
    cosine,
    power_slope,
    product,
    products_between,
    squares,
)
from lab.draw import Draw
from lab.errors import BadInput
from lab.files import read_json, write_json
from lab.linearity import to_json
from lab.provenance import code_version

PAIRS = (("right", "gap"), ("drift", "gap"), ("drift", "right"))
KINDS = ("corrected", "uncorrected")
FITTED = ("right", "gap")
FOLLOWED = ("right", "gap", "drift")
_SEED = "mechanism"
"""Leads the roles of the batches, so that they are not those of training."""


def checkpoints_of(run: Path, every: int) -> list[int]:
    """Return the steps of a run's full checkpoints that are multiples of `every`.

    Raises:
        BadInput: fewer than three.
    """
    steps = sorted(int(path.name.removeprefix("checkpoint-")) for path in run.glob("checkpoint-*"))
    chosen = [step for step in steps if step % every == 0]
    if len(chosen) < 3:
        raise BadInput(
            f"{run}: {len(chosen)} checkpoints at multiples of {every}; train with recorder.checkpoint_every"
        )
    return chosen


def along(run: Path, steps: list[int], rollouts: int) -> list[dict[str, Any]]:
    """Return, for each checkpoint of a run, its pass rate, and squares and products of its mean scores."""
    from experiments.mechanism.scores import Source, mean_scores
    from lab.objectives.settings import RLVRSettings
    from lab.policies import load_policy
    from lab.policies.settings import HuggingFaceSettings
    from lab.training import build_train_settings

    settings = build_train_settings(config_of(run))
    if (
        not isinstance(settings.objective, RLVRSettings)
        or settings.generation is None
        or settings.task is None
    ):
        raise BadInput(
            f"{run}: its objective is {settings.objective.name}, and mean scores are those of rlvr"
        )
    source = Source(settings.task, settings.objective, settings.generation, rollouts)
    draw = Draw(settings.seed)
    found: list[dict[str, Any]] = []
    start: Halves | None = None
    previous: Halves | None = None
    for step in steps:
        where = HuggingFaceSettings("hf", str(run / f"checkpoint-{step}"), "float32", False, False)
        policy = load_policy(where, settings.seed)
        both = [mean_scores(policy, source, draw, step, f"{_SEED} {half} ") for half in ("first", "second")]
        halves = (both[0].vectors, both[1].vectors)
        start, previous = start or halves, previous or halves
        mixed, mixed_start = _mixed(halves), _mixed(start)
        found.append(
            {
                "step": step,
                "pass_rate": (both[0].pass_rate + both[1].pass_rate) / 2,
                "squares": squares(halves),
                "products": {f"{one} {other}": product(halves, one, other) for one, other in PAIRS},
                "uncorrected_products": {
                    f"{one} {other}": float(mixed[one] @ mixed[other]) for one, other in PAIRS
                },
                "with_start": products_between(halves, start),
                "uncorrected_with_start": {name: float(mixed[name] @ mixed_start[name]) for name in mixed},
                "with_previous": products_between(halves, previous),
            }
        )
        previous = halves
    return found


def _mixed(halves: Halves) -> dict[str, np.ndarray]:
    return {name: (halves[0][name] + halves[1][name]) / 2 for name in halves[0]}


def summarise(runs: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Return slopes with intervals over runs, and cosines at each checkpoint, of runs with the same checkpoints."""
    failure = [[1 - moment["pass_rate"] for moment in run] for run in runs]
    slopes: dict[str, Any] = {}
    each: dict[tuple[str, str], np.ndarray] = {}
    for name in FITTED:
        for kind in KINDS:
            values = [[moment["squares"][name][kind] for moment in run] for run in runs]
            own = [power_slope(x, y) for x, y in zip(failure, values, strict=True)]
            each[name, kind] = np.array(own)
            without = [
                common_slope(failure[:i] + failure[i + 1 :], values[:i] + values[i + 1 :])
                for i in range(len(runs))
            ]
            slopes[f"{name} {kind}"] = {
                "of_runs": own,
                "over_runs": interval(own),
                "pooled": jackknife(without, common_slope(failure, values)),
            }
    steps = [moment["step"] for moment in runs[0]]
    return {
        "runs": len(runs),
        "pass_rate": [interval(run[i]["pass_rate"] for run in runs) for i in range(len(steps))],
        "steps": steps,
        "slope_on_log_failure": slopes,
        "size_of_slope_right_minus_gap": {
            kind: interval(np.abs(each["right", kind]) - np.abs(each["gap", kind])) for kind in KINDS
        },
        "squares": {
            f"{name} {kind}": [
                interval(run[i]["squares"][name][kind] for run in runs) for i in range(len(steps))
            ]
            for name in runs[0][0]["squares"]
            for kind in KINDS
        },
        "mean_score_share": [_pooled_ratio(runs, i, "mean", "right") for i in range(len(steps))],
        "cosine": {
            f"{one} {other} {kind}": [
                _pooled_cosine(runs, i, f"{one} {other}", one, other, kind) for i in range(len(steps))
            ]
            for one, other in PAIRS
            for kind in KINDS
        },
        "cosine_with_start": {
            f"{name} {kind}": [_cosine_with_start(runs, i, name, kind) for i in range(len(steps))]
            for name in FOLLOWED
            for kind in KINDS
        },
        "cosine_with_previous": {
            name: [_cosine_with_previous(runs, i, name) for i in range(1, len(steps))] for name in FOLLOWED
        },
    }


def _pooled_cosine(
    runs: list[list[dict[str, Any]]], now: int, key: str, one: str, other: str, kind: str = "corrected"
) -> dict[str, float]:
    """Return the cosine of two vectors at one checkpoint, of sums over runs, leaving out one run for the interval."""
    where = "products" if kind == "corrected" else "uncorrected_products"
    return _of_sums(
        [
            (
                run[now][where][key],
                run[now]["squares"][one][kind],
                run[now]["squares"][other][kind],
            )
            for run in runs
        ]
    )


def _cosine_with_start(runs: list[list[dict[str, Any]]], now: int, name: str, kind: str) -> dict[str, float]:
    """Return the cosine of a vector with itself at the first checkpoint, likewise; 1 at the first."""
    where = "with_start" if kind == "corrected" else "uncorrected_with_start"
    return _of_sums(
        [
            (
                # at the first checkpoint the two are one estimate, and their product its square
                run[now][where][name] if now else run[0]["squares"][name][kind],
                run[now]["squares"][name][kind],
                run[0]["squares"][name][kind],
            )
            for run in runs
        ]
    )


def _cosine_with_previous(runs: list[list[dict[str, Any]]], now: int, name: str) -> dict[str, float]:
    """Return the corrected cosine of a vector with itself one checkpoint earlier, likewise."""
    return _of_sums(
        [
            (
                run[now]["with_previous"][name],
                run[now]["squares"][name]["corrected"],
                run[now - 1]["squares"][name]["corrected"],
            )
            for run in runs
        ]
    )


def _of_sums(rows: list[tuple[float, float, float]]) -> dict[str, float]:
    table = np.array(rows)
    whole = table.sum(axis=0)
    return jackknife([cosine(*(whole - row)) for row in table], cosine(*whole))


def _pooled_ratio(runs: list[list[dict[str, Any]]], now: int, one: str, other: str) -> dict[str, float]:
    """Return the ratio of corrected squares summed over runs, likewise."""
    table = np.array([[run[now]["squares"][name]["corrected"] for name in (one, other)] for run in runs])
    whole = table.sum(axis=0)
    without = whole - table
    return jackknife(list(without[:, 0] / without[:, 1]), float(whole[0] / whole[1]))


def main(arguments: list[str] | None = None) -> None:
    """Do what is not done yet, then store and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--axis", required=True, help="axis of the sweep whose points are told apart")
    parser.add_argument("--labels", nargs="+", help="its points; all if left out")
    parser.add_argument("--every", type=int, default=80, help="steps between the checkpoints used")
    parser.add_argument("--rollouts", type=int, default=4096, help="of each of the two batches")
    options = parser.parse_args(arguments)

    import torch

    torch.set_num_threads(1)
    options.directory.mkdir(parents=True, exist_ok=True)
    target = options.directory / "language_model.json"
    how = {"study": options.study.name, "every": options.every, "rollouts_of_a_batch": options.rollouts}
    stored = read_json(target) if target.exists() else {}
    rows: list[dict[str, Any]] = stored["runs"] if stored.get("how") == how else []
    done = {(row["label"], row["seed"]) for row in rows}
    about = code_version()
    for axes, run in runs_of(options.study):
        label, seed = axes[options.axis], int(axes["seed"])
        if (options.labels and label not in options.labels) or (label, seed) in done:
            continue
        moments = along(run, checkpoints_of(run, options.every), options.rollouts)
        rows.append({"label": label, "seed": seed, "moments": moments})
        print(label, seed, "done", flush=True)
        by_label = {
            name: [row["moments"] for row in rows if row["label"] == name]
            for name in dict.fromkeys(row["label"] for row in rows)
        }
        summary = {name: summarise(runs) for name, runs in by_label.items() if len(runs) > 1}
        write_json(target, to_json({"how": how, "collected_by": about, "summary": summary, "runs": rows}))
    for name, numbers in read_json(target)["summary"].items():
        for key, slope in numbers["slope_on_log_failure"].items():
            print(f"{name}: slope of |{key}|² on log(1-p)", slope["over_runs"], "pooled", slope["pooled"])


if __name__ == "__main__":
    main()
