"""Was drift matched? How far each run of a study went along a clean direction, over how far runs without flips went.

    python -m experiments.analysis.clean_direction runs/q1_headline/q1_headline experiments/q1_headline

Two directions over all weights: the gradient without flips at the common start, from a large batch of its own; and the
mean displacement at the end of the runs without flips of all *other* seeds, which shares no draw with the run that is
projected. Ratios are of means over seeds. An arm counts as matched along a direction where its ratio lies within 10 %
of 1 and its interval excludes more than 20 %. Of the way there, the coordinates that a run follows give an estimate:
each stands for as many as its tensor has for one followed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from experiments.analysis.statistics import cells, jackknife
from experiments.collect import runs_of
from lab.draw import Draw
from lab.files import write_json
from lab.linearity import to_json
from lab.provenance import code_version
from lab.trajectory.store import group, open_store

Array = NDArray[np.float64]
Tensors = Mapping[str, Array]
"""Flat tensors by canonical name."""

MATCHED, SURELY = 0.1, 0.2
GRADIENT_ROLLOUTS = 16384
_CLEAN = "0"


def along_others(displacements: Mapping[int, Array], clean: Mapping[int, Array]) -> dict[int, float]:
    """Project each displacement on the mean clean displacement of all other seeds.

    Args:
        displacements: of the arm, by seed, [parameter].
        clean: of the runs without flips, likewise; the arm's own where it is the clean one.

    Returns:
        by seed, of those with at least one other clean seed: the inner product, free of noise that the run shares
        with the direction. For the clean arm its mean is |mean displacement|² without bias.
    """
    total = np.sum(list(clean.values()), axis=0)
    found = {}
    for seed, displacement in displacements.items():
        others = len(clean) - (seed in clean)
        if others:
            direction = (total - clean[seed] if seed in clean else total) / others
            found[seed] = float(displacement @ direction)
    return found


def ratio(arm: Mapping[int, float], clean: Mapping[int, float]) -> dict[str, Any]:
    """Return mean of the arm over mean of the clean arm, over the seeds of both, with a jackknife interval.

    Returns:
        `mean`, `low`, `high`, `n`, and `matched`: whether within 10 % of 1 with an interval within 20 %.
    """
    seeds = sorted(arm.keys() & clean.keys())
    table = np.array([(arm[seed], clean[seed]) for seed in seeds])
    whole = table.sum(axis=0)
    without = whole - table
    found = jackknife(list(without[:, 0] / without[:, 1]), float(whole[0] / whole[1]))
    close = abs(found["mean"] - 1) <= MATCHED
    sure = abs(found["low"] - 1) <= SURELY and abs(found["high"] - 1) <= SURELY
    return {**found, "matched": bool(close and sure)}


def path_along(run: Path, direction: Tensors) -> Array:
    """Estimate the inner product of a run's displacement with a direction at each recorded step, [checkpoint]."""
    weights = group(open_store(run), "weights")
    tensors, places = weights["tensor"].values.astype(str), weights["flat_index"].values
    share = np.empty(len(tensors))
    for name in np.unique(tensors):
        inside = tensors == name
        share[inside] = direction[name][places[inside]] * len(direction[name]) / inside.sum()
    values = weights["weight"].values.astype(np.float64)
    return np.asarray((values - values[0]) @ share)


def start_and_end(run: Path) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return a run's weights before the first and after the last update, float64, flat, by canonical name."""
    import torch

    from lab.policies import load_policy
    from lab.training import build_train_settings
    from lab.trajectory.recorder import RESUME

    settings = build_train_settings(_config(run))
    assert settings.policy is not None
    policy = load_policy(settings.policy, settings.seed)
    saved = torch.load(run / RESUME, weights_only=True)["state_dict"]
    begun = {name: value.detach() for name, value in policy.model.named_parameters() if value.requires_grad}
    ended = {name: saved[f"objective.policy.model.{name}"] for name in begun}
    first, last = (
        {name: value.double().flatten().numpy() for name, value in tensors.items()}
        for tensors in (begun, ended)
    )
    return first, last


