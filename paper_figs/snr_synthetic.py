"""Q2.5: straightness against token sign noise on synthetic models: theory, simulation, and the published points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm
from scipy.stats import t as student

from lab.figures.style import BLACK, BLUE, ORANGE, PINK, SKY, VERMILION, Columns, style
from paper_figs.sign_noise import LEVELS, PUBLISHED, label_levels
from theory.gaussian_r_squared import random_walk_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCE = "experiments/q2_synthetic/results.json"
ALL_LEVELS = ("none", *LEVELS)
PANELS = (("quadratic", "sgd"), ("quadratic", "adamw"), ("logistic", "sgd"), ("logistic", "adamw"))
OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW"}
NORMALISATIONS = {"fixed_signal": "a = 1", "unit_power": "a² + b² = 1"}
# long path and short path; a fixed and unit power
COLOURS = ((VERMILION, ORANGE), (BLUE, SKY))
MARKS = ("o", "s")


def draw(results: Mapping[str, Any]) -> tuple[Figure, Columns]:
    """A panel for each model and optimiser; lines are theory where there is one, points are simulated."""
    rows = results["cells"]
    data: dict[str, np.ndarray] = {"level": np.arange(len(ALL_LEVELS), dtype=float)}
    with style():
        figure = Figure(figsize=(7.4, 5.6))
        axes = figure.subplots(2, 2, sharey=True, sharex=True)
        for axis, (model, optimizer) in zip(axes.flat, PANELS, strict=True):
            chosen = [row for row in rows if (row["model"], row["optimizer"]) == (model, optimizer)]
            data |= _draw_panel(axis, model, optimizer, chosen)
            steps = results["steps"][model]
            axis.axhline(float(random_walk_mean(len(steps))), color=BLACK, lw=0.7, ls=":")
            rates = dict.fromkeys(row["arm"].split("=")[1] for row in chosen if model == "logistic")
            axis.set_title(_title(model, optimizer, steps[-1], list(rates)), fontsize=8)
            label_levels(axis, ALL_LEVELS)
            axis.label_outer()
        axes[0, 0].set_ylim(0.15, 1.16)
        for axis in axes[:, 0]:
            axis.set_ylabel("mean R² of weights")
        given = results["config"]["quadratic"]
        seeds = results["config"]["seeds"]
        coordinates = seeds * given["replicates"] * given["coordinates"]
        figure.suptitle(
            "c: curvature x horizon, S²: signal over noise of the window, both without added noise. Noisy quadratic: "
            f"lines are theory,\n{coordinates:,} coordinates a point. Softmax regression: {seeds} seeds a point, "
            "lines join. 95 % intervals; dotted: random walk;\n"
            "pink diamonds: published (median R², SFT of a language model)",
            fontsize=8,
        )
    return figure, data


def _title(model: str, optimizer: str, updates: int, rates: list[str]) -> str:
    name = {"quadratic": "noisy quadratic", "logistic": "softmax regression"}[model]
    rate = f" {', '.join(rates)}" if rates else ""
    return f"{name}, {OPTIMIZERS[optimizer]}{rate}, {updates} updates"


def _draw_panel(axis: Axes, model: str, optimizer: str, rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    data: dict[str, np.ndarray] = {}
    x = np.arange(len(ALL_LEVELS), dtype=float)
    axis.plot(x[1:], PUBLISHED, "D-", color=PINK, ms=3.5, lw=1.0, alpha=0.8)
    arms = sorted({row["arm"] for row in rows}, key=lambda arm: -float(arm.split("=")[1]))
    for arm, colours in zip(arms, COLOURS, strict=True):
        for index, (normalisation, meaning) in enumerate(NORMALISATIONS.items()):
            by_level = {
                row["snr_db"]: row
                for row in rows
                if (row["arm"], row["normalisation"]) == (arm, normalisation)
            }
            curve = [by_level[level] for level in ALL_LEVELS]
            means = np.array([row["r2_mean"] for row in curve])
            halves = _factor(model, len(curve[0]["r2_mean_by_seed"])) * np.array(
                [row["standard_error"] for row in curve]
            )
            expected = [row.get("theory", {}).get("r2_mean") for row in curve]
            theory = None if None in expected else np.array(expected, dtype=float)
            colour, shift = colours[index], 0.12 * (index - 0.5)
            axis.errorbar(
                x + shift,
                means,
                halves,
                color=colour,
                marker=MARKS[index],
                ms=3.5,
                capsize=2,
                lw=0.9,
                ls="none" if theory is not None else "-",
                label=f"{_arm(arm, curve)}, {meaning}",
            )
            name = f"{model}_{optimizer}_{arm}_{normalisation}"
            data |= {f"{name}_mean": means, f"{name}_half_width": halves}
            if theory is not None:
                axis.plot(x, theory, color=colour, lw=1.0, ls="-" if index == 0 else "--")
                data[f"{name}_theory"] = theory
    axis.legend(fontsize=6, ncols=2, loc="upper right", labelspacing=0.3, columnspacing=1.0)
    return data


def _factor(model: str, seeds: int) -> float:
    """Half-width of a 95 % interval in standard errors: over thousands of replicates, or over seeds."""
    return float(norm.ppf(0.975) if model == "quadratic" else student.ppf(0.975, seeds - 1))


def _arm(arm: str, curve: list[dict[str, Any]]) -> str:
    """The place of an arm without added noise: where it was put, or where it was measured to be."""
    if "theory" in curve[0]:
        return f"c {arm.split('=')[1]}"
    return f"c {curve[0]['curvature_horizon']:.1f}, S² {curve[0]['signal_squared']:.0f}"
