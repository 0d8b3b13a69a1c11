"""Weight- and output-space extrapolation of the checkpoints of a sweep, beside standing still and training on.

    python -m experiments.extrapolation_study.study runs/q5_runs/q5_runs experiments/q5_extrapolation

Weight space: every method is fitted on the checkpoints up to step 80 and evaluated at later steps, beside the last
checkpoint it saw (persistence) and the checkpoint that training really reached. Output space: two checkpoints decoded
together, alpha chosen on half of the held-out problems and scored on the other half, beside the later checkpoint at the
temperature that the same half chooses. One run is one observation; what is done with a run is stored at once, and the
command given again goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from experiments.collect import config_of, runs_of
from experiments.extrapolation_study.models import FIRST, LAST, SEED, Window, correct, evaluation
from lab.cell_summary import mean_interval
from lab.evaluate_run import Judge
from lab.evaluate_settings import OutputSpaceSettings
from lab.evaluation import average_at_k
from lab.files import read_json, write_json
from lab.objectives.settings import GenerationSettings
from lab.policies import build_policy_settings
from lab.provenance import code_version
from lab.tasks import build_task

METHODS = ("two_point", "least_squares", "damped", "rank_1", "low_rank", "exponential")
TARGETS = (100, 120, 160, 240, 320)
OUTPUT_PAIRS = ((80, 160), (160, 320), (0, 320))
ALPHAS = (1.0, 1.1, 1.25, 1.5, 2.0)
TEMPERATURES = (1.0, 0.667, 0.5, 0.333, 0.2)
"""As many as alphas: both arms choose with the same budget."""
DECODING_TEMPERATURES = (1.0, 0.333)
"""At which logits are extrapolated: as published, and where temperature has done what it can."""


def judge(config: dict[str, Any], models: OutputSpaceSettings, temperature: float) -> Judge:
    """Return the judge of two checkpoints on the run's own task."""
    return Judge(
        build_policy_settings(config["policy"]),
        models,
        build_task(config["task"]),
        GenerationSettings(**config["generation"]),
        evaluation(temperature=temperature),
        SEED,
    )


def pass_rate(config: dict[str, Any], checkpoint: Path) -> float:
    """Return avg@4 of a model directory."""
    return average_at_k(correct(config, checkpoint, evaluation()))


def weight_space(config: dict[str, Any], run: Path) -> dict[str, Any]:
    """Return, for each target step, the pass rate of every method, of persistence and of the real checkpoint."""
    found: dict[str, Any] = {"start": pass_rate(config, run / "checkpoint-0")}
    persistence = pass_rate(config, run / f"checkpoint-{LAST}")
    window = Window(run)
    for target in TARGETS:
        row = {"persistence": persistence, "trained": pass_rate(config, run / f"checkpoint-{target}")}
        for method in METHODS:
            with window.model(method, target) as directory:
                row[method] = pass_rate(config, directory)
        found[str(target)] = row
    return found


def label(pair: tuple[int, int], temperature: float) -> str:
    """Return the name of a comparison in output space."""
    return f"{pair[0]}-{pair[1]} at {temperature:g}"


COMPARISONS = [label(pair, temperature) for pair in OUTPUT_PAIRS for temperature in DECODING_TEMPERATURES]


def output_space(config: dict[str, Any], run: Path) -> dict[str, Any]:
    """Return, for each pair of checkpoints, the pass rates of both arms and what was chosen."""
    found = {}
    for first, second in OUTPUT_PAIRS:
        models = OutputSpaceSettings(
            checkpoint=str(run / f"checkpoint-{first}"),
            second=str(run / f"checkpoint-{second}"),
            alpha=None,
            alphas=ALPHAS,
            temperatures=TEMPERATURES,
            validation_share=0.5,
        )
        for temperature in DECODING_TEMPERATURES:
            numbers = judge(config, models, temperature).choose(ALPHAS, TEMPERATURES, 0.5, [1])
            found[label((first, second), temperature)] = {
                arm: {key: numbers[arm][key] for key in ("alpha", "temperature", "avg@4")}
                for arm in ("extrapolated", "temperature_tuned", "last")
            }
    return found


