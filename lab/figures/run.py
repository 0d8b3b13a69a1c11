"""The four pictures of a run: R² against chance, learning, example paths, forecast skill by horizon."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lab.figures.style import BLACK, BLUE, GREEN, ORANGE, VERMILION, Columns, style
from lab.linearity import Curves
from lab.measurement import Measurement

_BINS = np.linspace(0, 1, 26)
_LETTERS_AN_INCH = 14  # at 9 points
_COLOURS = {"rl": BLUE, "sft": ORANGE, "twin": GREEN}


def r_squared_histogram(runs: Mapping[str, Measurement], kind: str, note: str) -> tuple[Figure, Columns]:
    """Histogram of R² of each run, with the walk curve and the selection-matched null drawn in.

    Args:
        runs: measurements by label.
        kind: `weights` or `logprobs`.
        note: seeds and sizes, for the title.
    """
    data: dict[str, np.ndarray] = {"r2_bin_start": _BINS[:-1]}
    with style():
        figure = Figure(figsize=(3.1 * len(runs), 2.6))
        axes = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
        for axis, (label, measured) in zip(axes, runs.items(), strict=True):
            curves: Curves = measured.curves[kind]
            shown = curves.r2[np.isfinite(curves.r2)]
            measured_density = _density(shown)
            walk, matched = _density(curves.walk), _density(curves.selection_matched)
            axis.stairs(measured_density, _BINS, fill=True, alpha=0.45, color=_COLOURS.get(label, BLUE))
            centres = (_BINS[:-1] + _BINS[1:]) / 2
            axis.plot(centres, walk, color=BLACK, lw=1.4, label="random walk")
            axis.plot(centres, matched, color=VERMILION, lw=1.2, ls="--", label="walk, same filter")
            median = measured.numbers[kind]["r2_median"]
            if median is not None:
                axis.axvline(median, color=_COLOURS.get(label, BLUE), lw=1.2)
            axis.set(xlabel="R² against step", title=_title(label, measured.numbers[kind]))
            data |= {f"{label}_density": measured_density, f"{label}_walk": walk, f"{label}_matched": matched}
        axes[0].set_ylabel("density")
        axes[0].legend(loc="upper left")
        _head(figure, f"{kind}: {note}")
    return figure, data


def learning_curve(
    pass_rates: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], note: str
) -> tuple[Figure, Columns]:
    """Held-out pass rate against step, with 95 % intervals over problems.

    Args:
        pass_rates: label -> (steps, pass rate, half-width of the interval), each [checkpoint].
        note: seeds and sizes, for the title.
    """
    data: dict[str, np.ndarray] = {}
    with style():
        figure = Figure(figsize=(4.2, 2.8))
        axis = figure.subplots()
        for label, (steps, rate, half) in pass_rates.items():
            colour = _COLOURS.get(label, BLUE)
            axis.plot(steps, rate, color=colour, label=_name(label))
            axis.fill_between(steps, rate - half, rate + half, color=colour, alpha=0.18, lw=0)
            data |= {f"{label}_step": steps, f"{label}_pass_rate": rate, f"{label}_half_width": half}
        axis.set(xlabel="step", ylabel="held-out pass rate", ylim=(0, 1), title=note)
        axis.legend()
    return figure, data


def example_paths(runs: Mapping[str, Measurement], kind: str, note: str) -> tuple[Figure, Columns]:
    """A few trajectories with their least-squares lines, displaced to start at zero."""
    data: dict[str, np.ndarray] = {}
    with style():
        figure = Figure(figsize=(3.1 * len(runs), 2.6))
        axes = figure.subplots(1, len(runs), squeeze=False)[0]
        for axis, (label, measured) in zip(axes, runs.items(), strict=True):
            paths, steps = measured.examples[kind], measured.steps
            data[f"{label}_step"] = steps
            for index in range(paths.shape[1]):
                path = paths[:, index] - paths[0, index]
                slope, offset = np.polyfit(steps, path, 1)
                axis.plot(steps, path, lw=1.0, color=_COLOURS.get(label, BLUE), alpha=0.8)
                axis.plot(steps, slope * steps + offset, lw=0.8, ls=":", color=BLACK)
                data[f"{label}_path_{index}"] = path
            axis.set(xlabel="step", title=_name(label))
            axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes[0].set_ylabel(f"change of {'a weight' if kind == 'weights' else 'a log-prob (nats)'}")
        _head(figure, f"{kind}, dotted: least-squares line; {note}")
    return figure, data


def skill_by_horizon(runs: Mapping[str, Measurement], kind: str, note: str) -> tuple[Figure, Columns]:
    """Out-of-sample skill of the two-point and the damped forecast against persistence, by horizon."""
    data: dict[str, np.ndarray] = {}
    with style():
        figure = Figure(figsize=(3.1 * len(runs), 2.6))
        axes = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
        for axis, (label, measured) in zip(axes, runs.items(), strict=True):
            curve = measured.numbers[kind]["skill_by_horizon"]
            horizon = np.array(curve["horizon"], dtype=float)
            plain = np.array(curve["skill"], dtype=float)
            damped = np.array(curve["skill_damped"], dtype=float)
            colour = _COLOURS.get(label, BLUE)
            axis.axhline(0, color=BLACK, lw=0.8)
            axis.plot(horizon, damped, "o-", ms=3, color=colour, label="damped")
            axis.plot(horizon, plain, "s--", ms=3, color=VERMILION, label="two-point")
            axis.set(xlabel="horizon (steps beyond the fit window)", title=_name(label))
            data |= {f"{label}_horizon": horizon, f"{label}_damped": damped, f"{label}_two_point": plain}
        low, high = axes[0].get_ylim()
        axes[0].set_ylim(max(low, -2.0), min(max(high, 0.2), 1.05))
        axes[0].set_ylabel("skill (0: hold last)")
        axes[0].legend()
        _head(figure, f"{kind}: forecast skill against persistence; {note}")
    return figure, data


def _head(figure: Figure, text: str) -> None:
    """Write the heading over all panels, in as many lines as it takes at this width."""
    figure.suptitle(textwrap.fill(text, int(_LETTERS_AN_INCH * figure.get_figwidth())), fontsize=9)


def _density(values: np.ndarray) -> np.ndarray:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return np.zeros(len(_BINS) - 1)
    return np.histogram(finite, bins=_BINS, density=True)[0]


def _name(label: str) -> str:
    return {"rl": "RL", "sft": "SFT", "twin": "pure-noise twin of RL"}.get(label, label)


def _title(label: str, numbers: Mapping[str, Any]) -> str:
    p = numbers["null_p_value"]
    median = numbers["r2_median"]
    shown = "undefined" if median is None else f"{median:.2f}"
    return f"{_name(label)}: median {shown}" + ("" if p is None else f", p={p:.2g}")
