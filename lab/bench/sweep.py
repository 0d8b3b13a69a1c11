"""Trials an hour of a sweep over the built-in model, one worker beside several, and what a trial costs besides its run.

Each side runs the whole command `lab sweep` on a study of its own, the same points in each; sides take turns and each
round starts with the other. Trials an hour come from the time of the whole command, start-up and measuring included.
The overhead of a trial is the time from claiming it to telling the study its result, less what its training run says it
took, in a study that measures nothing; composing the configuration, the study, loading the model and storing are in
it. A worker's first trial, in which it loads its libraries, is left out of it, and its excess is given as the start-up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from omegaconf import OmegaConf

from lab.bar import progress_bar
from lab.bench.intervals import format_interval, median_interval, ratio_interval
from lab.bench.machine import machine
from lab.bench.sweep_settings import SweepBenchSettings
from lab.errors import RunFailed
from lab.provenance import code_version
from lab.runs import Run

TARGETS = {"trials_per_hour": 100.0, "speed_up": 1.7, "overhead_s": 0.1}
"""Least trials an hour of all workers; least gain of two workers over one; most overhead of a trial in seconds."""

_STUDY = "study"
_LEARNING_RATE = 1e-4
"""Of the first point; the others have multiples of it."""
_SHORT = 3
"""Steps of a trial whose overhead is asked for."""
_LINES_SHOWN = 5


def run(settings: SweepBenchSettings, held: Run, seed: int, threads: int) -> dict[str, Any]:
    """Measure and return the summary.

    Raises:
        RunFailed: a sweep ended with an error, or left a point undone.
    """
    sides = (1, settings.workers)
    seconds: dict[int, list[float]] = {workers: [] for workers in sides}
    with progress_bar() as progress:
        bar = progress.add_task("sweeping", total=len(sides) * settings.rounds)
        for index in range(settings.rounds):
            for workers in sides if index % 2 else reversed(sides):
                directory = held.path / "rounds" / f"{index}_workers_{workers}"
                seconds[workers].append(_sweep(settings, directory, workers, seed, threads))
                progress.advance(bar)
    first, *others = _overheads(settings, held.path / "overhead", seed, threads)
    per_hour = {
        str(workers): asdict(median_interval([3600 * settings.trials / value for value in values]))
        for workers, values in seconds.items()
    }
    summary = {
        "what": settings.what,
        "trials_per_hour": per_hour,
        "speed_up": ratio_interval(seconds[1], seconds[settings.workers]),
        "overhead_s": asdict(median_interval(others)),
        "start_up_s": first - median(others),
        "targets": TARGETS,
        "settings": {**asdict(settings), "seed": seed, "threads": threads},
        **code_version(),
        "machine": machine(),
        "seconds_of_each_command": {str(workers): values for workers, values in seconds.items()},
    }
    return {**summary, "result": _result_line(summary)}


def show(summary: dict[str, Any]) -> None:
    """Print a short table."""
    from lab.verbs.train import print_table

    print_table(
        {
            **{
                f"trials an hour, workers={workers}": format_interval(found)
                for workers, found in summary["trials_per_hour"].items()
            },
            "gain of several workers over one": format_interval(summary["speed_up"]),
            "overhead of a trial in s": format_interval(summary["overhead_s"]),
            "start-up of a worker in s": summary["start_up_s"],
        }
    )


def _sweep(settings: SweepBenchSettings, directory: Path, workers: int, seed: int, threads: int) -> float:
    """Run one whole command; return its seconds by the clock."""
    experiment = directory / "conf" / "experiment" / f"{_STUDY}.yaml"
    experiment.parent.mkdir(parents=True)
    rates = ",".join(f"{_LEARNING_RATE * (1 + index):.6g}" for index in range(settings.trials))
    config = {
        "steps": settings.steps,
        "objective": {"prompts": settings.prompts, "rollouts": settings.rollouts},
        "sweep": {
            "space": {"optimizer.learning_rate": f"choice({rates})"},
            "seeds": [seed],
            "measure": settings.measure,
        },
    }
    experiment.write_text("# @package _global_\n" + OmegaConf.to_yaml(config))
    words = ["sweep", "--config-dir", str(directory / "conf"), f"experiment={_STUDY}"]
    words += [f"runs_dir={directory}", f"workers={workers}", f"threads={threads}"]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "lab", *words], capture_output=True, text=True, check=False)
    took = time.perf_counter() - started
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()[-_LINES_SHOWN:]
        raise RunFailed(f"{directory}: lab sweep ended with code {done.returncode}: " + " ".join(lines))
    return took


def _overheads(settings: SweepBenchSettings, directory: Path, seed: int, threads: int) -> list[float]:
    """Return of each trial of a study of short ones, in order: its seconds less those of its training run."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    short = replace(settings, trials=settings.overhead_trials, steps=_SHORT, measure=False)
    _sweep(short, directory, 1, seed, threads)
    study = directory / _STUDY / _STUDY
    storage = JournalStorage(JournalFileBackend(str(study / "study.journal")))
    [name] = optuna.get_all_study_names(storage)
    found = []
    for trial in optuna.load_study(study_name=name, storage=storage).trials:
        if trial.state != optuna.trial.TrialState.COMPLETE:
            raise RunFailed(f"{study}: trial {trial.number} ended as {trial.state.name.lower()}")
        [summary] = (study / "points" / f"{trial.user_attrs['point']:05d}").glob("seed_*/summary.json")
        found.append(trial.user_attrs["seconds"] - json.loads(summary.read_text())["wall_clock_s"])
    return found


def _result_line(summary: dict[str, Any]) -> str:
    workers, found = list(summary["trials_per_hour"].items())[-1]
    return (
        f"{found['median']:.0f} trials an hour with {workers} workers, "
        f"{format_interval(summary['speed_up'])} times one"
    )
