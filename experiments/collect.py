"""Reads the runs of a sweep and stores, for each, the numbers that the findings rest on.

    python -m experiments.collect runs/q1_noise/q1_noise experiments/q1_noise

Every run is one row: its point of the sweep, its seed, and what was measured of its weights (momentum taken out where
moments were recorded): mean and median R², place on the phase diagram, lag cosines, damped skill, pass rate at each
recorded step and in training between them, mean R² of every window from the start, the gradient noise scale, and what
the published filter, its cast and its thresholds each leave of the weights and of R².
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import lab
from lab.draw import Draw
from lab.files import read_json, write_json
from lab.linearity import forecast_skill, lag_cosine, r_squared, to_json
from lab.linearity.filters import PAPER, UNFILTERED, Protocol
from lab.linearity.placement import Placement, place
from lab.linearity.walk import selection_matched
from lab.provenance import code_version
from lab.trajectory.series import RunSeries
from lab.trajectory.store import group

LAGS = (1, 2, 3, 4, 5, 6)
SHORTEST_WINDOW = 5
PARTS = (
    UNFILTERED,
    PAPER,
    Protocol("cast alone", PAPER.weights_bfloat16, None, 1, None),
    Protocol("thresholds alone", False, PAPER.weights_range, PAPER.weights_distinct, None),
)
"""The published filter and its two parts."""
WALKS = 4000


def positions(series: RunSeries) -> tuple[np.ndarray, np.ndarray]:
    """Return the sampled weights and their momentum-free positions, float64 [checkpoint, element] each."""
    raw, free = [], []
    for name, info in series.tensors.items():
        values = series.read(name, 0, info.size)
        without = series.read_momentum_free(name, 0, info.size)
        raw.append(values)
        free.append(values if without is None else without)
    return np.concatenate(raw, axis=1), np.concatenate(free, axis=1)


def noise_scale(series: RunSeries) -> float | None:
    """Return tr(noise) / |mean gradient|² of a batch, from products of successive gradients' sketches.

    Products of different updates are free of noise in expectation (McCandlish et al. 2018 estimate the same from two
    batch sizes); the mean gradient is taken as slowly changing.
    """
    if "probe" not in series.tree.children:
        return None
    sketch = group(series.tree, "probe")["gradient_projection"].values.astype(np.float64)
    signal = float((sketch[1:] * sketch[:-1]).sum(axis=1).mean())
    total = float((sketch**2).sum(axis=1).mean())
    return (total - signal) / signal if signal > 0 else None


def under_filters(
    raw: np.ndarray, free: np.ndarray, steps: np.ndarray, generator: np.random.Generator
) -> dict[str, Any]:
    """Return, for each of `PARTS`, what it keeps and the median R² of that.

    Args:
        raw: weights, float64 [checkpoint, element].
        free: momentum-free positions, likewise.
        steps: [checkpoint].
        generator: of the walks that pass the same filter.

    Returns:
        by name: share of the weights that is kept and share that moved at all, median R² of the kept ones, raw and
        with momentum taken out (each filtered by itself), and that of random walks of the weights' own sizes.
    """
    found = {}
    for part in PARTS:
        medians, kept, moved = [], [], []
        for values in (raw, free):
            stored = part.cast(values, "weights")
            keep = part.keep(stored, "weights")
            kept.append(keep.mean())
            moved.append((stored != stored[0]).any(axis=0).mean())
            medians.append(_median(r_squared(stored[:, keep], steps)) if keep.any() else np.nan)
        walks = selection_matched(raw, steps, part, "weights", generator, WALKS)
        found[part.name] = {
            "kept": kept[0],
            "kept_count": kept[0] * raw.shape[1],
            "moved": moved[0],
            "r2_median": medians[0],
            "r2_median_momentum_free": medians[1],
            "kept_momentum_free": kept[1],
            "walk_r2_median": _median(walks.r2),
            "walk_kept": walks.retained_share,
        }
    return found


def _median(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if defined.size else np.nan


def training_pass_rate(series: RunSeries) -> np.ndarray | None:
    """Return the verified pass rate of the training rollouts between recorded steps, [checkpoint - 1]."""
    metrics = group(series.tree, "metrics")
    if "reward_verified" not in metrics:
        return None
    steps, rate = metrics["step"].values, metrics["reward_verified"].values
    edges = series.steps
    return np.array(
        [np.mean(rate[(steps > a) & (steps <= b)]) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    )


def numbers_of(run: Path) -> dict[str, Any]:
    """Return the numbers of one run."""
    series = RunSeries(run)
    raw, free = positions(series)
    steps = series.steps
    placed = place(free, steps)
    forecast = forecast_skill(free, steps)
    found: dict[str, Any] = {
        "steps": steps,
        "r2_mean": np.nanmean(r_squared(free, steps)),
        "r2_median": np.nanmedian(r_squared(free, steps)),
        "raw_r2_mean": np.nanmean(r_squared(raw, steps)),
        "raw_r2_median": np.nanmedian(r_squared(raw, steps)),
        "window_r2_mean": [
            np.nanmean(r_squared(free[:stop], steps[:stop]))
            for stop in range(SHORTEST_WINDOW, len(steps) + 1)
        ],
        "skill": forecast.skill,
        "skill_damped": forecast.skill_damped,
        "lag_cosine": lag_cosine(free, steps, LAGS) if np.ptp(np.diff(steps)) == 0 else None,
        "displacement": np.sqrt(((raw[-1] - raw[0]) ** 2).sum()),
        "noise_scale": noise_scale(series),
        "filters": under_filters(raw, free, steps, Draw(0).generator("walks through filters")),
        "training_pass_rate": training_pass_rate(series),
    }
    if placed is not None:
        found |= placement_numbers(placed)
    if "evaluation" in series.tree.children:
        evaluation = group(series.tree, "evaluation")
        found["pass_rate"] = evaluation["pass_rate"].values
    cells = read_json(run / "summary.json").get("cells")
    if cells:  # a synthetic run, whose replicates are runs of their own: these intervals are over them
        found["cells"] = cells
    measured = run / "measurement.json"
    if measured.exists():
        weights = read_json(measured)["unfiltered"]["weights"]
        found["sign_flip_p"] = weights["null_p_value"]
        found["null_r2_median"] = weights["null_r2_median"]
        logprobs = read_json(measured)["unfiltered"].get("logprobs") or {}
        found["logprobs_r2_median"] = logprobs.get("r2_median")
        found["logprobs_null_r2_median"] = logprobs.get("null_r2_median")
    result: dict[str, Any] = to_json(found)
    return result


def runs_of(study: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """Yield the place in the sweep (its axes and `seed`) and the directory of every finished run of a study."""
    with (study / "results.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    for line in table:
        if line["state"] != "complete":
            continue
        names = list(line)  # trial, point, axes, seed, state, seconds, metrics, error
        axes = {key: line[key] for key in names[names.index("point") + 1 : names.index("state")]}
        yield axes, study / "points" / f"{int(line['point']):05d}" / f"seed_{line['seed']}"


def config_of(run: Path) -> dict[str, Any]:
    """Return the resolved configuration of a run."""
    config: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    return config


def placement_numbers(placed: Placement) -> dict[str, Any]:
    """Return what a row says of where its run lies on the phase diagram."""
    pooled = placed.pooled
    return {
        "signal_squared": pooled.signal_squared,
        "signal_squared_interval": pooled.signal_squared_interval,
        "curvature_horizon": pooled.curvature_horizon,
        "curvature_interval": pooled.curvature_interval,
        "noise_rank": pooled.noise_rank,
        "expected_r2_mean": placed.expected_r_squared,
    }


def trained_by(study: Path) -> list[str]:
    """Return the versions of the code that trained the finished runs of a study."""
    return sorted({str(lab.open(run).attrs["git_commit"]) for _, run in runs_of(study)})


def collect(study: Path) -> dict[str, Any]:
    """Return all rows of a study with what it takes to repeat it."""
    rows = [{**axes, **numbers_of(run)} for axes, run in runs_of(study)]
    return {
        "study": study.name,
        "command": f"lab sweep experiment={study.parent.name}",
        "trained_by": trained_by(study),
        "collected_by": code_version(),
        "runs": rows,
    }


def main(study: str, directory: str) -> None:
    """Write `results.json` into `directory`."""
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / "results.json", collect(Path(study)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
