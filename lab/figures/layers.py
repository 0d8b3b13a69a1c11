"""Figures of what happens layer by layer on probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, GREEN, ORANGE, VERMILION, Columns, style

_PARTS = {
    "from_input": ("its input", BLUE),
    "from_weights": ("its weights", ORANGE),
    "second_order": ("second order", GREEN),
}


def by_layer(activations: Mapping[str, Any], source: Mapping[str, Any], note: str) -> tuple[Figure, Columns]:
    """R² of activations by layer beside that of chance, and where each layer's change came from.

    Args:
        activations: `r2_median`, `r2_low_quartile`, `r2_high_quartile` by layer, and `null_r2_median`.
        source: `from_input`, `from_weights`, `second_order` by layer, shares of the squared change.
        note: sizes, for the title.
    """
    low, median, high = (
        np.array(activations[name], dtype=float)
        for name in ("r2_low_quartile", "r2_median", "r2_high_quartile")
    )
    layers = np.arange(len(median), dtype=float)
    data: dict[str, np.ndarray] = {"layer": layers, "r2_low": low, "r2_median": median, "r2_high": high}
    with style():
        figure = Figure(figsize=(7.4, 2.8))
        left, right = figure.subplots(1, 2)
        left.fill_between(layers, low, high, color=VERMILION, alpha=0.25, lw=0)
        left.plot(layers, median, "o-", ms=3, color=VERMILION, label="activations, with quartiles")
        left.axhline(activations["null_r2_median"], color=BLACK, lw=1.0, label="random walk")
        left.set(xlabel="layer", ylabel="R² against step", ylim=(0, 1), title="how straight activations move")
        for name, (title, colour) in _PARTS.items():
            data[name] = np.array(source[name], dtype=float)
            right.plot(layers, data[name], "o-", ms=3, color=colour, label=title)
        right.set(xlabel="layer", ylabel="share of squared change", title="why a layer's output changed")
        for axis in (left, right):
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.set_ylim(bottom=0)
            axis.legend()
        figure.suptitle(note, fontsize=9)
    return figure, data
