"""The results of a sweep, complete or not: one dataset with named dimensions, and a table."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.files import write_atomic
from lab.sweeps.settings import SweepSettings
from lab.sweeps.space import Axis, Label, Space
from lab.sweeps.states import latest, state_name
from lab.sweeps.study import SweepStudy

if TYPE_CHECKING:
    import xarray as xr
    from optuna.trial import FrozenTrial

DATASET, TABLE = "results.nc", "results.csv"


def dataset(study: SweepStudy, attributes: Mapping[str, Any]) -> xr.Dataset:
    """Return the results so far.

    A grid has one dimension for each axis of the space, other sweeps the dimension `trial` with the axes as its
    coordinates; either has `seed`. Each metric is a variable, float64, NaN where nothing is known; `state`
    ("" where no trial ended), `trial_number` (-1 there) and `seconds` say what became of each point.
    """
    import xarray as xr

    settings, space = study.settings, study.space
    ended = {
        point: trial
        for point, trial in latest(study.trials()).items()
        if state_name(trial, alive=True) in ("complete", "pruned", "failed")
    }
    on_grid = settings.sampler == "grid" and space.size is not None
    shape = _grid_shape(space) if on_grid else (len(ended),)
    dimensions = tuple(axis.key for axis in space.axes) if on_grid else ("trial",)
    slots = {point: np.unravel_index(point, shape) if on_grid else (i,) for i, point in enumerate(ended)}

    values = {name: np.full((*shape, len(settings.seeds)), np.nan) for name in settings.metrics}
    state = np.full(shape, "", dtype=object)
    number, seconds = np.full(shape, -1), np.full(shape, np.nan)
    for point, trial in ended.items():
        slot = slots[point]
        state[slot] = state_name(trial, alive=True)
        number[slot] = trial.number
        seconds[slot] = trial.user_attrs.get("seconds", np.nan)
        for position, seed in enumerate(settings.seeds):
            for name, value in trial.user_attrs.get("metrics", {}).get(str(seed), {}).items():
                if value is not None and name in values:
                    values[name][(*slot, position)] = value
    coordinates: dict[str, Any] = {"seed": list(settings.seeds)}
    if on_grid:
        coordinates |= {axis.key: _column(axis.labels or ()) for axis in space.axes}
    else:
        coordinates["trial"] = np.array(list(ended), dtype=np.int64)
        for axis in space.axes:
            labels = [trial.params.get(axis.key) for trial in ended.values()]
            coordinates[axis.key] = ("trial", _column(labels))
    variables: dict[str, Any] = {name: ((*dimensions, "seed"), table) for name, table in values.items()}
    variables |= {
        "state": (dimensions, state.astype(str)),
        "trial_number": (dimensions, number),
        "seconds": (dimensions, seconds),
    }
    result = xr.Dataset(variables, coords=coordinates)
    result.attrs = {
        "schema_version": 1,
        "study": study.name,
        "complete": int(len(ended) >= study.wanted),
        **{key: value if isinstance(value, str) else json.dumps(value) for key, value in attributes.items()},
    }
    return result


def rows(study: SweepStudy) -> list[dict[str, Any]]:
    """Return the results in long form: a row for each seed of each trial, and one for a trial without any.

    Trials whose worker died, and those that run, have a row too: `state` tells.
    """
    table = []
    for trial in study.trials():
        if "duplicate" in trial.user_attrs:
            continue
        metrics: Mapping[str, Mapping[str, float | None]] = trial.user_attrs.get("metrics", {})
        for seed in list(metrics) or [""]:
            table.append(
                {
                    "trial": trial.number,
                    "point": trial.user_attrs.get("point"),
                    **{axis.key: _shown(trial.params.get(axis.key)) for axis in study.space.axes},
                    "seed": seed,
                    "state": state_name(trial, study.is_alive(trial)),
                    "seconds": trial.user_attrs.get("seconds"),
                    **{name: metrics.get(seed, {}).get(name) for name in study.settings.metrics},
                    "error": trial.user_attrs.get("error", ""),
                }
            )
    return table


def write_results(study: SweepStudy, attributes: Mapping[str, Any], directory: Path) -> xr.Dataset:
    """Write `results.nc` and `results.csv`, each atomically, and return the dataset.

    Raises:
        OSError: the directory cannot be written.
    """
    found = dataset(study, attributes)
    write_atomic(directory / DATASET, bytes(found.to_netcdf(engine="h5netcdf")))
    text = io.StringIO()
    names = [
        *("trial", "point"),
        *(axis.key for axis in study.space.axes),
        *("seed", "state", "seconds"),
        *study.settings.metrics,
        "error",
    ]
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows(study))
    write_atomic(directory / TABLE, text.getvalue())
    return found


def never_defined(found: xr.Dataset, settings: SweepSettings) -> list[str]:
    """Return the metrics that came out undefined in every trial that was complete."""
    if not (found["state"].values == "complete").any():
        return []
    return [name for name in settings.metrics if bool(np.isnan(found[name].values).all())]


def best(study: SweepStudy) -> FrozenTrial | None:
    """Return the best complete trial; None without an objective or a finite value."""
    goal = study.settings.objective
    if goal is None:
        return None
    complete = [
        trial
        for trial in latest(study.trials()).values()
        if state_name(trial, alive=True) == "complete"
        and trial.value is not None
        and math.isfinite(trial.value)
    ]
    if not complete:
        return None
    sign = 1.0 if goal.direction == "minimize" else -1.0
    return min(complete, key=lambda trial: sign * float(trial.value or 0.0))


def _grid_shape(space: Space) -> tuple[int, ...]:
    return tuple(_length(axis) for axis in space.axes)


def _length(axis: Axis) -> int:
    return len(axis.labels or ())


def _column(labels: Sequence[Label]) -> np.ndarray:
    """Labels as a coordinate: numbers stay numbers, anything else is written as text."""
    numeric = all(isinstance(label, (int, float)) and not isinstance(label, bool) for label in labels)
    if numeric and labels:
        return np.array(labels)
    return np.array([str(_shown(label)) for label in labels], dtype=str)


def _shown(label: Label) -> Any:
    if label is None:
        return "null"
    return str(label).lower() if isinstance(label, bool) else label
