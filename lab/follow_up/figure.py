"""Held-out pass rate of extrapolated models by target, between standing still and training on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, VERMILION, YELLOW, Columns, style
from lab.follow_up.scores import Score

_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PINK, SKY, YELLOW)
_MARKERS = "os^Dv<>"
_SPREAD = 0.02  # of the axis, between methods at one target, so that their bars can be told apart


def targets_figure(
    last: int,
    standing: Score,
    actual: Mapping[int, Score],
    jumped: Mapping[tuple[str, int], Score],
    note: str,
) -> tuple[Figure, Columns]:
    """Draw it.

    Args:
        last: step of the last checkpoint fitted on.
        standing: its score.
        actual: step -> score of the run's own checkpoint.
        jumped: (method, step) -> score of the extrapolated model; refused ones are left out.
        note: seeds, for the title.
    """
    methods = list(dict.fromkeys(method for method, _ in jumped))
    steps = sorted({step for _, step in jumped} | set(actual))
    width = steps[-1] - last
    data: dict[str, np.ndarray] = {
        "persistence_step": np.array([last]),
        "persistence_pass_rate": np.array([standing.mean]),
        "persistence_half_width": np.array([standing.half_width]),
    }
    with style():
        figure = Figure(figsize=(5.4, 3.2))
        axis = figure.subplots()
        low, high = standing.mean - standing.half_width, standing.mean + standing.half_width
        axis.axhspan(low, high, color=BLACK, alpha=0.08, lw=0)
        axis.axhline(standing.mean, color=BLACK, lw=1.0, ls="--", label=f"standing still at {last}")
        if actual:
            scores = [standing, *(actual[step] for step in sorted(actual))]
            where = np.array([last, *sorted(actual)], dtype=float)
            data |= _bars(axis, where, scores, "trained on", BLACK, "x", "-")
        for index, method in enumerate(methods):
            known = [step for step in steps if (method, step) in jumped]
            known = [step for step in known if jumped[method, step].refused is None]
            shift = _SPREAD * width * (index - (len(methods) - 1) / 2)
            colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
            scores = [jumped[method, step] for step in known]
            data |= _bars(axis, np.array(known, dtype=float), scores, method, colour, marker, ":", shift)
        axis.set_xticks([last, *steps])
        axis.set(xlabel="target step", ylabel="held-out pass rate", ylim=(-0.02, 1), title=note)
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure, data


def _bars(
    axis: object,
    steps: np.ndarray,
    scores: list[Score],
    label: str,
    colour: str,
    marker: str,
    line: str,
    shift: float = 0.0,
) -> dict[str, np.ndarray]:
    """Draw one line with its intervals and return its data."""
    rates = np.array([score.mean for score in scores])
    halves = np.array([score.half_width for score in scores])
    axis.errorbar(  # type: ignore[attr-defined]
        steps + shift,
        rates,
        yerr=halves,
        color=colour,
        marker=marker,
        ls=line,
        lw=1.0,
        ms=4,
        elinewidth=0.8,
        capsize=2,
        label=label,
    )
    name = label.replace(" ", "_")
    return {f"{name}_step": steps, f"{name}_pass_rate": rates, f"{name}_half_width": halves}
