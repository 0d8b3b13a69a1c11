"""The phase diagram, analytic beside simulated, and where the measured runs lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from lab.figures.phase_diagram import MAPS, Look, draw_map
from lab.figures.style import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, VERMILION, YELLOW, Columns, style
from paper_figs.sign_noise import LEVELS
from paper_figs.stored import stored
from theory.phase_diagram import phase_diagram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

SOURCE = "experiments/phase_diagram/result.json"
NAMES = ("r_squared", "two_point_skill")
DISCREPANCY = Look("PuOr", -4.0, 4.0, "neither")
FINE = 80
"""Cells of each axis of the maps that runs are drawn on."""
LARGEST_CURVATURE, SMALLEST_SIGNAL, LARGEST_SIGNAL = 12.0, 0.3, 10.0
"""Of those maps; a run beyond them is drawn at the edge."""


@dataclass(frozen=True)
class Arm:
    """Runs of one condition after another: which rows, and what goes on along the line."""

    source: str
    label: str
    colour: str
    mark: str
    rows: Mapping[str, str]
    along: tuple[str, tuple[str, ...]]


FLIPS, SNR, KINDS = (f"experiments/{name}/results.json" for name in ("q1_headline", "q2_snr", "q3_sources"))
ARMS = (
    Arm(FLIPS, "RL, flips 0, .2, .4", BLUE, "o", {}, ("flips", ("0", "0.2", "0.4"))),
    Arm(FLIPS, "RL, flips .2, .4, matched", SKY, "o", {}, ("flips", ("0.2 matched", "0.4 matched"))),
    Arm(SNR, "SFT, AdamW 1e-4, noise", VERMILION, "s", {"arm": "adamw_unit"}, ("snr_db", LEVELS)),
    Arm(SNR, "SFT, AdamW 1e-3, noise", ORANGE, "D", {"arm": "adamw_long"}, ("snr_db", LEVELS)),
    Arm(SNR, "SFT, SGD, noise", YELLOW, "^", {"arm": "sgd_unit"}, ("snr_db", LEVELS)),
    Arm(KINDS, "SFT, 128 answers", GREEN, "P", {}, ("arm", ("sft",))),
    Arm(KINDS, "SFT, 16 answers", GREEN, "X", {}, ("arm", ("sft small",))),
    Arm(KINDS, "SFT, 16 own, fresh, frozen", PINK, "v", {}, ("arm", ("own fresh", "own frozen"))),
)


def draw(results: Mapping[str, Any]) -> tuple[Figure, Columns]:
    """Above: expected R² and skill, analytic, simulated and their discrepancy. Below: the runs on both maps."""
    config = results["config"]
    curvature, signal = np.array(config["curvature_horizon"]), np.array(config["signal"])
    null = results["null_quantile"]
    data: dict[str, np.ndarray] = {
        "curvature_horizon": np.repeat(curvature, len(signal)),
        "signal": np.tile(signal, len(curvature)),
    }
    with style():
        figure = Figure(figsize=(7.4, 8.4))
        halves: Any = figure.subfigures(2, 1, height_ratios=(1.15, 1.0))
        above, below = halves
        grid = above.subplots(2, 3, sharex=True, sharey=True)
        for row, (name, (title, look)) in enumerate(zip(NAMES, MAPS.items(), strict=True)):
            found = next(each for each in results["maps"] if each["name"] == name)
            predicted, simulated, error = (
                np.array(found[key]) for key in ("predicted", "simulated", "standard_error")
            )
            z = (simulated - predicted) / error
            axes = grid[row]
            borders = (null["predicted"], null["simulated"]) if row == 0 else (0.0, 0.0)
            for axis, values, border, kind in zip(
                axes, (predicted, simulated), borders, ("theory", "simulated"), strict=False
            ):
                mesh = draw_map(axis, curvature, signal, values, look, border)
                axis.set_title(f"{title}: {kind}" if row == 0 else f"two-point skill: {kind}", fontsize=8)
            above.colorbar(mesh, ax=axes[:2], extend=look.extend)
            mesh = draw_map(axes[2], curvature, signal, z, DISCREPANCY)
            above.colorbar(mesh, ax=axes[2])
            axes[2].set_title(f"z; largest {np.abs(z).max():.1f} of {z.size}", fontsize=8)
            axes[0].set_ylabel("signal ratio S")
            for axis in axes:
                axis.tick_params(labelsize=7)
                if row:
                    axis.set_xlabel("curvature x horizon", fontsize=8)
            data |= {
                f"{name}_predicted": predicted.ravel(),
                f"{name}_simulated": simulated.ravel(),
                f"{name}_standard_error": error.ravel(),
            }
        seeds = _draw_measured(below, config["checkpoints"], data)
        draws = config["seeds"] * config["replicates"] * config["coordinates"]
        above.suptitle(
            f"noisy quadratic in the module, {draws:,} coordinates a cell, {config['checkpoints']} checkpoints, "
            "horizon as long as the window\n"
            f"black: skill 0, and the {100 * config['level']:g} % quantile of one driftless walk's R² (theory "
            f"{null['predicted']:.3f}, simulated {null['simulated']:.3f} ± {null['standard_error']:.3f})",
            fontsize=8,
        )
        below.suptitle(
            f"measured runs of the built-in model on the maps of theory: medians of {seeds} seeds, bars their range "
            "(8 seeds: 99 %)\nfrom the large mark on, noise rises along a line",
            fontsize=8,
        )
    return figure, data


def _draw_measured(figure: SubFigure, checkpoints: int, data: dict[str, np.ndarray]) -> int:
    """Draw the runs on both maps; return the number of seeds of a condition."""
    axes = figure.subplots(1, 2, sharey=True)
    curvature = np.linspace(0.0, np.sqrt(LARGEST_CURVATURE), FINE) ** 2
    signal = np.geomspace(SMALLEST_SIGNAL, LARGEST_SIGNAL, FINE)
    diagram = phase_diagram(checkpoints, curvature[:, None], signal)
    borders = (float(diagram.null_quantile.flat[0]), 0.0)
    for axis, name, (title, look), border in zip(axes, NAMES, MAPS.items(), borders, strict=True):
        draw_map(axis, curvature, signal, getattr(diagram, name), look, border)
        axis.set(title=title, xlabel="curvature x horizon", yticks=[0.3, 1, 3, 10])
        axis.set_yticklabels(["0.3", "1", "3", "10"])
        axis.set_yticks([], minor=True)
        axis.set_ylim(SMALLEST_SIGNAL, LARGEST_SIGNAL)
    axes[0].set_ylabel("signal ratio S of the run's window")
    most = 0
    for arm in ARMS:
        results = stored(arm.source)
        if results is None:
            continue
        places = [_place(results["runs"], arm, value) for value in arm.along[1]]
        for axis in axes:
            _draw_arm(axis, arm, places)
        most = max(most, *(len(place) for place in places))
        middle = np.array([np.median(place, axis=0) for place in places])
        data |= {
            f"{arm.label}_curvature_horizon".replace(",", ""): middle[:, 0],
            f"{arm.label}_signal_squared".replace(",", ""): middle[:, 1],
        }
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7)
    return most


def _place(rows: Sequence[Mapping[str, Any]], arm: Arm, value: str) -> np.ndarray:
    """Curvature x horizon and pooled S² of the runs of one condition, float64 [seed, 2]."""
    wanted = {**arm.rows, arm.along[0]: value}
    return np.array(
        [
            (row["curvature_horizon"], row["signal_squared"])
            for row in rows
            if all(str(row[key]) == label for key, label in wanted.items())
            and row.get("curvature_horizon") is not None
        ],
        dtype=np.float64,
    ).reshape(-1, 2)


def _draw_arm(axis: Axes, arm: Arm, places: Sequence[np.ndarray]) -> None:
    middles = []
    for index, place in enumerate(places):
        across = np.sqrt(np.clip(place[:, 0], 0.0, LARGEST_CURVATURE))
        up = np.clip(np.sqrt(np.maximum(place[:, 1], 0.0)), SMALLEST_SIGNAL, LARGEST_SIGNAL)
        x, y = float(np.median(across)), float(np.median(up))
        axis.plot([across.min(), across.max()], [y, y], color=arm.colour, lw=0.7, alpha=0.8)
        axis.plot([x, x], [up.min(), up.max()], color=arm.colour, lw=0.7, alpha=0.8)
        axis.plot(
            x,
            y,
            arm.mark,
            color=arm.colour,
            mec=BLACK,
            mew=0.6,
            ms=7 if index == 0 else 4.5,
            ls="none",
            label=arm.label if index == 0 else None,
            zorder=3,
        )
        middles.append((x, y))
    axis.plot(*np.array(middles).T, color=arm.colour, lw=1.2)
