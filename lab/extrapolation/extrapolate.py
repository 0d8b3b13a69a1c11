"""From a series of checkpoints to an extrapolated model on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lab.errors import BadInput
from lab.extrapolation.expo import Expo
from lab.extrapolation.extrapolator import Extrapolator, JumpRules, State
from lab.extrapolation.model_files import copy_beside_weights, describe_file
from lab.extrapolation.output_settings import OutputSettings, parse_size
from lab.extrapolation.products import gather_products
from lab.extrapolation.settings import EXTRAPOLATORS, build_extrapolator, default_method
from lab.extrapolation.skill import Comparison, compare_products
from lab.extrapolation.write_model import Plan, other_tensors, plan_model, write_weights
from lab.files import atomic_directory, read_json, remove_tree, require_free_space, write_json
from lab.linearity.checks import FloatArray
from lab.provenance import provenance
from lab.trajectory.readers import ModelSeries, require_checkpoints

PROVENANCE = "extrapolation.json"
_SMALL_FILES = 2**26
"""Bytes left for configuration, tokenizer and provenance."""


@dataclass
class Job:
    """What is to be done, checked against the headers of the checkpoints; no weight has been read.

    Attributes:
        series: the checkpoints used.
        extrapolator: the method.
        node: its settings.
        target: step.
        output: settings of the output.
        products: inner products of increments of each tensor, once `observe` has run.
        comparison: of methods, once `judge` has run.
        bytes_read: so far.
    """

    series: ModelSeries
    extrapolator: Extrapolator
    node: dict[str, Any]
    target: float
    output: OutputSettings
    products: dict[str, FloatArray] | None = None
    comparison: Comparison | None = None
    bytes_read: int = 0

    @property
    def series_bytes(self) -> int:
        """Bytes of all tensors of all checkpoints used."""
        return len(self.series.steps) * sum(info.nbytes for info in self.series.tensors.values())

    def observe(self, progress: Callable[[int], None] | None = None) -> None:
        """Read every weight of every checkpoint once, and keep the inner products of increments.

        Raises:
            BadInput: a weight is not finite.
        """
        self.products = gather_products(self.series, progress)
        self.bytes_read += self.series_bytes

    def judge(self, all_methods: bool) -> None:
        """Judge this method, or all with it, on held-out checkpoints, after `observe`."""
        assert self.products is not None
        rules = self.extrapolator.rules
        name = self.node["name"]
        methods: dict[str, Extrapolator] = {}
        if all_methods:
            methods = {other: build_extrapolator(default_method(other), rules) for other in EXTRAPOLATORS}
        methods[name] = self.extrapolator
        self.comparison = compare_products(self.series.steps, self.products, methods)

    def state(self) -> State:
        """Return the finished state of the extrapolator."""
        state = self.extrapolator.begin(self.series.steps)
        state.products = dict(self.products or {})
        return self.extrapolator.finish(state)

    def plan(self) -> Plan:
        """Return what will be written; before `observe`, sizes hold but combinations may not.

        Raises:
            BadInput: the target is not after the last checkpoint, or weights do not fit float32.
        """
        last = len(self.series.steps) - 1
        merged = self.series.merged[last]
        files = set() if merged else {self.series.file(name, last) for name in self.series.tensors}
        others = other_tensors(files, self.series.skipped)
        shard_size = parse_size(self.output.shard_size, "shard_size")
        return plan_model(
            self.series, self.extrapolator, self.state(), self.target, self.output.dtype, shard_size, others
        )


def prepare(
    series: Any,
    node: dict[str, Any],
    target: float | None,
    rules: JumpRules,
    output: OutputSettings,
    first: float | None = None,
    last: float | None = None,
) -> Job:
    """Return the job, refused before anything is read where it cannot be done.

    Args:
        series: from `open_series`.
        node: configuration of the method, with its name.
        target: step to extrapolate to; None for a method that has its own.
        rules: what is copied, and the cap.
        output: how it is written.
        first: step of the first checkpoint used; None for the first there is.
        last: step of the last checkpoint used; None for the last there is.

    Raises:
        BadInput: names the key.
    """
    if not isinstance(series, ModelSeries):
        raise BadInput(
            "checkpoints: this run kept a sample of its weights, not whole models; train with recorder.checkpoint_every"
        )
    if not series.config:
        raise BadInput(
            f"{series.directories[-1]}: no config.json, without which Transformers cannot load a model"
        )
    extrapolator = build_extrapolator(node, rules)
    rows = window(series.steps, first, last)
    series = series.select(rows)
    require_checkpoints(series, max(2, extrapolator.minimum_checkpoints), f"method={node['name']}")
    if isinstance(extrapolator, Expo):
        if target is not None:
            raise BadInput("target: method=expo goes as far as method.alpha says; leave target out")
        target = extrapolator.target(series.steps)
    if target is None:
        raise BadInput("target: give the step to extrapolate to, target=STEP")
    if not target > series.steps[-1]:
        raise BadInput(
            f"target: step {target:g} is not after the last checkpoint used, step {series.steps[-1]:g}; give a later "
            "one, or last=STEP to use only checkpoints up to that step"
        )
    return Job(series, extrapolator, dict(node), float(target), output)


def window(steps: np.ndarray, first: float | None, last: float | None) -> list[int]:
    """Return the rows from step `first` to step `last`.

    Raises:
        BadInput: there is no checkpoint of one of the steps, or none between them.
    """
    for key, step in (("first", first), ("last", last)):
        if step is not None and step not in steps:
            there = ", ".join(f"{each:g}" for each in steps)
            raise BadInput(f"{key}: no checkpoint of step {step:g}; there are {there}")
    low, high = steps[0] if first is None else first, steps[-1] if last is None else last
    if low > high:
        raise BadInput(f"first: step {low:g} is after last, step {high:g}")
    return [int(row) for row in np.flatnonzero((steps >= low) & (steps <= high))]


def write_model(
    job: Job,
    path: Path,
    progress: Callable[[int], None] | None = None,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the extrapolated model to the directory `path`, whole or not at all, and return its provenance.

    Args:
        job: with `observe` done where the method needs it.
        path: takes the place of what is there.
        progress: called with the bytes of each slice that was written.
        extra: added to the provenance.

    Raises:
        BadInput: no room on the disk, or a weight or a forecast is not finite.
        OSError: the disk fails.
    """
    plan = job.plan()
    require_free_space(path.parent, plan.nbytes + _SMALL_FILES, "the extrapolated model")
    used = job.series.select(plan.rows)
    with atomic_directory(path) as unfinished:
        job.bytes_read += write_weights(used, plan, job.target, unfinished, job.output.workers, progress)
        beside = copy_beside_weights(job.series.directories, job.series.config, job.output.dtype, unfinished)
        record = {**_record(job, plan, used, beside), **(extra or {})}
        write_json(unfinished / PROVENANCE, record)
    return record


