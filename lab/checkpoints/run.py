"""One run of `lab measure checkpoints=PATH`: the pass, what it writes, and its summary."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from lab.byte_progress import byte_progress
from lab.checkpoints.measurement import bytes_to_read, measure_checkpoints, selected_counts
from lab.checkpoints.results import write_results
from lab.files import remove_unfinished
from lab.linearity import verdict
from lab.measure_settings import CheckpointSettings
from lab.probing.probe_file import read_probes
from lab.process import peak_memory_mb, seconds_since_start
from lab.provenance import provenance
from lab.runs import Run
from lab.trajectory.readers import ModelSeries

if TYPE_CHECKING:
    from lab.probing.measurement import ProbeMeasurement

PARTIAL = "partial.npz"


def measure_into(
    held: Run, series: ModelSeries, source: str, how: CheckpointSettings, resolved: dict[str, Any]
) -> dict[str, Any]:
    """Measure `series` into the run directory `held`; an interrupted pass goes on from what it has stored there.

    Args:
        held: the run.
        series: full checkpoints, at least three.
        source: what they are called in the report.
        how: settings of the measurement.
        resolved: the whole configuration.

    Returns:
        The summary that was written.

    Raises:
        BadInput: see `lab.checkpoints.measurement.measure_checkpoints`.
    """
    remove_unfinished(held.path, held.path / "figures")
    partial = held.path / PARTIAL
    total = bytes_to_read(series, selected_counts(series, how))
    read = 0

    started = time.perf_counter()
    with byte_progress("weights", total) as advance:

        def progress(size: int) -> None:
            nonlocal read
            read += size
            advance(size)

        measured = measure_checkpoints(series, how, resolved["seed"], partial, progress)
    seconds = time.perf_counter() - started
    probed = _probed(series, how, resolved)
    if probed is not None:
        measured.numbers["logprobs"] = probed.numbers["logprobs"]
        measured.curves["logprobs"], measured.examples["logprobs"] = probed.curves, probed.examples
    line = verdict(measured.numbers["weights"])
    attributes = _attributes(series, source, how, resolved)
    write_results(measured, probed, source, line, attributes, how.threads, held.path)
    summary = {
        **measured.numbers,
        **({} if probed is None else probed.numbers),
        "lag_cosine": measured.numbers["weights"]["lag_cosine"],
        "source": source,
        "protocol": how.protocol,
        "steps": measured.steps,
        "tied": dict(series.tied),
        "skipped": dict(series.skipped),
        "notes": list(series.notes),
        "verdict": line,
        "bytes_read": read,
        "pass_s": seconds,
        "wall_clock_s": seconds_since_start(),
        "peak_rss_mb": peak_memory_mb(),
        "result": line,
    }
    held.write_summary(summary)
    partial.unlink(missing_ok=True)
    held.finish()
    return summary


def _probed(
    series: ModelSeries, how: CheckpointSettings, resolved: dict[str, Any]
) -> ProbeMeasurement | None:
    """What is measured on probes, None where there are none."""
    if not resolved["probes"]:
        return None
    from lab.bar import progress_bar
    from lab.probing.measurement import measure_probes

    probes = read_probes(resolved["probes"])
    with progress_bar() as progress:
        task = progress.add_task("probes", total=len(series.steps) + 3)
        return measure_probes(
            series,
            probes,
            resolved["chat_template"],
            how,
            resolved["seed"],
            lambda models: progress.advance(task, models),
        )


def _attributes(
    series: ModelSeries, source: str, how: CheckpointSettings, resolved: dict[str, Any]
) -> dict[str, str | int | float]:
    """What a reader needs to trace the store."""
    known: dict[str, Any] = {
        "source": source,
        "protocol": how.protocol,
        "seed": resolved["seed"],
        "config": resolved,
        "source_dtype": sorted({info.dtype for info in series.tensors.values()}),
        "storage_dtype": "float64",
        "arithmetic_dtype": "float32 within a block, float64 over blocks and in the nulls",
        **provenance(),
    }
    return {
        name: value
        if isinstance(value, (str, int, float)) and not isinstance(value, bool)
        else json.dumps(value)
        for name, value in known.items()
    }
