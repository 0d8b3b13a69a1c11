"""Q2.5: straightness against the signal-to-noise ratio of token sign noise, on synthetic models in the module.

    python experiments/q2_synthetic/q2_synthetic.py

The noisy quadratic is put at a chosen place on the phase diagram and run with token sign noise translated into drift
and noise (`quadratic.py`), beside what theory expects; softmax regression is run with its own token sign noise and
measured. Both under SGD and AdamW, both normalisations. Cells of a run see the same random numbers, and so do the
optimisers; seeds are independent. config.yaml says what is run, results.json holds what came out. Started again, the
script goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from experiments.q2_synthetic.judge import ZERO, judge
from experiments.q2_synthetic.quadratic import MOMENTS, expected_r_squared, place_bowl
from experiments.synthetic_cells import positions, train_cells
from lab.files import write_json
from lab.linearity import r_squared
from lab.linearity.placement import place
from lab.noise import TokenSignNoise
from lab.provenance import provenance
from lab.runs import RunSettings, open_run

Array = NDArray[np.float64]

CONFIG, RESULT = Path(__file__).with_name("config.yaml"), Path(__file__).with_name("results.json")
OPTIMIZERS = ("sgd", "adamw")
NO_NOISE = "none"


@dataclass(frozen=True)
class Point:
    """One cell of a run: what it is called, how the run sets it, and what theory says of it, if it does."""

    labels: dict[str, str]
    overrides: dict[str, Any]
    theory: dict[str, float] = field(default_factory=dict)


def levels(config: Mapping[str, Any]) -> list[str]:
    """Labels of the levels of noise, from none to nothing else."""
    return [NO_NOISE, *(f"{level:g}" for level in config["levels_db"]), ZERO]


def amplitudes(level: str, normalisation: Any) -> tuple[float, float]:
    """a and b of the weight a + b eps of a token."""
    if level in (NO_NOISE, ZERO):
        return (1.0, 0.0) if level == NO_NOISE else (0.0, 1.0)
    return TokenSignNoise.of_snr(float(level), normalisation).amplitudes


def quadratic_points(config: Mapping[str, Any], optimizer: str) -> list[Point]:
    """Cells of the noisy quadratic, with E[R²] of each."""
    given = config["quadratic"]
    rate, steps = given["learning_rate"], recorded(given)
    points = []
    for curvature in given["curvature_horizons"]:
        bowl = place_bowl(optimizer, curvature, given["signal_squared"], rate, steps)
        for normalisation in config["normalisations"]:
            for level in levels(config):
                noisy = bowl.with_sign_noise(*amplitudes(level, normalisation))
                labels = {
                    "model": "quadratic",
                    "optimizer": optimizer,
                    "arm": f"c={curvature:g}",
                    "normalisation": normalisation,
                    "snr_db": level,
                }
                theory = {"r2_mean": expected_r_squared(optimizer, noisy, rate, steps)}
                if level != ZERO:
                    there = MOMENTS[optimizer](noisy, rate, steps)
                    theory |= dict(zip(("curvature_horizon", "signal_squared"), there, strict=True))
                points.append(Point(labels, noisy.overrides(), theory))
    return points


def logistic_points(config: Mapping[str, Any], optimizer: str) -> list[Point]:
    """Cells of softmax regression."""
    points = []
    for rate in config["logistic"]["learning_rates"][optimizer]:
        for normalisation in config["normalisations"]:
            for level in levels(config):
                signal, noise = amplitudes(level, normalisation)
                labels = {
                    "model": "logistic",
                    "optimizer": optimizer,
                    "arm": f"lr={rate:g}",
                    "normalisation": normalisation,
                    "snr_db": level,
                }
                weights = {"signal_amplitude": signal, "noise_amplitude": noise}
                points.append(Point(labels, {"learning_rate": float(rate), "sign_noise": weights}))
    return points


MODELS = {"quadratic": quadratic_points, "logistic": logistic_points}
SHAPES = {
    "quadratic": ("replicates", "coordinates"),
    "logistic": ("replicates", "features", "classes", "tokens"),
}


def recorded(given: Mapping[str, Any]) -> Array:
    """Steps at which the runs of a model are recorded."""
    updates, every = given["updates"], given["every"]
    return np.unique(np.append(np.arange(0, updates, every), updates)).astype(np.float64)


def overrides_of(config: Mapping[str, Any], model: str, optimizer: str) -> list[str]:
    """Overrides of `lab train`, without cells and seed."""
    given = config[model]
    rate = given.get("learning_rate", 0.01)  # of softmax regression every cell has its own
    return [
        f"objective={model}",
        f"optimizer={optimizer}",
        f"optimizer.learning_rate={rate}",
        f"steps={given['updates']}",
        f"recorder.every={given['every']}",
        f"recorder.save_every={given['updates']}",
        *(f"objective.{key}={given[key]}" for key in SHAPES[model]),
    ]


def measure(run: Path, points: list[Point], replicates: int) -> list[dict[str, float]]:
    """Numbers of every cell of a finished run."""
    steps, raw, free = positions(run, len(points))
    found = []
    for point, path, without in zip(points, raw, free, strict=True):
        straight = r_squared(path, steps).reshape(replicates, -1)
        numbers = {
            "r2_mean": float(straight.mean()),
            # over replicates, each a run of its own
            "standard_error": float(straight.mean(axis=1).std(ddof=1) / np.sqrt(replicates)),
            "r2_median": float(np.median(straight)),
            "momentum_free_r2_mean": float(r_squared(without, steps).mean()),
        }
        placed = None if point.theory else place(without, steps)  # theory knows the place
        if placed is not None:
            numbers["signal_squared"] = placed.pooled.signal_squared
            numbers["curvature_horizon"] = placed.pooled.curvature_horizon
            numbers["expected_r2_mean"] = placed.expected_r_squared
        found.append(numbers)
    return found


def summarise(point: Point, each: list[dict[str, float]]) -> dict[str, Any]:
    """One row of the results: means over seeds, R² of every seed, and the discrepancy from theory.

    The seeds of the quadratic are replicates more, so its standard error is over all replicates; every seed of softmax
    regression has data of its own, so that one is over seeds.
    """
    by_seed = np.array([numbers["r2_mean"] for numbers in each])
    row: dict[str, Any] = dict(point.labels)
    row["r2_mean"] = float(by_seed.mean())
    if point.labels["model"] == "quadratic":
        error = np.sqrt(sum(numbers["standard_error"] ** 2 for numbers in each)) / len(each)
    else:
        error = by_seed.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan
    row["standard_error"] = float(error)
    row["r2_mean_by_seed"] = by_seed.round(5).tolist()
    for name in each[0]:
        if name not in row:
            row[name] = float(np.mean([numbers.get(name, np.nan) for numbers in each]))
    if point.theory:
        row["theory"] = point.theory
        row["z"] = (row["r2_mean"] - point.theory["r2_mean"]) / row["standard_error"]
    return row


def simulate(config: Mapping[str, Any], runs_dir: Path, result: Path) -> dict[str, Any]:
    """Do what is left of all runs; write and return the results."""
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    where = RunSettings(None, str(runs_dir), "auto", False, "q2_synthetic")
    with open_run(where, dict(config)) as held:
        for model, points_of in MODELS.items():
            for optimizer in OPTIMIZERS:
                points = points_of(config, optimizer)
                measured = []
                for seed in range(config["seeds"]):
                    run = train_cells(
                        held,
                        f"{model}_{optimizer}_{seed}",
                        overrides_of(config, model, optimizer),
                        [point.overrides for point in points],
                        seed,
                    )
                    measured.append(measure(run, points, config[model]["replicates"]))
                    print(f"{model}, {optimizer}, seed {seed}: {len(points)} cells", flush=True)
                rows += [
                    summarise(point, [numbers[index] for numbers in measured])
                    for index, point in enumerate(points)
                ]
        results = {
            "question": "does the straightness of synthetic models follow theory under token sign noise (Q2.5)?",
            "command": "python experiments/q2_synthetic/q2_synthetic.py",
            "config": dict(config),
            "steps": {model: recorded(config[model]).astype(int).tolist() for model in MODELS},
            "seconds": round(time.perf_counter() - started, 1),
            **provenance(),
            "points": judge(rows, levels(config)),
            "cells": rounded(rows),
        }
        write_json(result, results)
        held.write_summary({"result": f"{len(rows)} cells", "points": results["points"]})
        held.finish()
    return results


def rounded(value: Any) -> Any:
    """The same with floats of six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def main(arguments: list[str] | None = None) -> int:
    """Do the experiment; always 0, whichever way it comes out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    config = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    results = simulate(config, options.runs_dir, options.result)
    for point in results["points"]:
        print(f"{'holds' if point['holds'] else 'does not hold'}: {point['statement']} ({point['found']})")
    held = sum(point["holds"] for point in results["points"])
    print(f"{options.result}: {held} of {len(results['points'])} points hold")
    return 0


if __name__ == "__main__":
    sys.exit(main())
