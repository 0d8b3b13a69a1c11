"""The store of a measurement of full checkpoints, `measurement.nc`.

Groups and their variables, dimensions in brackets; undefined numbers are NaN:

tensors       (tensor): layer, module_kind, elements, kept, zero_variance, r2_share_above_0_7, skill, skill_damped,
              damping, lag_cosine, split_half, rank_one_share, r2_p_value, skill_p_value, lag_cosine_p_value and the
              same with q_value; (tensor, level): r2_quantile; (tensor, r2_bin): r2_count; (tensor, interval,
              other_interval): increment_product, in units of weight²
layers        the same pooled over the tensors of a layer (-1: those of none), without p- and q-values
module_kinds  the same pooled over a module kind
run           (r2_fine_bin): r2_count; (interval, other_interval): increment_product
null          (walk_sample): walk_r2; (matched_sample): selection_matched_r2

and where probes were given

logprobs      (step, token): log_prob in nats; token: token_id, token_prompt (number of the probe)
activations   (layer, coordinate): r2; (layer): r2_median, r2_share_above_0_7, r2_low_quartile, r2_high_quartile,
              p_value, q_value
layer_source  (layer): total_squared_change, share_from_input, share_from_weights, share_second_order
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from lab.checkpoints.collection import RUN, groups_of
from lab.checkpoints.measurement import CheckpointMeasurement
from lab.linearity.streaming import BINS, COARSE_BINS, LEVELS, NUMBERS, P_VALUES, State
from lab.trajectory.module_labels import module_labels
from lab.trajectory.store import write_store

FILE_NAME = "measurement.nc"
SCHEMA_VERSION = 1

_PRODUCT = ("interval", "other_interval")
_TALLY = ("elements", "kept", "zero_variance")


def to_tree(measured: CheckpointMeasurement, attributes: Mapping[str, str | int | float]) -> xr.DataTree:
    """Return the labelled tree; `attributes` go on its root."""
    collection = measured.collection
    labels = [module_labels(name) for name in collection.names]
    stacked = {name: np.stack(arrays) for name, arrays in collection.tensors.items()}
    tensors = _dataset("tensor", np.array(collection.names, dtype=object), stacked)
    tensors = tensors.assign_coords(
        layer=("tensor", np.array([layer for layer, _ in labels])),
        module_kind=("tensor", np.array([kind for _, kind in labels], dtype=object)),
    )
    for place, name in enumerate(P_VALUES):
        tensors[name] = ("tensor", stacked["p_values"][:, place])
        tensors[name.replace("p_value", "q_value")] = ("tensor", measured.q_values[:, place])
    run, curves = collection.groups[RUN], measured.curves["weights"]
    layers = groups_of(collection.groups, "layer/")
    kinds = groups_of(collection.groups, "kind/")
    groups = {
        "/": xr.Dataset(attrs={"schema_version": SCHEMA_VERSION, **attributes}),
        "tensors": tensors,
        "layers": _pooled(measured, "layer", np.array([int(name) for name in layers]), layers),
        "module_kinds": _pooled(measured, "module_kind", np.array(list(kinds), dtype=object), kinds),
        "run": xr.Dataset(
            {"r2_count": ("r2_fine_bin", run["counts"]), "increment_product": (_PRODUCT, run["products"])},
            coords={"r2_fine_bin": _centres(BINS), "step": ("step", measured.steps)},
        ),
        "null": xr.Dataset(
            {
                "walk_r2": ("walk_sample", curves.walk),
                "selection_matched_r2": ("matched_sample", curves.selection_matched),
            }
        ),
    }
    return xr.DataTree.from_dict(groups)


def write_measurement_store(
    measured: CheckpointMeasurement,
    attributes: Mapping[str, str | int | float],
    more: Mapping[str, xr.Dataset],
    directory: Path,
) -> Path:
    """Write `measurement.nc` into `directory`, with `more` groups, whole or not at all; return its path."""
    tree = to_tree(measured, attributes)
    for name, dataset in more.items():
        tree[name] = xr.DataTree(dataset)
    write_store(tree, directory / FILE_NAME)
    return directory / FILE_NAME


def _pooled(
    measured: CheckpointMeasurement, dimension: str, labels: np.ndarray, groups: Mapping[str, State]
) -> xr.Dataset:
    """Numbers of sums over the tensors of each group."""
    each = [
        {**sums, **measured.statistics.of_sums(sums["products"], sums["counts"])} for sums in groups.values()
    ]
    keys = ("tally", "quantiles", "coarse", "numbers", "products")
    return _dataset(dimension, labels, {key: np.stack([one[key] for one in each]) for key in keys})


def _dataset(dimension: str, labels: np.ndarray, stacked: Mapping[str, np.ndarray]) -> xr.Dataset:
    variables: dict[str, Any] = {
        name: (dimension, stacked["tally"][:, place]) for place, name in enumerate(_TALLY)
    }
    for place, name in enumerate(NUMBERS):
        shown = f"r2_{name}" if name.startswith("share") else name
        variables[shown] = (dimension, stacked["numbers"][:, place])
    variables["r2_quantile"] = ((dimension, "level"), stacked["quantiles"])
    variables["r2_count"] = ((dimension, "r2_bin"), stacked["coarse"])
    variables["increment_product"] = ((dimension, *_PRODUCT), stacked["products"])
    return xr.Dataset(
        variables, coords={dimension: labels, "level": np.array(LEVELS), "r2_bin": _centres(COARSE_BINS)}
    )


def _centres(bins: int) -> np.ndarray:
    return (np.arange(bins) + 0.5) / bins
