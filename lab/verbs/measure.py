"""`lab measure run=NAME` or `checkpoints=PATH`: straightness and forecastability, each beside its nulls."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from lab.errors import BadInput
from lab.measure_settings import CheckpointSettings, MeasureSettings
from lab.process import peak_memory_mb, seconds_since_start
from lab.runs import find_run, open_run
from lab.settings import build, whole_number
from lab.verbs.train import RUN_KEYS, is_dry_run, print_table, refuse_unread_keys, run_settings

if TYPE_CHECKING:
    import xarray as xr

    from lab.trajectory.readers import ModelSeries

_HOW = tuple(field.name for field in dataclasses.fields(CheckpointSettings))
_SOURCES = ("run", "checkpoints", "base", "probes", "chat_template")
_OF_CHECKPOINTS = ("base", "probes", "sample_fraction")


def run(config: DictConfig) -> str:
    """Measure and return the verdict.

    Raises:
        BadInput: no such run or checkpoints, ones that cannot be read, or too few of them.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    refuse_unread_keys(resolved, (*RUN_KEYS, "seed", "threads", "dry_run", *_SOURCES, *_HOW))
    how = build(CheckpointSettings, {key: resolved[key] for key in _HOW})
    whole_number(resolved["seed"], "seed", least=0)
    if resolved["run"] and resolved["checkpoints"]:
        raise BadInput("run and checkpoints name two things to measure; give one of them")
    if resolved["checkpoints"]:
        return _of_checkpoints(resolved, how)
    if not resolved["run"]:
        raise BadInput(
            "run: name the run to measure, run=experiment/name (`lab list` shows them), or a folder of "
            "checkpoints, checkpoints=PATH"
        )
    return _of_run(resolved, find_run(resolved["runs_dir"], str(resolved["run"])), how)


def _of_run(resolved: dict[str, Any], source: Path, how: CheckpointSettings) -> str:
    """Measure the sampled weights and the log-probs that a run of the lab has recorded."""
    for key in _OF_CHECKPOINTS:
        if resolved[key] is not None:
            raise BadInput(
                f"{key}: only full checkpoints have it, and this is a run; measure checkpoints=PATH"
            )
    from lab.trajectory.store import FILE_NAME, open_store

    if not (source / FILE_NAME).exists():
        children = sorted(path.parent.name for path in source.glob(f"*/{FILE_NAME}"))
        hint = f"measure one of its parts: {', '.join(f'{source}/{name}' for name in children)}"
        raise BadInput(f"run: {source} has no {FILE_NAME}; {hint if children else 'it has not finished'}")
    return _of_store(resolved, open_store(source), str(source), how)


def _of_store(resolved: dict[str, Any], store: xr.DataTree, source: str, how: CheckpointSettings) -> str:
    from lab.trajectory.store import group

    if is_dry_run(resolved):
        print_table({str(name): size for name, size in group(store, "weights").sizes.items()})
        return "dry run: nothing was computed"
    with open_run(run_settings(resolved, "measure"), resolved) as held:
        from lab.linearity import verdict
        from lab.measurement import measure
        from lab.measurement_report import write_measurement

        measured = measure(store, how.protocol, how.flips, resolved["seed"], how.fit_share)
        line = verdict(measured.numbers["weights"])
        settings = MeasureSettings(how.protocol, how.flips)
        write_measurement(measured, store, source, line, settings, held.path)
        held.write_summary(
            {
                **measured.numbers,
                "lag_cosine": measured.numbers["weights"]["lag_cosine"],
                "source": source,
                "protocol": how.protocol,
                "verdict": line,
                "wall_clock_s": seconds_since_start(),
                "peak_rss_mb": peak_memory_mb(),
                "result": line,
            }
        )
        held.finish()
        return f"{held.path / 'report.html'}: {line}"


def _of_checkpoints(resolved: dict[str, Any], how: CheckpointSettings) -> str:
    """Measure all the weights of full checkpoints."""
    from lab.trajectory.readers import ModelSeries, open_series, require_checkpoints
    from lab.trajectory.series import RunSeries

    series = open_series(resolved["checkpoints"], resolved["base"])
    source = _name(resolved["checkpoints"])
    if isinstance(series, RunSeries):
        return _of_store(resolved, series.tree, source, how)
    assert isinstance(series, ModelSeries)  # What `open_series` returns but for stores.
    require_checkpoints(series, 3)
    from lab.checkpoints.measurement import bytes_to_read, selected_counts

    counts = selected_counts(series, how)
    if resolved["probes"]:
        _check_probes(resolved, series)
    if is_dry_run(resolved):
        print_table(_estimate(series, counts, bytes_to_read(series, counts)))
        return "dry run: nothing was computed"
    with open_run(run_settings(resolved, "measure"), resolved) as held:
        from lab.checkpoints.run import measure_into

        summary = measure_into(held, series, source, how, resolved)
        print_table(_shown(summary))
        return f"{held.path / 'report.html'}: {summary['result']}"


def _check_probes(resolved: dict[str, Any], series: ModelSeries) -> None:
    """Refuse what would otherwise come to light only after the pass over the weights."""
    from lab.probing.probe_file import read_probes

    read_probes(str(resolved["probes"]))
    if not isinstance(resolved["chat_template"], bool):
        raise BadInput(f"chat_template: expected true or false, got {resolved['chat_template']!r}")
    if any(series.merged):
        raise BadInput("probes: some checkpoints are adapters; save merged models to put text through them")
    for directory in series.directories:
        if not (directory / "tokenizer_config.json").is_file():
            raise BadInput(
                f"probes: {directory} has no tokenizer; copy that of the model it was trained from"
            )


def _name(checkpoints: Any) -> str:
    if isinstance(checkpoints, (list, tuple)):
        return (
            f"{checkpoints[0]} and {len(checkpoints) - 1} more"
            if len(checkpoints) > 1
            else str(checkpoints[0])
        )
    return str(checkpoints)


def _estimate(series: ModelSeries, counts: dict[str, int], size: int) -> dict[str, Any]:
    """What would be read, and about how long it takes on two cores at a gigabyte a second of disk."""
    return {
        "checkpoints": len(series.steps),
        "steps": f"{series.steps[0]:g} to {series.steps[-1]:g}",
        "tensors": len(counts),
        "weights": f"{sum(counts.values()):,}",
        "to read (GB)": size / 1e9,
        "time (s), at 1 GB/s of disk": round(10 + size / 1e9 + 0.01 * len(counts)),
        "memory (GB)": "below 1",
        "disk (MB)": round(3 + 0.01 * len(counts)),
    }


def _shown(summary: dict[str, Any]) -> dict[str, Any]:
    """The short table at the end."""
    weights = summary["weights"]
    keys = (
        "n",
        "r2_median",
        "r2_share_above_0_7",
        "null_r2_median",
        "null_p_value",
        "skill",
        "skill_damped",
        "damping",
    )
    seconds = ("wall_clock_s", "pass_s", "peak_rss_mb", "bytes_read")
    return {key: weights[key] for key in keys} | {key: summary[key] for key in seconds}
