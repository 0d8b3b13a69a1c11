"""Where runs lie: expected R² and forecast skill over curvature x horizon and S, with measured runs drawn in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, VERMILION, Columns, style
from lab.linearity.placement import Placement
from theory.gaussian_r_squared import random_walk_mean
from theory.phase_diagram import phase_diagram

_COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILION)
_MARKS = "osD^vP"
_LARGEST_CURVATURE, _SMALLEST_SIGNAL, _LARGEST_SIGNAL = 20.0, 0.1, 30.0


@dataclass(frozen=True)
class Look:
    """Colours of a map and the numbers at their ends."""

    colours: str
    low: float
    high: float
    extend: Literal["neither", "min", "both"]


MAPS = {
    "expected R²": Look("viridis", 0.0, 1.0, "neither"),
    "skill of the two-point forecast": Look("RdBu", -1.0, 1.0, "min"),
}


def draw_map(
    axis: Axes,
    curvature: np.ndarray,
    signal: np.ndarray,
    values: np.ndarray,
    look: Look,
    border: float | None = None,
) -> QuadMesh:
    """Draw one map, the root of curvature x horizon across and the logarithm of S up; return its colours.

    Args:
        axis: to draw on.
        curvature: curvature x horizon, increasing from 0, [column].
        signal: S, increasing, [row].
        values: [column, row].
        look: colours.
        border: value at which a black line is drawn; None for none.
    """
    root = np.sqrt(curvature)
    mesh = axis.pcolormesh(
        root, signal, values.T, cmap=look.colours, vmin=look.low, vmax=look.high, rasterized=True
    )
    if border is not None and values.min() < border < values.max():
        axis.contour(root, signal, values.T, [border], colors=BLACK, linewidths=0.9)
    ticks = np.array([tick for tick in (0.0, 0.5, 2.0, 5.0, 10.0, 20.0) if tick <= 1.001 * curvature[-1]])
    axis.set_yscale("log")
    axis.set_xticks(np.sqrt(ticks), [f"{tick:g}" for tick in ticks])
    return mesh


def placed_runs(
    placements: Mapping[str, Placement], checkpoints: int, note: str, cells: int = 60
) -> tuple[Figure, Columns]:
    """Two maps side by side, each with a cross of intervals for every run.

    Args:
        placements: by label.
        checkpoints: number of checkpoints that the map is drawn for.
        note: seeds and sizes, for the title.
        cells: of each axis of the map.
    """
    curvature = np.linspace(0.0, np.sqrt(_LARGEST_CURVATURE), cells) ** 2
    signal = np.geomspace(_SMALLEST_SIGNAL, _LARGEST_SIGNAL, cells)
    diagram = phase_diagram(checkpoints, curvature[:, None], signal[None, :])
    data: dict[str, np.ndarray] = {
        "curvature_horizon": np.repeat(curvature, cells),
        "signal": np.tile(signal, cells),
        "expected_r2": diagram.r_squared.ravel(),
        "two_point_skill": diagram.two_point_skill.ravel(),
        "damped_skill": diagram.damped_skill.ravel(),
    }
    with style():
        figure = Figure(figsize=(7.4, 3.3))
        axes = figure.subplots(1, 2, sharey=True)
        mean_null = float(random_walk_mean(checkpoints))
        null = float(diagram.null_quantile.flat[0])
        for axis, values, (title, look), border in zip(
            axes, (diagram.r_squared, diagram.two_point_skill), MAPS.items(), (null, 0.0), strict=True
        ):
            shown = draw_map(axis, curvature, signal, values, look, border)
            figure.colorbar(shown, ax=axis, extend=look.extend)
            axis.set(xlabel="curvature x horizon", title=title)
            _draw_runs(axis, placements)
        axes[0].set_ylabel("signal ratio S of the window")
        if placements:
            axes[1].legend(loc="lower right", frameon=True, framealpha=0.85)
        figure.suptitle(
            f"{note}; black: .95 quantile of one driftless walk's R² ({null:.2f}; mean {mean_null:.2f}), and skill 0",
            fontsize=8,
        )
    for label, placed in placements.items():
        pooled = placed.pooled
        data[f"{label}_curvature_horizon"] = np.array([pooled.curvature_horizon, *pooled.curvature_interval])
        data[f"{label}_signal"] = np.sqrt(
            np.maximum([pooled.signal_squared, *pooled.signal_squared_interval], 0.0)
        )
    return figure, data


def _draw_runs(axis: Axes, placements: Mapping[str, Placement]) -> None:
    for index, (label, placed) in enumerate(placements.items()):
        pooled = placed.pooled
        curvature = np.clip([pooled.curvature_horizon, *pooled.curvature_interval], 0, _LARGEST_CURVATURE)
        squares = np.maximum([pooled.signal_squared, *pooled.signal_squared_interval], 0.0)
        signal = np.clip(np.sqrt(squares), _SMALLEST_SIGNAL, _LARGEST_SIGNAL)
        colour = _COLOURS[index % len(_COLOURS)]
        x = np.sqrt(curvature)
        axis.plot([x[1], x[2]], [signal[0]] * 2, color=colour, lw=1.6)
        axis.plot([x[0]] * 2, [signal[1], signal[2]], color=colour, lw=1.6)
        axis.plot(
            x[0],
            signal[0],
            _MARKS[index % len(_MARKS)],
            color=colour,
            mec="white",
            ms=7,
            label=label,
            ls="none",
        )
