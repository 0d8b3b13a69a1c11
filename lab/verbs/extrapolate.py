"""`lab extrapolate checkpoints=PATH target=STEP`: write the model that training would, perhaps, have reached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from lab.byte_progress import byte_progress
from lab.errors import BadInput
from lab.extrapolation.extrapolator import JumpRules
from lab.extrapolation.output_settings import OutputSettings
from lab.extrapolation.settings import build_extrapolator
from lab.process import peak_memory_mb, seconds_since_start
from lab.runs import Run, open_run
from lab.settings import build, whole_number
from lab.verbs.train import RUN_KEYS, is_dry_run, print_table, refuse_unread_keys, run_settings

if TYPE_CHECKING:
    from lab.extrapolation.extrapolate import Job

_RULES = ("copy", "norm_cap", "norm_cap_scope")
_OUTPUT = ("dtype", "shard_size", "hash", "workers")
_OWN = ("checkpoints", "base", "first", "last", "target", "output", "method", "compare")


def run(config: DictConfig) -> str:
    """Extrapolate and return the one-line result.

    Raises:
        BadInput: an impossible value, checkpoints that cannot be used, or a forecast that cannot be stored.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    refuse_unread_keys(resolved, (*RUN_KEYS, "seed", "threads", "dry_run", *_OWN, *_RULES, *_OUTPUT))
    whole_number(resolved["seed"], "seed", least=0)
    if not isinstance(resolved["compare"], bool):
        raise BadInput(f"compare: expected true or false, got {resolved['compare']!r}")
    steps = {key: _step(resolved[key], key) for key in ("first", "last", "target")}
    rules = build(JumpRules, {key: resolved[key] for key in _RULES})
    output = build(OutputSettings, {key: resolved[key] for key in _OUTPUT})
    if not resolved["checkpoints"]:
        raise BadInput("checkpoints: name the checkpoints, checkpoints=PATH or checkpoints=[PATH@STEP,...]")
    build_extrapolator(resolved["method"])  # a wrong setting is refused before the slow imports
    from lab.extrapolation.extrapolate import prepare, remove_leftovers, require_output
    from lab.trajectory.readers import open_series

    series: Any = open_series(resolved["checkpoints"], resolved["base"])
    job = prepare(series, resolved["method"], steps["target"], rules, output, steps["first"], steps["last"])
    elsewhere = None if resolved["output"] is None else Path(str(resolved["output"])).expanduser()
    if is_dry_run(resolved):
        if elsewhere is not None:
            require_output(elsewhere, job.series.directories, bool(resolved["clean"]), Path())
        print_table(_estimate(job, resolved["compare"]))
        return "dry run: nothing was computed"
    job.plan()  # refuses what the weights of a forecast alone show, before a run directory is made
    with open_run(run_settings(resolved, "extrapolate"), resolved) as held:
        place = held.path / "model" if elsewhere is None else elsewhere
        require_output(place, job.series.directories, bool(resolved["clean"]), held.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if held.resumed:
            remove_leftovers(place)
        summary = _extrapolate(job, held, place, resolved["compare"])
        held.write_summary(summary)
        held.finish()
        _print(job, summary)
        return f"{place}: {summary['result']}"


def _extrapolate(job: Job, held: Run, place: Path, all_methods: bool) -> dict[str, Any]:
    from lab.extrapolation.extrapolate import write_model

    skill = None
    if job.extrapolator.needs_products or all_methods:
        with byte_progress("reading", job.series_bytes) as show:
            job.observe(show)
        if len(job.series.steps) > max(2, job.extrapolator.minimum_checkpoints):
            job.judge(all_methods)
            assert job.comparison is not None
            skill = float(job.comparison.skill()[job.comparison.methods.index(job.node["name"])])
    plan = job.plan()
    with byte_progress("writing", plan.nbytes) as show:
        record = write_model(job, place, show, {"run": str(held.path)})
    count = sum(info.size for info in job.series.tensors.values())
    said = "" if skill is None else f", skill {skill:.3f} on held-out checkpoints"
    return {
        "output": str(place),
        "method": job.node["name"],
        "target_step": job.target,
        "steps": job.series.steps,
        "steps_used": record["steps_used"],
        "weights": {"n": count, "tensors": len(job.series.tensors)},
        "copied_tensors": len(record["copied_tensors"]["names"]),
        "stored_types": record["stored_types"],
        "shards": len(plan.shards),
        "skill": skill,
        "comparison": None if job.comparison is None else job.comparison.numbers(),
        "bytes_read": job.bytes_read,
        "bytes_written": plan.nbytes,
        "wall_clock_s": seconds_since_start(),
        "peak_rss_mb": peak_memory_mb(),
        "result": f"{job.node['name']} from step {job.series.steps[-1]:g} to {job.target:g}{said}",
    }


def _estimate(job: Job, all_methods: bool) -> dict[str, Any]:
    plan = job.plan()
    passes = job.extrapolator.needs_products or all_methods
    rows = job.series.steps if passes else job.series.steps[plan.rows]
    return {
        "checkpoints used": ", ".join(f"{step:g}" for step in rows),
        "tensors": len(job.series.tensors),
        "weights": sum(info.size for info in job.series.tensors.values()),
        "GB to read": (1 + passes)
        * len(rows)
        * sum(info.nbytes for info in job.series.tensors.values())
        / 1e9,
        "GB to write": plan.nbytes / 1e9,
        "files": len(plan.shards),
        "memory": "under 1 GB, whatever the size of the model",
    }


def _step(value: Any, key: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < float("inf"):
        raise BadInput(f"{key}: expected a step, got {value!r}")
    return float(value)


def _print(job: Job, summary: dict[str, Any]) -> None:
    print_table(
        {
            key: summary[key]
            for key in ("shards", "bytes_read", "bytes_written", "wall_clock_s", "peak_rss_mb")
        }
    )
    if job.comparison is not None:
        table = Table("method", "skill")
        for method, skill in zip(job.comparison.methods, job.comparison.skill(), strict=True):
            table.add_row(method, f"{skill:.3f}" if skill == skill else "–")
        Console().print(table)
