"""Figures of a measurement of full checkpoints: a heat map over layers and modules, histograms with their nulls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, VERMILION, Columns, style

_SHOWN_BINS = 50
_FEW_CELLS = 160  # Up to so many, each cell says its number.


def heat_map(
    layers: Sequence[int],
    kinds: Sequence[str],
    panels: dict[str, tuple[np.ndarray, float, float, float]],
    note: str,
) -> tuple[Figure, Columns]:
    """Heat maps layer x module kind, one for each panel.

    Args:
        layers: layer of each row; -1 for what belongs to none.
        kinds: module kind of each column.
        panels: by title: float64 [layer, kind] (NaN is left white), what white stands for in the colours (the value
            that chance gives), and the ends of the scale.
        note: sizes, for the title.
    """
    rows = ["none" if layer < 0 else str(layer) for layer in layers]
    height = 1.2 + 0.17 * len(rows)
    data: dict[str, np.ndarray] = {
        "layer": np.repeat(np.asarray(layers, dtype=float), len(kinds)),
        "column": np.tile(np.arange(len(kinds), dtype=float), len(layers)),
    }
    with style():
        figure = Figure(figsize=((1.3 + 0.42 * len(kinds)) * len(panels), max(height, 2.8)))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (title, (values, chance, low, high)) in zip(axes, panels.items(), strict=True):
            # Quadrilaterals and no image: an image would be resampled to every dot of the page.
            edges = [np.arange(size + 1) - 0.5 for size in reversed(values.shape)]
            cells = np.ma.masked_invalid(values)
            image = axis.pcolormesh(*edges, cells, cmap="RdBu", norm=_around(chance, low, high))
            axis.invert_yaxis()
            axis.set_title(title)
            axis.set_xticks(range(len(kinds)), kinds, rotation=60, ha="right", fontsize=7)
            axis.set_yticks(*(_some(rows) if axis is axes[0] else ([], [])), fontsize=7)
            axis.spines[:].set_visible(False)
            axis.tick_params(length=0)
            if values.size <= _FEW_CELLS:
                _write_numbers(axis, values, chance, low, high)
            colours = figure.colorbar(image, ax=axis, fraction=0.05, pad=0.02)
            colours.set_ticks([low, chance, high], labels=[f"{low:.2g}", f"{chance:.2g}", f"{high:.2g}"])
            colours.ax.tick_params(labelsize=7)
            data[title.replace(",", ";")] = values.ravel()
        axes[0].set_ylabel("layer")
        figure.suptitle(note, fontsize=9)
    return figure, data


def histogram_with_nulls(
    counts: np.ndarray, walk: np.ndarray, matched: np.ndarray, medians: tuple[float, float], note: str
) -> tuple[Figure, Columns]:
    """Histogram of R² of every weight, with the walk curve and the selection-matched one drawn in.

    Args:
        counts: int64 [bin] on [0, 1].
        walk: R² of random walks.
        matched: R² of walks through the same cast and filter.
        medians: of the weights and of chance; NaN where undefined.
        note: sizes, for the title.
    """
    edges = np.linspace(0, 1, _SHOWN_BINS + 1)
    shown = counts.reshape(_SHOWN_BINS, -1).sum(axis=1)
    density = shown * _SHOWN_BINS / max(shown.sum(), 1)
    curves = {"walk": _density(walk, edges), "selection_matched": _density(matched, edges)}
    with style():
        figure = Figure(figsize=(4.6, 2.8))
        axis = figure.subplots()
        axis.stairs(density, edges, fill=True, alpha=0.45, color=BLUE, label="weights")
        centres = (edges[:-1] + edges[1:]) / 2
        axis.plot(centres, curves["walk"], color=BLACK, lw=1.4, label="random walk")
        axis.plot(
            centres, curves["selection_matched"], color=VERMILION, lw=1.2, ls="--", label="walk, same filter"
        )
        for median, colour in zip(medians, (BLUE, BLACK), strict=True):
            if np.isfinite(median):
                axis.axvline(median, color=colour, lw=1.0, ls=":")
        axis.set(xlabel="R² against step (dotted: medians)", ylabel="density", xlim=(0, 1), title=note)
        axis.legend(loc="upper right")
    return figure, {"r2_bin_start": edges[:-1], "weights": density, **curves}


def _around(chance: float, low: float, high: float) -> Callable[..., np.ndarray]:
    from matplotlib.colors import TwoSlopeNorm

    return TwoSlopeNorm(vcenter=chance, vmin=min(low, chance - 1e-6), vmax=max(high, chance + 1e-6))


def _write_numbers(axis: Axes, values: np.ndarray, chance: float, low: float, high: float) -> None:
    for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True):
        value = float(values[row, column])
        scale = (high - chance) if value > chance else (chance - low)
        far = abs(value - chance) > 0.7 * scale  # Dark cell, white ink.
        text = f"{value + 0.0:.2f}".replace("0.", ".", 1).replace("-.00", ".00")
        axis.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if far else "black")


def _some(rows: Sequence[str], most: int = 40) -> tuple[list[int], list[str]]:
    every = -(-len(rows) // most)
    places = list(range(0, len(rows), every))
    return places, [rows[place] for place in places]


def _density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return np.zeros(len(edges) - 1)
    return np.histogram(finite, bins=edges, density=True)[0]