def interval(values: np.ndarray) -> dict[str, Any]:
    """Return mean and 95 % t interval over runs."""
    mean, low, high = mean_interval(values)
    return {"mean": mean, "half_width": (high - low) / 2, "seeds": len(values)}


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return, by task, every method minus persistence and minus the real checkpoint, and the arms of output space."""
    found: dict[str, Any] = {}
    tasks = dict.fromkeys(row["task"] for row in rows)
    for task in tasks:
        own = [row for row in rows if row["task"] == task]
        if len(own) < 2:
            continue
        weights: dict[str, Any] = {}
        for target in map(str, TARGETS):
            table = {
                name: np.array([row["weight_space"][target][name] for row in own])
                for name in own[0]["weight_space"][target]
            }
            weights[target] = {
                name: {
                    "pass_rate": interval(values),
                    "minus_persistence": interval(values - table["persistence"]),
                    "minus_trained": interval(values - table["trained"]),
                }
                for name, values in table.items()
            }
        found[task] = {
            "weight_space": weights,
            "output_space": {
                name: _outputs([row["output_space"][name] for row in own]) for name in COMPARISONS
            },
        }
    found["all tasks"] = {name: _over_tasks(rows, list(tasks), name) for name in COMPARISONS}
    return found


def _outputs(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    rates = {arm: np.array([pair[arm]["avg@4"] for pair in pairs]) for arm in pairs[0]}
    return {
        **{arm: interval(values) for arm, values in rates.items()},
        "relative_gain_over_temperature_tuned": interval(
            rates["extrapolated"] / rates["temperature_tuned"] - 1
        ),
        "relative_gain_over_last": interval(rates["extrapolated"] / rates["last"] - 1),
        "temperature_tuned_over_last": interval(rates["temperature_tuned"] / rates["last"] - 1),
        "alphas": [pair["extrapolated"]["alpha"] for pair in pairs],
        "temperatures": [pair["temperature_tuned"]["temperature"] for pair in pairs],
    }


def _over_tasks(rows: list[dict[str, Any]], tasks: list[str], pair: str) -> dict[str, Any]:
    """Return the relative gains averaged over tasks within each seed."""
    gains: dict[str, list[float]] = {"temperature_tuned": [], "last": []}
    for seed in dict.fromkeys(row["seed"] for row in rows):
        own = [row["output_space"][pair] for row in rows if row["seed"] == seed]
        if len(own) != len(tasks):
            continue
        for arm, values in gains.items():
            values.append(
                float(np.mean([one["extrapolated"]["avg@4"] / one[arm]["avg@4"] - 1 for one in own]))
            )
    return {
        f"relative_gain_over_{arm}": interval(np.array(values))
        for arm, values in gains.items()
        if len(values) > 1
    }


def main(study: Path, directory: Path) -> None:
    """Do what is not done yet, then store and print."""
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / "results.json"
    rows: list[dict[str, Any]] = read_json(target)["runs"] if target.exists() else []
    done = {(row["task"], row["seed"]) for row in rows}
    about = code_version()
    for axes, run in runs_of(study):
        key = (axes["task"], int(axes["seed"]))
        if key in done:
            continue
        config = config_of(run)
        rows.append(
            {
                "task": key[0],
                "seed": key[1],
                "weight_space": weight_space(config, run),
                "output_space": output_space(config, run),
            }
        )
        print(*key, "done", flush=True)
        write_json(
            target,
            {
                "command": f"lab sweep experiment={study.parent.name}",
                "collected_by": about,
                "fitted_on_steps": [FIRST, LAST],
                "evaluation": {"problems": 256, "rollouts": 4, "temperature": 1.0, "seed": SEED},
                "summary": summarise(rows),
                "runs": rows,
            },
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    main(arguments.study, arguments.directory)
