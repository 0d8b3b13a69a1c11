"""Figures and page of one measured run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.figures import run as figures
from lab.figures.style import save
from lab.measure_settings import MeasureSettings
from lab.measurement import Measurement
from lab.report import Picture, Report, Row, write_report

if TYPE_CHECKING:
    import xarray as xr

_DRAWN = {
    "r2": (
        figures.r_squared_histogram,
        "How straight the {what} moved (R² against step), and what a driftless random walk gives at the same "
        "steps: a high R² says little until it is to the right of the black curve.",
    ),
    "paths": (
        figures.example_paths,
        "Six of the {what}, from the median mover to the largest, with their least-squares lines.",
    ),
    "skill": (
        figures.skill_by_horizon,
        "Forecasts of the {what} from the first three quarters of the run, scored on the rest. Above zero, "
        "the straight line beats standing still.",
    ),
}

_MEANINGS = {
    "r2_median": ("median R²", "Half of the paths are fitted better than this by a straight line in time."),
    "r2_share_above_0_7": ("share with R² above .7", "The share that the original claim is about."),
    "null_r2_median": (
        "median R² of chance",
        "The same for driftless random walks at the same steps and through the same filter.",
    ),
    "null_p_value": (
        "sign-flip p",
        "How often the run's own increments with random signs are at least as straight; small: straighter than "
        "chance.",
    ),
    "skill": (
        "skill, two-point",
        "1 - squared error of the line through first and last fitted checkpoint over that of standing still. "
        "Below 0 the line does harm.",
    ),
    "skill_damped": ("skill, damped", "The same with the step shortened by the damping."),
    "damping": ("damping", "Share of the linear step that was best inside the fitted part of the run."),
    "skill_p_value": ("sign-flip p of damped skill", "How often random signs forecast at least as well."),
    "retained_share": ("share kept by the filter", "1 where the protocol has no filter."),
}

_TESTED = {
    "r2_median": (
        "median R², as tested",
        "What the sign-flip p is of: the same without momentum, which makes paths straighter by itself; as it is where "
        "checkpoints are far enough apart.",
    ),
    "r2_median_null_median": (
        "median R² of random signs",
        "The same after the run's own increments were given random signs.",
    ),
}


def draw_measurements(runs: dict[str, Measurement], note: str, directory: Path) -> list[Picture]:
    """Draw and write the figures of runs side by side; `note` says seeds and sizes."""
    pictures = []
    for kind in next(iter(runs.values())).numbers:
        what = "weights" if kind == "weights" else "log-probs of fixed responses"
        for name, (draw, caption) in _DRAWN.items():
            path = save(*draw(runs, kind, note), directory, f"{name}_{kind}")
            pictures.append(Picture(path, caption.format(what=what)))
    return pictures


def measurement_sections(runs: dict[str, Measurement]) -> list[tuple[str, list[Row]]]:
    """Return the tables of runs side by side, one for each kind of trajectory."""
    sections = []
    for kind in next(iter(runs.values())).numbers:
        each = [measured.numbers[kind] for measured in runs.values()]
        rows = [
            Row(name, [numbers[key] for numbers in each], meaning)
            for key, (name, meaning) in _MEANINGS.items()
        ]
        tested = [numbers["nulls"].get("sign_flip", {}) for numbers in each]
        rows += [
            Row(title, [found.get(key) for found in tested], meaning)
            for key, (title, meaning) in _TESTED.items()
        ]
        rows += [
            Row(
                "lag cosine",
                [numbers["lag_cosine"]["cosine"][0] for numbers in each],
                "Cosine of successive displacements, momentum taken out: 0 for a random walk, 1 for a line.",
            ),
            Row(
                "split-half cosine",
                [numbers["split_half"]["cosine"] for numbers in each],
                "Cosine of the displacements over the first and the second half of the run, a gap between them.",
            ),
        ]
        sections.append((f"Straightness and forecasts: {kind}", rows))
    return sections


def provenance_details(attributes: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """Return what a reader needs to trace a store, name and value."""
    names = (
        "seed",
        "created_at",
        "git_commit",
        "git_dirty",
        "packages",
        "source_dtype",
        "storage_dtype",
        "arithmetic_dtype",
    )
    return [(name, str(attributes[name])) for name in names if name in attributes]


def write_measurement(
    measured: Measurement,
    store: xr.DataTree,
    source: str,
    verdict: str,
    how: MeasureSettings,
    directory: Path,
) -> None:
    """Write figures and `report.html` of one measured run into `directory`."""
    runs = {"run": measured}
    note = f"1 run (seed {store.attrs['seed']}), {len(measured.steps)} recorded steps"
    report = Report(
        title=f"How straight is {source}?",
        verdict=verdict,
        introduction=[
            "One run is one observation. The sign-flip p-values ask whether this run's path is straighter, or "
            "easier to forecast, than its own increments in random directions; they say nothing about other seeds."
        ],
        columns=["this run"],
        sections=measurement_sections(runs),
        pictures=draw_measurements(runs, note, directory / "figures"),
        details=[("source", source), ("protocol", how.protocol), *provenance_details(store.attrs)],
    )
    write_report(report, directory / "report.html")
