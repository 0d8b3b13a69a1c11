"""What a measurement of full checkpoints leaves behind: store, figures and page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lab.checkpoints.measurement import CheckpointMeasurement
from lab.checkpoints.report import plan_figures, plan_probe_figures, write_page
from lab.figures.meanwhile import drawn_meanwhile
from lab.report import Picture

if TYPE_CHECKING:
    from lab.probing.measurement import ProbeMeasurement


def write_results(
    measured: CheckpointMeasurement,
    probed: ProbeMeasurement | None,
    source: str,
    verdict: str,
    attributes: dict[str, str | int | float],
    cores: int,
    directory: Path,
) -> None:
    """Write `measurement.nc`, the figures and `report.html` into `directory`.

    Args:
        measured: the measurement, log-probs included where probes were given.
        probed: what was measured on probes.
        source: what was measured.
        verdict: the line that answers the question.
        attributes: what a reader needs to trace it.
        cores: how many may be busy.
        directory: exists.
    """
    note = f"{measured.numbers['weights']['n']:,} weights, {len(measured.steps)} checkpoints"
    planned = plan_figures(measured, note)
    if probed is not None:
        planned += plan_probe_figures(measured, probed.numbers)
    figures = directory / "figures"
    with drawn_meanwhile({each.name: each.draw for each in planned}, figures, cores):
        from lab.checkpoints.store import (
            write_measurement_store,  # with xarray, which takes as long as a figure
        )

        write_measurement_store(measured, attributes, {} if probed is None else probed.groups, directory)
    pictures = [Picture(figures / f"{each.name}.png", each.caption) for each in planned]
    details = [(name, str(value)) for name, value in attributes.items() if name != "source"]
    write_page(measured, pictures, source, verdict, details, directory)
