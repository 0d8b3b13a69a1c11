"""Figures and page of a measurement of full checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lab.checkpoints.collection import RUN
from lab.checkpoints.measurement import CheckpointMeasurement
from lab.figures import checkpoints as figures
from lab.figures import run as run_figures
from lab.figures.layers import by_layer
from lab.figures.meanwhile import Draw
from lab.figures.style import Columns
from lab.linearity.streaming import COARSE_BINS, NUMBERS, quantiles
from lab.measurement_report import measurement_sections
from lab.report import Picture, Report, Row, write_report
from lab.trajectory.module_labels import module_labels

_LEAST_SCALE = 0.1  # Skills below it are all but nothing, and shall look so.


@dataclass(frozen=True)
class Planned:
    """A figure that is still to be drawn: its name, its caption and what draws it."""

    name: str
    caption: str
    draw: Draw


def plan_figures(measured: CheckpointMeasurement, note: str) -> list[Planned]:
    """Return the figures of the weights."""
    numbers = measured.numbers["weights"]
    planned = [
        Planned(
            "r2_weights",
            "How straight the weights moved (R² against step), and what a driftless random walk gives at the same "
            "steps: a high R² says little until it is to the right of the black curve.",
            lambda: _histogram(measured, note),
        ),
        Planned(
            "heat_map",
            "Left: median R² of each module; blue is straighter than a random walk. Right: how much better the damped "
            "line forecasts the held-out checkpoints than standing still does; red is worse.",
            lambda: _heat_map(measured, note),
        ),
    ]
    if numbers["skill"] is not None:
        caption = "Forecasts of all weights, by how far ahead. Above zero, the line beats standing still."
        drawn = partial(run_figures.skill_by_horizon, {"run": measured}, "weights", note)
        planned.append(Planned("skill_weights", caption, drawn))
    return planned


def plan_probe_figures(measured: CheckpointMeasurement, numbers: dict[str, Any]) -> list[Planned]:
    """Return the figures of what was measured on probes."""
    found = numbers["logprobs"]
    note = f"{found['n'] + found['n_zero_variance']:,} response tokens, {len(measured.steps)} checkpoints"
    probes = f"{numbers['layer_source']['probes']} probes, first against last checkpoint"
    return [
        Planned(
            "r2_logprobs",
            "How straight the log-probs of the probes' responses moved, and what random walks give.",
            lambda: run_figures.r_squared_histogram({"run": measured}, "logprobs", note),
        ),
        Planned(
            "layers",
            "Left: R² of outputs of each layer at the positions that predict the responses. Right: the change of a "
            "layer's output with its weights held, with its input held, and the rest, each squared and over the "
            "squared whole; the parts are not orthogonal, so they need not add up to one.",
            lambda: by_layer(numbers["activations"], numbers["layer_source"], probes),
        ),
    ]


def _histogram(measured: CheckpointMeasurement, note: str) -> tuple[Figure, Columns]:
    numbers, curves = measured.numbers["weights"], measured.curves["weights"]
    medians = _or_nan(numbers["r2_median"]), _or_nan(numbers["null_r2_median"])
    counts = measured.collection.groups[RUN]["counts"]
    return figures.histogram_with_nulls(counts, curves.walk, curves.selection_matched, medians, note)


def _heat_map(measured: CheckpointMeasurement, note: str) -> tuple[Figure, Columns]:
    chance = measured.numbers["weights"]["null_r2_median"]
    layers, kinds, median, skill = cells(measured)
    low = 0.0 if chance is None else chance
    sizes = np.abs(skill[np.isfinite(skill)])
    largest = float(np.clip(sizes.max(initial=0.0), _LEAST_SCALE, 1.0))
    panels = {
        "median R² (white: chance)": (median, low, 0.0, 1.0),
        "damped skill (white: standing still)": (skill, 0.0, -largest, largest),
    }
    return figures.heat_map(layers, kinds, panels, note)


def cells(measured: CheckpointMeasurement) -> tuple[list[int], list[str], np.ndarray, np.ndarray]:
    """Return layers, module kinds, and median R² and damped skill of each cell, float64 [layer, kind].

    Tensors of one cell (weight and bias) are pooled; medians are good to a hundredth.
    """
    collection = measured.collection
    labels = [module_labels(name) for name in collection.names]
    layers = sorted({layer for layer, _ in labels})
    kinds = list(dict.fromkeys(kind for layer, kind in labels if layer >= 0))
    kinds += [kind for kind in dict.fromkeys(kind for _, kind in labels) if kind not in kinds]
    median, skill = (np.full((len(layers), len(kinds)), np.nan) for _ in range(2))
    members: dict[tuple[int, str], list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    for (layer, kind), indices in members.items():
        place = layers.index(layer), kinds.index(kind)
        coarse = sum(collection.tensors["coarse"][index] for index in indices)
        median[place] = quantiles(np.asarray(coarse), (0.5,))[0]
        numbers = collection.tensors["numbers"][indices[0]]
        if len(indices) > 1:
            products = np.sum([collection.tensors["products"][index] for index in indices], axis=0)
            numbers = measured.statistics.of_sums(products, np.zeros(COARSE_BINS, np.int64))["numbers"]
        skill[place] = numbers[NUMBERS.index("skill_damped")]
    return layers, kinds, median, skill


def sections(measured: CheckpointMeasurement) -> list[tuple[str, list[Row]]]:
    """Return the tables of the page."""
    numbers = measured.numbers["weights"]
    low_rank, tensors = numbers["low_rank"], numbers["tensors"]
    found = measurement_sections({"run": measured})
    found.append(
        (
            "One direction",
            [
                _share(low_rank["centred"], "first principal component", "variance over checkpoints"),
                _share(
                    low_rank["uncentred"], "one direction from the first checkpoint", "squared displacements"
                ),
            ],
        )
    )
    rate = tensors["false_discovery_rate"]
    tests = {"r2": "median R²", "skill": "damped skill", "lag_cosine": "lag cosine"}
    found.append(
        (
            "Tensor by tensor",
            [
                Row(
                    f"tensors beyond chance: {title}",
                    [_of(tensors[key])],
                    f"Sign-flip tests of each tensor, at a false discovery rate of {rate} (Benjamini-Hochberg).",
                )
                for key, title in tests.items()
            ],
        )
    )
    return found


def write_page(
    measured: CheckpointMeasurement,
    pictures: list[Picture],
    source: str,
    verdict: str,
    details: list[tuple[str, str]],
    directory: Path,
) -> None:
    """Write `report.html`.

    Args:
        measured: the measurement.
        pictures: figures in order.
        source: what was measured.
        verdict: the line that answers the question.
        details: provenance, name and value.
        directory: where the page goes.
    """
    numbers = measured.numbers["weights"]
    looked_at = f"{numbers['n']:,} weights of {len(measured.collection.names)} tensors"
    report = Report(
        title=f"How straight is {source}?",
        verdict=verdict,
        introduction=[
            f"{looked_at} over {len(measured.steps)} checkpoints, steps {measured.steps[0]:g} to "
            f"{measured.steps[-1]:g}. R², skill and persistence are of all of them; nulls of R², which need whole "
            f"paths, of {numbers['n_null_sample']:,} spread over the tensors by size.",
            "One run is one observation. The sign-flip p-values ask whether this run's path is straighter, or "
            "easier to forecast, than its own increments in random directions; they say nothing about other seeds.",
        ],
        columns=["this run"],
        sections=sections(measured),
        pictures=pictures,
        details=[("source", source), *details],
    )
    write_report(report, directory / "report.html")


def _share(found: dict[str, Any], name: str, of_what: str) -> Row:
    beside = (
        ""
        if found["null_median"] is None
        else f"; the same increments with random signs: {found['null_median']:.2f}"
    )
    tested = "" if found["p_value"] is None else f" (p = {found['p_value']:.2g})"
    return Row(f"share of {name}", [found["share"]], f"Of the {of_what}{beside}{tested}.")


def _of(found: dict[str, int]) -> str:
    return f"{found['significant']} of {found['tested']}" if found["tested"] else "not tested"


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
