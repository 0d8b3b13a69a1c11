"""Seconds of measuring all weights of a series, beside `cat` of the same bytes and the published method.

In each round every side has its turn on the same files, page cache warm, and each round starts with the next side, so
that a machine that slows down slows all of them. Ratios are taken within a round, and their median reported.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lab.bar import progress_bar
from lab.bench.intervals import ratio_interval
from lab.bench.machine import machine
from lab.bench.measure_checkpoints_data import STEPS_APART, random_checkpoints, shapes
from lab.bench.measure_checkpoints_settings import MeasureCheckpointsSettings
from lab.errors import RunFailed
from lab.files import remove_tree
from lab.measure_settings import CheckpointSettings
from lab.provenance import provenance
from lab.runs import Run

CAT, BARE, ALL = "cat", "r2_and_skill", "everything"
_TARGETS = {
    ("float32", BARE): 3.0,
    ("bfloat16", BARE): 6.0,
    ("float32", ALL): 15.0,
    ("bfloat16", ALL): 30.0,
}
"""Times the time of `cat`; `everything` of bfloat16 is held to the time of its twice as many float32 bytes."""
_MEMORY_TARGET_MB = 1024.0
_SPEED_TARGET = 100.0


def run(settings: MeasureCheckpointsSettings, held: Run, seed: int, threads: int) -> dict[str, Any]:
    """Measure and return the summary.

    Raises:
        BadInput: no room on the disk.
        RunFailed: `lab measure` did not end well.
    """
    tensors = shapes(settings.weights)
    weights = sum(int(np.prod(shape)) for shape in tensors.values())
    found: dict[str, Any] = {}
    with progress_bar() as progress:
        task = progress.add_task("rounds", total=settings.repeats * len(settings.dtypes) + 1)
        for dtype in settings.dtypes:
            folder = held.path / f"checkpoints_{dtype}"
            if folder.exists():  # of a benchmark that was killed
                remove_tree(folder)
            with random_checkpoints(folder, tensors, settings.checkpoint_count, dtype, seed) as files:
                found[dtype] = _rounds(
                    settings, files, held.path, seed, threads, lambda: progress.advance(task)
                )
        large = None
        if settings.large_weights:
            large = _large(settings, held.path, seed, threads)
        progress.advance(task)
    summary = {
        "what": settings.what,
        "settings": asdict(settings),
        "weights": weights,
        "tensors": len(tensors),
        **{dtype: _compare(dtype, each, weights) for dtype, each in found.items()},
        "large": large,
        "machine": machine(),
        **provenance(),
    }
    summary["result"] = result_line(summary)
    return summary


def result_line(summary: dict[str, Any]) -> str:
    """Return the comparison in one line."""
    parts = []
    for dtype in summary["settings"]["dtypes"]:
        ratios = summary[dtype]["ratio_to_cat"]
        parts.append(
            f"{dtype}: R² and skill {ratios[BARE]['median']:.2f}x cat, everything {ratios[ALL]['median']:.1f}x"
        )
        if summary[dtype]["published"]:
            parts[-1] += f", {summary[dtype]['published']['speed_ratio']:.0f}x the published weights a second"
    return "; ".join(parts)


def _rounds(
    settings: MeasureCheckpointsSettings,
    files: list[Path],
    place: Path,
    seed: int,
    threads: int,
    advance: Callable[[], None],
) -> dict[str, list[Any]]:
    """Seconds of each side in each round, and what each run of everything and of the published method said."""
    folder = files[0].parent.parent
    found: dict[str, list[Any]] = {CAT: [], BARE: [], ALL: [], "summaries": [], "published": []}

    def everything() -> float:
        started = time.perf_counter()
        found["summaries"].append(_lab_measure(folder, place, settings.workers, seed, threads))
        return time.perf_counter() - started

    sides = {CAT: lambda: _cat(files), BARE: lambda: _bare(folder, settings.workers), ALL: everything}
    _cat(files)  # Warms the page cache.
    _bare(folder, settings.workers)  # Imports.
    for index in range(settings.repeats):
        order = list(sides)[index % len(sides) :] + list(sides)[: index % len(sides)]
        for name in order:
            found[name].append(sides[name]())
        if index < settings.published_repeats:
            found["published"].append(_published(files, seed))
        advance()
    return found


def _cat(files: list[Path]) -> float:
    started = time.perf_counter()
    subprocess.run(["cat", *map(str, files)], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _bare(folder: Path, workers: int) -> float:
    from lab.checkpoints.measurement import measure_checkpoints
    from lab.trajectory.readers import open_series

    how = CheckpointSettings("unfiltered", 19, None, 0.9, 1, 0.75, nulls=False, workers=workers)
    started = time.perf_counter()
    measure_checkpoints(open_series(folder), how)
    return time.perf_counter() - started


def _published(files: list[Path], seed: int) -> dict[str, float]:
    steps = [float(step * STEPS_APART) for step in range(len(files))]
    order = json.dumps({"files": [str(file) for file in files], "steps": steps, "seed": seed})
    command = [sys.executable, "-m", "lab.bench.measure_checkpoints_published", order]
    return _said(command, "the published method")


def _said(command: list[str], what: str) -> dict[str, Any]:
    """Run a command and return the JSON that it printed last."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RunFailed(f"{what} ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return said


