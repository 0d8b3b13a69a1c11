"""Numbers of each cell of a synthetic run: a replicate is a run, so intervals are over replicates."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import t as student

from lab.linearity import forecast_skill, lag_cosine, r_squared, to_json
from lab.objectives.synthetic_settings import Cell
from lab.trajectory.store import group

_FEWEST = 3  # recorded points, for a straight line to be judged


def summarise_cells(tree: xr.DataTree, cells: list[Cell[Any]], learning_rate: float) -> list[dict[str, Any]]:
    """Return the summary of every cell, ready for JSON; what is undefined is None.

    `r2_mean` and `r2_median` are the mean over replicates of the mean and of the median R² of a replicate's
    coordinates, with t intervals over replicates; `skill`, `skill_damped` and `lag_cosine` (at lag 1, on the
    momentum-free path) are pooled over all coordinates of the cell.

    Args:
        tree: the store of the run.
        cells: of the objective, in order.
        learning_rate: peak rate of the optimiser, which a cell may override.
    """
    weights = group(tree, "weights")
    cell_of, replicate_of = weights["cell"].values, weights["replicate"].values
    steps = weights["step"].values.astype(np.float64)
    rates = group(tree, "evaluation")["pass_rate_each"].values if "evaluation" in tree.children else None
    found = []
    for index, cell in enumerate(cells):
        chosen = cell_of == index
        path = weights["weight"].values[:, chosen]
        free = weights["momentum_free"].values[:, chosen] if "momentum_free" in weights else path
        numbers: dict[str, Any] = {
            "overrides": cell.overrides,
            "learning_rate": cell.peak_learning_rate(learning_rate),
            "replicates": cell.settings.replicates,
        }
        if len(steps) >= _FEWEST:
            numbers |= _straightness(path, steps, replicate_of[chosen])
            numbers |= _forecasts(path, free, steps)
        if rates is not None:
            numbers["pass_rate"] = {
                name: dict(zip(("mean", "low", "high"), mean_interval(rates[row, index]), strict=True))
                for name, row in (("start", 0), ("end", -1))
            }
        found.append(to_json(numbers))
    return found


def mean_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Return the mean of independent values and its t interval; NaN where there are too few.

    Args:
        values: float64 [replicate].
        level: confidence level.
    """
    if values.size < 2:
        return (float(values[0]) if values.size else np.nan), np.nan, np.nan
    half = student.ppf(0.5 + level / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def _straightness(path: np.ndarray, steps: np.ndarray, replicates: np.ndarray) -> dict[str, Any]:
    """R² by replicate; `path` is [checkpoint, coordinate], ordered by replicate."""
    straight = np.concatenate([r_squared(part, steps) for part in _parts(path)])
    starts = np.flatnonzero(np.diff(replicates, prepend=-1))
    each = np.split(straight, starts[1:])
    defined = [part[~np.isnan(part)] for part in each]
    defined = [part for part in defined if part.size]
    numbers: dict[str, Any] = {"n_replicates_without_r2": len(each) - len(defined)}
    for name, statistic in (("r2_mean", np.mean), ("r2_median", np.median)):
        middle, low, high = mean_interval(np.array([statistic(part) for part in defined]))
        numbers |= {name: middle, f"{name}_interval": [low, high]}
    return numbers


def _forecasts(path: np.ndarray, free: np.ndarray, steps: np.ndarray) -> dict[str, Any]:
    skill = forecast_skill(path, steps)
    return {
        "skill": skill.skill,
        "skill_damped": skill.skill_damped,
        "damping": skill.damping,
        "lag_cosine": lag_cosine(free, steps, [1])[0],
    }


def _parts(path: np.ndarray, elements: int = 2**22) -> list[np.ndarray]:
    """Split the coordinates, so that what is computed of each takes little memory."""
    return np.array_split(path, -(-path.size // elements), axis=1)
