"""One figure for a prediction: each law's simulated values against the predicted ones, and all z-scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from lab.checks.rows import Check
from lab.figures.style import BLACK, BLUE, VERMILION, Columns, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 5
_LARGEST_SHOWN = 8.0  # z-scores beyond it are drawn there, as triangles


def check_figure(
    title: str, checks: Sequence[Check], z: np.ndarray, failed: np.ndarray, critical: float
) -> tuple[Figure, Columns]:
    """Small multiples of one prediction, a panel for each law, and its z-scores below.

    Args:
        title: of the figure.
        checks: points of the prediction's laws.
        z: of each point, [point].
        failed: whether it failed, [point].
        critical: z-score at which a single point fails.
    """
    laws = list(dict.fromkeys(check.law for check in checks))
    places = [[i for i, check in enumerate(checks) if check.law == law] for law in laws]
    rows = -(-len(laws) // _COLUMNS)
    with style():
        figure = Figure(figsize=(2.15 * _COLUMNS, 1.9 * rows + 2.6))
        grid = figure.add_gridspec(rows + 1, _COLUMNS, height_ratios=[1.9] * rows + [2.0])
        for index, (law, chosen) in enumerate(zip(laws, places, strict=True)):
            axis = figure.add_subplot(grid[index // _COLUMNS, index % _COLUMNS])
            _draw_law(axis, law, [checks[i] for i in chosen], failed[chosen])
            if index % _COLUMNS == 0:
                axis.set_ylabel("simulated")
            if index + _COLUMNS >= len(laws):  # the lowest panel of its column
                axis.set_xlabel("predicted")
        _draw_scores(figure.add_subplot(grid[rows, :]), laws, places, z, failed, critical)
        count = f"{len(checks)} points of {len(laws)} laws, {int(failed.sum())} failed"
        figure.suptitle(f"{title}: {count}", fontsize=10)
    columns = ("point", "predicted", "simulated", "standard_error", "tolerance")
    data: dict[str, np.ndarray] = {
        "law": np.array([laws.index(check.law) for check in checks]),
        **{name: np.array([getattr(check, name) for check in checks]) for name in columns},
        "z": z,
        "failed": failed.astype(float),
    }
    return figure, data


def _draw_law(axis: Axes, law: str, checks: Sequence[Check], failed: np.ndarray) -> None:
    predicted = np.array([check.predicted for check in checks])
    simulated = np.array([check.simulated for check in checks])
    reach = np.array([2 * check.standard_error + check.tolerance for check in checks])
    axis.axline((float(predicted[0]), float(predicted[0])), slope=1, color=BLACK, lw=0.6, alpha=0.5)
    for chosen, colour in ((~failed, BLUE), (failed, VERMILION)):
        axis.errorbar(
            predicted[chosen],
            simulated[chosen],
            yerr=reach[chosen],
            fmt="o",
            ms=3,
            lw=0.9,
            capsize=2,
            color=colour,
        )
    axis.set_title(law.replace("_", " ") + ("" if checks[0].exact else " ≈"), fontsize=6.5)
    axis.tick_params(labelsize=6)
    axis.locator_params(nbins=4)


def _draw_scores(
    axis: Axes,
    laws: Sequence[str],
    places: Sequence[list[int]],
    z: np.ndarray,
    failed: np.ndarray,
    critical: float,
) -> None:
    for index, chosen in enumerate(places):
        across = index + np.linspace(-0.3, 0.3, len(chosen)) if len(chosen) > 1 else np.array([float(index)])
        shown = np.clip(z[chosen], -_LARGEST_SHOWN, _LARGEST_SHOWN)
        colours = [VERMILION if bad else BLUE for bad in failed[chosen]]
        beyond = np.abs(z[chosen]) > _LARGEST_SHOWN
        for place, height, colour, cut in zip(across, shown, colours, beyond, strict=True):
            axis.plot(place, height, "^" if cut else "o", ms=4 if cut else 2.5, color=colour)
    for height in (-critical, critical):
        axis.axhline(height, color=VERMILION, lw=0.8, ls="--")
    axis.axhline(0, color=BLACK, lw=0.6)
    axis.annotate(
        f"±{critical:.1f}: a single point fails",
        (1.0, critical),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize=6.5,
        color=VERMILION,
    )
    axis.set_xticks(
        range(len(laws)), [law.replace("_", " ") for law in laws], rotation=30, ha="right", fontsize=6.5
    )
    axis.set(ylabel="z-score", ylim=(-_LARGEST_SHOWN - 0.5, _LARGEST_SHOWN + 0.5))