def _lab_measure(folder: Path, place: Path, workers: int, seed: int, threads: int) -> dict[str, Any]:
    """Run the verb in a process of its own, start to end, and return its summary."""
    runs = place / "measured"
    if runs.exists():
        remove_tree(runs)
    words = [f"checkpoints='{folder}'", f"runs_dir='{runs}'", f"workers={workers}", f"seed={seed}"]
    command = [sys.executable, "-m", "lab", "measure", *words, f"threads={threads}", "name=one"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RunFailed(f"lab measure ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    summary: dict[str, Any] = json.loads((runs / "measure/one/summary.json").read_text(encoding="utf-8"))
    remove_tree(runs)
    return summary


def _large(settings: MeasureCheckpointsSettings, place: Path, seed: int, threads: int) -> dict[str, Any]:
    """Peak memory of `lab measure` on a larger model."""
    tensors = shapes(settings.large_weights)
    folder = place / "checkpoints_large"
    if folder.exists():
        remove_tree(folder)
    with random_checkpoints(folder, tensors, settings.large_checkpoint_count, "float32", seed):
        summary = _lab_measure(folder, place, settings.workers, seed, threads)
    return {
        "weights": summary["weights"]["n"],
        "checkpoints": settings.large_checkpoint_count,
        "peak_rss_mb": summary["peak_rss_mb"],
        "target_mb": _MEMORY_TARGET_MB,
        "pass_s": summary["pass_s"],
        "bytes_read": summary["bytes_read"],
    }


def _compare(dtype: str, found: dict[str, list[Any]], weights: int) -> dict[str, Any]:
    """Ratios within rounds, with intervals, and what they are held to."""
    ratios = {
        name: ratio_interval(found[name], found[CAT]) | {"target": _TARGETS[dtype, name]}
        for name in (BARE, ALL)
    }
    speed = weights / float(np.median(found[BARE]))
    them = None
    if found["published"]:
        rates = [each["scalars"] / each["seconds"] for each in found["published"]]
        them = {
            "scalars": found["published"][0]["scalars"],
            "seconds": [each["seconds"] for each in found["published"]],
            "weights_per_second": float(np.median(rates)),
            "speed_ratio": speed / float(np.median(rates)),
            "target": _SPEED_TARGET,
        }
    return {
        "seconds": {name: found[name] for name in (CAT, BARE, ALL)},
        "ratio_to_cat": ratios,
        "weights_per_second": speed,
        "bytes": found["summaries"][0]["bytes_read"],
        "pass_seconds_of_everything": [each["pass_s"] for each in found["summaries"]],
        "peak_rss_mb": max(each["peak_rss_mb"] for each in found["summaries"]),
        "peak_rss_target_mb": _MEMORY_TARGET_MB,
        "published": them,
    }