def require_output(path: Path, sources: tuple[Path, ...], clean: bool, run: Path) -> None:
    """Refuse an output directory that would destroy something.

    Raises:
        BadInput: it is or holds a source, exists without `clean`, or holds something else than such a model.
    """
    place = path.resolve()
    for source in sources:
        if place == source.resolve() or place in source.resolve().parents:
            raise BadInput(f"output: {path} is, or holds, the checkpoint {source}; choose another directory")
    if not path.exists():
        if path.parent.exists() and not path.parent.is_dir():
            raise BadInput(f"output: {path.parent} is not a directory")
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    if not (path / PROVENANCE).is_file():
        raise BadInput(
            f"output: {path} exists and was not written by lab extrapolate; choose another directory"
        )
    unfinished_same = read_json(path / PROVENANCE).get("run") == str(run)
    if not clean and not unfinished_same:
        raise BadInput(f"output: {path} exists; choose another directory, or clean=true to replace it")


def remove_leftovers(path: Path) -> None:
    """Remove what a killed process left of writing to `path`."""
    for leftover in path.parent.glob(f".{path.name}.*.partial"):
        if leftover.is_dir():
            remove_tree(leftover)


def _record(job: Job, plan: Plan, used: ModelSeries, beside: list[str]) -> dict[str, Any]:
    extrapolator, state = job.extrapolator, job.state()
    copied = [name for name in job.series.tensors if extrapolator.rules.copied(name)]
    moved = [name for name in job.series.tensors if name not in copied]
    one = len({plan.combinations[name].tobytes() for name in moved}) == 1
    each = moved[:1] if one else moved
    own = extrapolator.scope == "tensor" and job.products is not None
    details = {name: extrapolator.details(state.steps, extrapolator.products(state, name)) for name in moved}
    return {
        "schema_version": 1,
        "method": job.node,
        "formula": extrapolator.formula,
        "target_step": job.target,
        "steps": job.series.steps,
        "steps_used": used.steps,
        "arithmetic": "float32, from combination weights in float64",
        "rounding": "to nearest, ties to even",
        "dtype": job.output.dtype,
        "stored_types": sorted(set(plan.dtypes.values())),
        "rules": {
            "copy": extrapolator.rules.copy,
            "norm_cap": extrapolator.rules.norm_cap,
            "norm_cap_scope": extrapolator.rules.norm_cap_scope,
        },
        "combination": {"all tensors" if one else name: plan.combinations[name] for name in each},
        "details": details if own else details[moved[0]] if moved else {},
        "copied_tensors": {"from_step": job.series.steps[-1], "names": copied},
        "other_tensors": sorted(plan.others),
        "tied": dict(job.series.tied),
        "left_out": {
            name: why
            for name, why in job.series.skipped.items()
            if name not in plan.others and name not in plan.dtypes
        },
        "copied_files": beside,
        "notes": list(job.series.notes),
        "sources": [
            {
                "step": step,
                "directory": str(directory),
                "adapter_merged": merged,
                "files": [
                    describe_file(file, job.output.hash == "whole")
                    for file in sorted({used.file(name, row) for name in used.tensors})
                ],
            }
            for row, (step, directory, merged) in enumerate(
                zip(used.steps, used.directories, used.merged, strict=True)
            )
        ],
        **provenance(),
    }