def start_gradient(run: Path, rollouts: int = GRADIENT_ROLLOUTS) -> dict[str, Array]:
    """Return the direction of GRPO's update at the start of a run without flips, from a batch of its own."""
    from experiments.mechanism.scores import Source, mean_scores
    from lab.objectives.settings import RLVRSettings
    from lab.policies import load_policy
    from lab.training import build_train_settings

    settings = build_train_settings(_config(run))
    assert settings.policy is not None and settings.task is not None and settings.generation is not None
    assert isinstance(settings.objective, RLVRSettings)
    policy = load_policy(settings.policy, settings.seed)
    source = Source(settings.task, settings.objective, settings.generation, rollouts)
    whole = mean_scores(policy, source, Draw(settings.seed), 0, "clean direction ").drift
    parameters = [(n, v.numel()) for n, v in policy.model.named_parameters() if v.requires_grad]
    parts = np.split(whole, np.cumsum([size for _, size in parameters])[:-1])
    return {name: part for (name, _), part in zip(parameters, parts, strict=True)}


def _config(run: Path) -> dict[str, Any]:
    node: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    return node


def _flat(tensors: Tensors, names: Sequence[str]) -> Array:
    return np.concatenate([tensors[name] for name in names])


def measure(study: Path, axis: str, clean: str, gradient_rollouts: int) -> list[dict[str, Any]]:
    """Return, for each arm, its ratios along both directions; arms are compared with the clean one of the same cell."""
    rows = [{**axes, "run": run} for axes, run in runs_of(study)]
    others = [key for key in rows[0] if key not in (axis, "seed", "run")]
    found: list[dict[str, Any]] = []
    gradient: dict[str, Array] = {}
    for cell, members in cells(rows, others).items():
        arms = {label[0]: runs for label, runs in cells(members, [axis]).items()}
        if clean not in arms:
            continue
        gradient = gradient or start_gradient(arms[clean][0]["run"], gradient_rollouts)
        names = list(gradient)
        moved: dict[str, dict[int, Array]] = {}
        ways: dict[str, dict[int, Array]] = {}
        for label, runs in arms.items():
            for row in runs:
                first, last = start_and_end(row["run"])
                seed = int(row["seed"])
                moved.setdefault(label, {})[seed] = _flat(last, names) - _flat(first, names)
                ways.setdefault(label, {})[seed] = path_along(row["run"], gradient)
        step = _flat(gradient, names)
        base = along_others(moved[clean], moved[clean])
        base_step = {seed: float(value @ step) for seed, value in moved[clean].items()}
        base_way = np.mean(list(ways[clean].values()), axis=0)
        for label in arms:
            own_step = {seed: float(value @ step) for seed, value in moved[label].items()}
            way = np.mean(list(ways[label].values()), axis=0)
            with np.errstate(invalid="ignore", divide="ignore"):
                estimate = way / base_way
            found.append(
                {
                    **dict(zip(others, cell, strict=True)),
                    axis: label,
                    "along_other_runs": ratio(along_others(moved[label], moved[clean]), base),
                    "along_start_gradient": ratio(own_step, base_step),
                    "way_along_start_gradient": estimate,
                    "displacement": float(
                        np.mean([np.linalg.norm(value) for value in moved[label].values()])
                    ),
                }
            )
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure a study, store and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--axis", default="flips", help="axis of the sweep that names the arm")
    parser.add_argument("--clean", default=_CLEAN, help="label of the arm without flips")
    parser.add_argument("--rollouts", type=int, default=GRADIENT_ROLLOUTS, help="of the clean gradient")
    options = parser.parse_args(arguments)

    import torch

    torch.set_num_threads(1)
    arms = measure(options.study, options.axis, options.clean, options.rollouts)
    options.directory.mkdir(parents=True, exist_ok=True)
    write_json(
        options.directory / "clean_direction.json",
        to_json(
            {
                "study": options.study.name,
                "collected_by": code_version(),
                "rollouts_of_start_gradient": options.rollouts,
                "arms": arms,
            }
        ),
    )
    for arm in arms:
        point = " ".join(str(value) for value in arm.values() if isinstance(value, str))
        for name in ("along_other_runs", "along_start_gradient"):
            row = arm[name]
            verdict = "matched" if row["matched"] else "unmatched"
            print(f"{point}: {name} {row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}] {verdict}")


if __name__ == "__main__":
    main()
