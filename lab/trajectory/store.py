"""The store of a run: one netCDF file with named groups, merged from the small files at the end.

Schema (version 1). Root attributes: `schema_version`, `config` (JSON), `seed`, `packages` (JSON), `git_commit`,
`git_dirty`, `created_at`, `source_dtype`, `storage_dtype`, `arithmetic_dtype`. Groups:

weights     (step, param): weight, momentum_free, first_moment, second_moment; param: tensor, flat_index, layer,
            module_kind, and in a synthetic run cell, replicate, coordinate; step: update, effective_step
logprobs    (step, token): log_prob, log_prob_momentum_free (nats); token: prompt, response, position, token_id;
            (prompt): prompt_text; (prompt, rollout): response_text
metrics     (step): one variable for each scalar
evaluation  (step, prompt, rollout): correct; (step): pass_rate; (step, sample): sample_prompt, sample_completion;
            in a synthetic run (step, cell, replicate): pass_rate_each in place of correct
mechanism   synthetic runs: what is known exactly of the process, (step, cell, replicate) or (step, cell, replicate,
            prompt); the names are those that the objective's `mechanism` returns; undefined is NaN
probe       (update, param): gradient, applied; (update, projection): gradient_projection, applied_projection
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from lab.errors import BadInput
from lab.trajectory.module_labels import module_labels
from lab.trajectory.parts import STATIC, Arrays, part_path, read_arrays, recorded_steps
from lab.trajectory.storable_text import with_storable_text

SCHEMA_VERSION = 1
FILE_NAME = "trajectory.nc"

REQUIRED: dict[str, dict[str, tuple[str, ...]]] = {
    "weights": {"weight": ("step", "param")},
    "metrics": {},
}
"""Groups that every store has, with the variables and dimensions that they must hold."""

ROOT_ATTRIBUTES = ("schema_version", "config", "seed", "created_at", "source_dtype", "storage_dtype")


def merge(records: Path, attributes: dict[str, Any]) -> xr.DataTree:
    """Merge a run's recorded files into a labelled tree.

    Args:
        records: directory that holds them.
        attributes: root attributes; nested values are stored as JSON.

    Raises:
        BadInput: no files, or one that cannot be read; the message names it.
    """
    steps = recorded_steps(records)
    if not steps:
        raise BadInput(f"{records}: no recorded steps")
    static = read_arrays(records / STATIC)
    parts = [read_arrays(part_path(records, step)) for step in steps]
    groups = {
        "/": xr.Dataset(attrs={"schema_version": SCHEMA_VERSION, **_flat(attributes)}),
        "weights": _weights(static, parts),
        "metrics": _metrics(records, parts),
        "logprobs": _log_probs(static, parts),
        "evaluation": _evaluation(parts),
        "mechanism": _mechanism(parts),
        "probe": _updates(static, parts),
    }
    kept = {name: dataset for name, dataset in groups.items() if dataset is not None}
    return xr.DataTree.from_dict(kept)


def write_store(tree: xr.DataTree, path: Path) -> None:
    """Write `tree` as netCDF (h5netcdf), whole or not at all; text is made storable (see `storable_text`)."""
    unfinished = path.with_name(f".{path.name}.partial")
    encoding = {
        f"/{name}": {
            variable: {"compression": "gzip", "compression_opts": 1, "shuffle": True}
            for variable, data in node.data_vars.items()
            if data.dtype.kind == "f" and data.size > 10_000
        }
        for name, node in tree.children.items()
    }
    with_storable_text(tree).to_netcdf(unfinished, engine="h5netcdf", encoding=encoding)
    with unfinished.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(unfinished, path)


def open_store(path: str | Path) -> xr.DataTree:
    """Open the store of a run, into memory.

    Args:
        path: the run directory or the .nc file itself.

    Raises:
        BadInput: the file is missing, truncated or does not follow the schema; the message names the
            file and what is wrong.
    """
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
    if not file.is_file():
        raise BadInput(f"{file}: no such store; a run writes it when it finishes")
    try:
        with xr.open_datatree(file, engine="h5netcdf") as opened:
            tree = opened.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BadInput(f"{file}: not a readable store ({error}); restore it or run again") from error
    problems = schema_problems(tree)
    if problems:
        raise BadInput(f"{file}: does not follow the schema: {'; '.join(problems)}")
    return tree


def group(tree: xr.DataTree, name: str) -> xr.Dataset:
    """Return one group of a store as a dataset.

    Raises:
        BadInput: the store has no such group.
    """
    if name not in tree.children:
        raise BadInput(f"{name}: no such group in this store; known: {', '.join(sorted(tree.children))}")
    return tree.children[name].to_dataset()


def schema_problems(tree: xr.DataTree) -> list[str]:
    """Return what is wrong with a store, in words; an empty list when it follows the schema."""
    problems = [f"attribute {name} is missing" for name in ROOT_ATTRIBUTES if name not in tree.attrs]
    found = tree.attrs.get("schema_version")
    if found is not None and int(found) > SCHEMA_VERSION:
        problems.append(f"schema version {found} is newer than {SCHEMA_VERSION}: update the lab")
    for name, variables in REQUIRED.items():
        if name not in tree.children:
            problems.append(f"group {name} is missing")
            continue
        dataset = group(tree, name)
        for variable, dimensions in variables.items():
            if variable not in dataset:
                problems.append(f"{name}/{variable} is missing")
            elif dataset[variable].dims != dimensions:
                problems.append(
                    f"{name}/{variable} has dimensions {dataset[variable].dims}, not {dimensions}"
                )
    for name, node in tree.children.items():
        steps = node.coords.get("step")
        if steps is not None and steps.dims == ("step",) and not bool((np.diff(steps.values) > 0).all()):
            problems.append(f"{name}: steps are not in increasing order")
    return problems


def export_csv(tree: xr.DataTree, name: str, path: str | Path) -> None:
    """Write one group as a CSV table, a row for each combination of its dimensions.

    Raises:
        BadInput: no such group.
    """
    group(tree, name).to_dataframe().to_csv(path)


def _flat(attributes: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, str | int | float] = {}
    for name, value in attributes.items():
        if value is None:
            result[name] = "null"
        elif isinstance(value, bool):
            result[name] = str(value).lower()
        elif isinstance(value, (str, int, float)):
            result[name] = value
        else:
            result[name] = json.dumps(value)
    return result


def _step_coordinates(parts: list[Arrays]) -> dict[str, Any]:
    return {
        "step": np.array([int(part["step"]) for part in parts]),
        "update": ("step", np.array([int(part["update"]) for part in parts])),
        "effective_step": ("step", np.array([float(part["effective_step"]) for part in parts])),
    }


def _stack(parts: list[Arrays], name: str) -> np.ndarray:
    return np.stack([part[name] for part in parts])


def _weights(static: Arrays, parts: list[Arrays]) -> xr.Dataset:
    tensors = [str(name) for name in static["param/tensor"]]
    labels = {name: module_labels(name) for name in set(tensors)}
    names = [name for name in parts[0] if name.startswith("weights/")]
    return xr.Dataset(
        {name.split("/")[1]: (("step", "param"), _stack(parts, name)) for name in names},
        coords={
            **_step_coordinates(parts),
            "tensor": ("param", np.array(tensors, dtype=object)),
            "flat_index": ("param", static["param/flat_index"]),
            "layer": ("param", np.array([labels[name][0] for name in tensors])),
            "module_kind": ("param", np.array([labels[name][1] for name in tensors], dtype=object)),
            **{
                name.split("/")[1]: ("param", values)
                for name, values in static.items()
                if name.startswith("param_label/")
            },
        },
    )


def _metrics(records: Path, parts: list[Arrays]) -> xr.Dataset:
    prefix = "metrics/"
    names = dict.fromkeys(name for part in parts for name in part if name.startswith(prefix))
    columns: dict[str, np.ndarray] = {}
    for name in names:
        pieces = [
            part.get(name, np.full(len(part[f"{prefix}step"]), np.nan))
            for part in parts
            if f"{prefix}step" in part
        ]
        columns[name[len(prefix) :]] = np.concatenate(pieces)
    steps = columns.pop("step", np.zeros(0)).astype(np.int64)
    if not np.array_equal(steps, np.arange(1, len(steps) + 1)):
        found = ", ".join(str(int(part["step"])) for part in parts)
        raise BadInput(
            f"{records}: a recorded step is missing, there are {found}; restore it, or start anew with clean=true"
        )
    variables = {name.replace("/", "__"): ("step", values) for name, values in columns.items()}
    return xr.Dataset(variables, coords={"step": steps})


def _log_probs(static: Arrays, parts: list[Arrays]) -> xr.Dataset | None:
    if "outputs/log_prob" not in parts[0]:
        return None
    mask, tokens = static["probes/mask"], static["probes/tokens"]
    row, position = np.nonzero(mask)
    responses = static["probes/response_text"]
    variables: dict[str, Any] = {"log_prob": (("step", "token"), _stack(parts, "outputs/log_prob"))}
    if "outputs_momentum_free/log_prob" in parts[0]:
        stacked = _stack(parts, "outputs_momentum_free/log_prob")
        variables["log_prob_momentum_free"] = (("step", "token"), stacked)
    variables["prompt_text"] = ("prompt", static["probes/prompt_text"].astype(object))
    variables["response_text"] = (("prompt", "rollout"), responses.astype(object))
    return xr.Dataset(
        variables,
        coords={
            **_step_coordinates(parts),
            "token_prompt": ("token", row // responses.shape[1]),
            "token_response": ("token", row % responses.shape[1]),
            "position": ("token", position),
            "token_id": ("token", tokens[mask]),
        },
    )


def _evaluation(parts: list[Arrays]) -> xr.Dataset | None:
    if "evaluation/pass_rate" in parts[0]:
        each = _stack(parts, "evaluation/pass_rate")
        return xr.Dataset(
            {
                "pass_rate": ("step", each.mean((1, 2))),
                "pass_rate_each": (("step", "cell", "replicate"), each),
            },
            coords=_step_coordinates(parts),
        )
    if "evaluation/correct" not in parts[0]:
        return None
    correct = _stack(parts, "evaluation/correct").astype(np.float32)
    samples = {
        name: (("step", "sample"), _stack(parts, f"evaluation/{name}").astype(object))
        for name in ("sample_prompt", "sample_completion")
        if f"evaluation/{name}" in parts[0]
    }
    return xr.Dataset(
        {
            "correct": (("step", "prompt", "rollout"), correct),
            "pass_rate": ("step", np.nanmean(correct, axis=(1, 2), dtype=np.float64)),
            **samples,
        },
        coords=_step_coordinates(parts),
    )


def _mechanism(parts: list[Arrays]) -> xr.Dataset | None:
    names = [name for name in parts[0] if name.startswith("mechanism/")]
    if not names:
        return None
    dimensions = ("step", "cell", "replicate", "prompt")
    arrays = {name.split("/")[1]: _stack(parts, name) for name in names}
    return xr.Dataset(
        {name: (dimensions[: values.ndim], values) for name, values in arrays.items()},
        coords=_step_coordinates(parts),
    )


def _updates(static: Arrays, parts: list[Arrays]) -> xr.Dataset | None:
    present = [part for part in parts if "updates/update" in part]
    if not present:
        return None
    dimensions = {
        "gradient": "param",
        "applied": "param",
        "gradient_projection": "projection",
        "applied_projection": "projection",
    }
    return xr.Dataset(
        {
            name: (("update", dimension), np.concatenate([part[f"updates/{name}"] for part in present]))
            for name, dimension in dimensions.items()
            if f"updates/{name}" in present[0]
        },
        coords={
            "update": np.concatenate([part["updates/update"] for part in present]),
            "step": ("update", np.concatenate([part["updates/step"] for part in present])),
            "tensor": ("param", static["update_param/tensor"].astype(object)),
            "flat_index": ("param", static["update_param/flat_index"]),
        },
    )
