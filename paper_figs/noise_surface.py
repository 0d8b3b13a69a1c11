"""Q1: theory's mean R² over reward flips and batch size, anchored at one measured cell, with the measured cells on it.

Group-relative policy gradients over the group's standard deviation, prompts of one pass rate p, that of the anchor's
runs, symmetric flips f. From `theory`:

- drift: the expected update is the coefficient of the gap v_R - v_W, `reward_flips.std_coefficient` at flips f and a
  group of G; in a large group it shrinks by (1 - 2f) sigma/sigma~ (`reward_flips.drift_scale`);
- noise: `gradient_noise.within_trace_std` at the noisy pass rate, scores of rollouts equally noisy whether right or
  wrong, and the gap, like the spread between prompts, small beside that noise; over B prompts;
- together the pooled S² of T updates is T B over the noise scale (`gradient_noise.signal_ratio_squared`). Under Adam it
  is the same while q, drift over noise of an update, is small: T drift²/`adam.diffusion_short` = T q².
- S² gives E[R²] of a straight drift under a walk, for drifts that are Gaussian over weights
  (`gaussian_r_squared.gaussian_drifts_mean`) or equal in all (`gaussian_r_squared.sparse_drifts_mean`, share 1): the
  one that comes nearer at the anchor's pooled S².

At the anchor S² is what gives its mean R² there; everywhere else only the ratio to the anchor's is used, and no other
cell. Curvature is left out, so that nothing is predicted below a random walk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from lab.figures.style import VERMILION, Columns, style
from paper_figs.statistics import by_seed, how_many, labels, mean_interval
from paper_figs.stored import stored
from theory.gaussian_r_squared import gaussian_drifts_mean, random_walk_mean, sparse_drifts_mean
from theory.gradient_noise import noise_scale, signal_ratio_squared, within_trace_std
from theory.reward_flips import noisy_pass_rate, std_coefficient

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCE = "experiments/q1_noise/results.json"
BANDIT = "experiments/q1_bandit/results.json"
ANCHOR_CELL, ANCHOR_FLIPS = "16x8", "0"
OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD"}
FINE = 60
"""Cells of each axis of the surface."""


@dataclass(frozen=True)
class Anchor:
    """What the surface takes from the measured cell.

    Attributes:
        prompts: B.
        rollouts: G.
        pass_rate: p, mean over its runs and their recorded steps.
        updates: T.
        checkpoints: n.
        population: name of how drifts are spread over weights.
        signal_squared: S² that gives the cell's mean R², 0 where that is not above a walk's.
    """

    prompts: int
    rollouts: int
    pass_rate: float
    updates: int
    checkpoints: int
    population: str
    signal_squared: float


def _equal_drifts_mean(n: int, signal_squared: ArrayLike) -> np.ndarray:
    return sparse_drifts_mean(n, signal_squared, 1.0)


POPULATIONS: dict[str, Callable[[int, ArrayLike], np.ndarray]] = {
    "Gaussian": gaussian_drifts_mean,
    "equal": _equal_drifts_mean,
}


def draw(results: Mapping[str, Any]) -> tuple[Figure, Columns]:
    """A panel for each model and optimiser whose anchor is stored: theory in colour, measured cells as marks."""
    sources = {"built-in model": results, "bandit": stored(BANDIT)}
    models = {model: found["runs"] for model, found in sources.items() if found is not None}
    data: dict[str, np.ndarray] = {}
    with style():
        figure = Figure(figsize=(7.4, 0.7 + 2.7 * len(models)))
        grid = figure.subplots(len(models), len(OPTIMIZERS), squeeze=False)
        for axes, (model, rows) in zip(grid, models.items(), strict=True):
            for axis, (optimizer, label) in zip(axes, OPTIMIZERS.items(), strict=True):
                own = [row for row in rows if row["optimizer"] == optimizer]
                if _at(own, ANCHOR_CELL, ANCHOR_FLIPS):
                    _draw_panel(axis, f"{model}, {label}", own, data)
                else:
                    axis.set_axis_off()
                    axis.text(0.5, 0.5, f"{model}, {label}:\nno anchor stored", ha="center", fontsize=8)
        figure.suptitle(
            "mean R² of weights. Surface and numbers in brackets: theory anchored at the one cell "
            f"{_said(ANCHOR_CELL)}, no flips (square).\nMarks in the same colours and numbers: measured; "
            "triangles: below a random walk, where theory has its floor",
            fontsize=8,
        )
    return figure, data


def anchor_of(rows: Sequence[Mapping[str, Any]]) -> Anchor:
    """Read the anchor off the rows of one model and optimiser."""
    own = _at(rows, ANCHOR_CELL, ANCHOR_FLIPS)
    prompts, rollouts = _size(ANCHOR_CELL)
    steps = own[0]["steps"]
    measured = float(np.mean([row["r2_mean"] for row in own]))
    pooled = float(np.mean([max(row["signal_squared"], 0.0) for row in own]))
    misses = {name: abs(float(law(len(steps), pooled)) - measured) for name, law in POPULATIONS.items()}
    population = min(misses, key=misses.__getitem__)
    law = POPULATIONS[population]

    def excess(signal_squared: float) -> float:
        return float(law(len(steps), signal_squared)) - measured

    return Anchor(
        prompts,
        rollouts,
        float(np.mean([row["pass_rate"] for row in own])),
        round(steps[-1] - steps[0]),
        len(steps),
        population,
        brentq(excess, 0.0, 1e7) if excess(0.0) < 0 else 0.0,
    )


def expected(anchor: Anchor, flips: ArrayLike, prompts: ArrayLike, rollouts: ArrayLike) -> np.ndarray:
    """Return mean R² of a cell as the module says, in the broadcast shape."""
    scale = _signal_squared(anchor, flips, prompts, rollouts) / _signal_squared(
        anchor, 0.0, anchor.prompts, anchor.rollouts
    )
    return POPULATIONS[anchor.population](anchor.checkpoints, anchor.signal_squared * scale)


def _signal_squared(anchor: Anchor, flips: ArrayLike, prompts: ArrayLike, rollouts: ArrayLike) -> np.ndarray:
    """Pooled S² up to what does not depend on the cell: gap 1 in the drift, variance 1 of a score in the noise."""
    drift = std_coefficient(anchor.pass_rate, flips, flips, rollouts)
    noise = within_trace_std(noisy_pass_rate(anchor.pass_rate, flips, flips), rollouts, 0.0, 1.0, 1.0)
    return signal_ratio_squared(anchor.updates, prompts, noise_scale(0.0, noise, drift**2))


def _draw_panel(
    axis: Axes, name: str, rows: Sequence[Mapping[str, Any]], data: dict[str, np.ndarray]
) -> None:
    anchor = anchor_of(rows)
    places = [(cell, flips) for cell in labels(rows, "cell") for flips in labels(rows, "flips")]
    found = {
        place: list(by_seed(rows, "r2_mean", cell=place[0], flips=place[1]).values()) for place in places
    }
    found = {place: values for place, values in found.items() if values}
    sizes = np.array([_size(cell) for cell, _ in found])
    share = np.array([float(flips) for _, flips in found])
    means, halves = np.array([mean_interval(values) for values in found.values()]).T
    theory = expected(anchor, share, sizes[:, 0], sizes[:, 1])
    walk = float(random_walk_mean(anchor.checkpoints))

    # between the cells, with prompts and rollouts in the anchor's proportion
    group = np.arange(max(2, int(0.75 * sizes[:, 1].min())), int(1.4 * sizes[:, 1].max()) + 1)
    batch = np.round(group * anchor.prompts / anchor.rollouts).astype(int)
    flips = np.linspace(0.0, min(1.25 * share.max(), 0.5), FINE)
    surface = expected(anchor, flips, batch[:, None], group[:, None])
    heights = np.geomspace(batch[0] * group[0], batch[-1] * group[-1], FINE)
    columns = [np.interp(np.log(heights), np.log(batch * group), column) for column in surface.T]
    low, high = min(walk - 0.01, means.min()), max(surface.max(), means.max())
    mesh = axis.pcolormesh(
        flips, heights, np.transpose(columns), cmap="viridis", vmin=low, vmax=high, rasterized=True
    )
    axis.set_xlim(flips[0], flips[-1])
    anchored = np.array([place == (ANCHOR_CELL, ANCHOR_FLIPS) for place in found])
    for chosen, mark, size in (
        (anchored, "s", 60),
        (~anchored & (means >= walk), "o", 55),
        (~anchored & (means < walk), "v", 60),
    ):
        axis.scatter(
            share[chosen],
            sizes[chosen].prod(axis=1),
            size,
            means[chosen],
            marker=mark,
            cmap="viridis",
            vmin=low,
            vmax=high,
            edgecolors="white",
            linewidths=1.2,
            clip_on=False,
            zorder=3,
        )
    for x, y, measured, predicted in zip(share, sizes.prod(axis=1), means, theory, strict=True):
        axis.annotate(
            f"{measured:.3f}\n({predicted:.3f})",
            (x, y),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=6.5,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
        )
    axis.set_yscale("log")
    ticks = dict(sorted((int(np.prod(_size(cell))), cell) for cell, _ in found))
    axis.set_yticks(list(ticks), [_said(cell) for cell in ticks.values()], fontsize=7)
    axis.set_yticks([], minor=True)
    axis.set_xticks(sorted(set(share)))
    axis.set(xlabel="share of rewards flipped", ylabel="prompts x rollouts an update")
    bar = axis.figure.colorbar(mesh, ax=axis)
    bar.ax.axhline(walk, color=VERMILION, lw=1.5)
    bar.ax.tick_params(labelsize=7)
    seeds = how_many(len(values) for values in found.values())
    replicates = {cell["replicates"] for row in rows for cell in row.get("cells") or ()}
    if replicates:
        seeds = how_many(replicates, "replicates")
    axis.set_title(
        f"{name}: {seeds} a cell\ndrifts {anchor.population} over weights; red: walk ({walk:.2f})", fontsize=8
    )
    data |= {
        f"{name}_flips".replace(",", ""): share,
        f"{name}_prompts".replace(",", ""): sizes[:, 0].astype(float),
        f"{name}_rollouts".replace(",", ""): sizes[:, 1].astype(float),
        f"{name}_measured".replace(",", ""): means,
        f"{name}_half_width".replace(",", ""): halves,
        f"{name}_theory".replace(",", ""): theory,
    }


def _at(rows: Sequence[Mapping[str, Any]], cell: str, flips: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if (str(row["cell"]), str(row["flips"])) == (cell, flips)]


def _size(cell: str) -> tuple[int, int]:
    prompts, rollouts = cell.split("x")
    return int(prompts), int(rollouts)


def _said(cell: str) -> str:
    return cell.replace("x", " x ")
