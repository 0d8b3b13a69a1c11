"""What a run of `lab check` keeps: each law's rows as they come in, and all of them as CSV and netCDF at the end."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.checks.rows import Check, NullRow
from lab.checks.verdict import Verdict
from lab.files import plain, read_json, write_atomic, write_json

if TYPE_CHECKING:
    import xarray as xr

SCHEMA_VERSION = 1
CSV_NAME, STORE_NAME = "checks.csv", "checks.nc"

_LAWS = "laws"
_UNDEFINED = ("predicted", "simulated", "standard_error", "value")  # may be null in a file


def write_rows(
    directory: Path, name: str, rows: Sequence[Check] | Sequence[NullRow], cpu_seconds: float
) -> None:
    """Keep the rows of one piece of work, whole or not at all.

    Args:
        directory: the run.
        name: `prediction.law`, or `nulls`.
        rows: its results.
        cpu_seconds: processor time that they took.
    """
    (directory / _LAWS).mkdir(exist_ok=True)
    content = {"cpu_seconds": cpu_seconds, "rows": [dataclasses.asdict(row) for row in rows]}
    write_json(_path(directory, name), content)


def read_checks(directory: Path, name: str) -> tuple[list[Check], float]:
    """Rows of a law, and the processor seconds they took.

    Raises:
        BadInput: the file is missing or not JSON.
    """
    content = read_json(_path(directory, name))
    return [Check(**_numbers(row)) for row in content["rows"]], float(content["cpu_seconds"])


def read_nulls(directory: Path, name: str) -> list[NullRow]:
    """Rows of the nulls; errors as `read_checks`."""
    return [NullRow(**_numbers(row)) for row in read_json(_path(directory, name))["rows"]]


def is_kept(directory: Path, name: str) -> bool:
    """Whether this piece of work is done."""
    return _path(directory, name).exists()


def to_tree(
    checks: Sequence[Check], verdict: Verdict, nulls: Sequence[NullRow], attributes: Mapping[str, Any]
) -> xr.DataTree:
    """All rows as labelled arrays: group `prediction` over `check`, group `null` over `row`.

    Args:
        checks: points of all laws.
        verdict: on them, in the same order.
        nulls: rows of the nulls, perhaps none.
        attributes: of the root; nested values are stored as JSON.
    """
    import xarray as xr

    text = {key: [getattr(check, key) for check in checks] for key in ("prediction", "law")}
    text["parameters"] = [json.dumps(plain(check.parameters)) for check in checks]
    numbers = {
        key: np.array([getattr(check, key) for check in checks])
        for key in ("point", "predicted", "simulated", "standard_error", "tolerance", "exact", "samples")
    }
    judged = {"z": verdict.z, "p_value": verdict.p_value, "failed": verdict.failed}
    groups = {
        "/": xr.Dataset(
            attrs={"schema_version": SCHEMA_VERSION, **{k: _flat(v) for k, v in attributes.items()}}
        ),
        "prediction": xr.Dataset(
            {key: ("check", np.asarray(values)) for key, values in {**numbers, **judged}.items()},
            coords={key: ("check", np.array(values, dtype=object)) for key, values in text.items()},
        ),
    }
    if nulls:
        groups["null"] = _null_dataset(nulls)
    return xr.DataTree.from_dict(groups)


def write_tree(tree: xr.DataTree, directory: Path) -> None:
    """Write `checks.nc` and `checks.csv`."""
    from lab.trajectory.store import group, write_store

    write_store(tree, directory / STORE_NAME)
    table = group(tree, "prediction").to_dataframe()
    named = ["prediction", "law", "point", "parameters"]
    write_atomic(
        directory / CSV_NAME,
        table[[*named, *table.columns.difference(named, sort=False)]].to_csv(index=False),
    )


def _null_dataset(nulls: Sequence[NullRow]) -> xr.Dataset:
    import xarray as xr

    text = {
        key: np.array([getattr(row, key) for row in nulls], dtype=object)
        for key in ("null", "statistic", "source")
    }
    numbers = {
        key: np.array([_or_nan(getattr(row, key)) for row in nulls])
        for key in ("value", "standard_error", "stated", "tolerance")
    }
    return xr.Dataset(
        {key: ("row", values) for key, values in numbers.items()},
        coords={key: ("row", values) for key, values in text.items()},
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """A stored row with its undefined numbers restored: JSON knows no NaN."""
    return {key: math.nan if value is None and key in _UNDEFINED else value for key, value in row.items()}


def _flat(value: Any) -> Any:
    """The value as netCDF attributes know it."""
    known = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    return value if known else json.dumps(plain(value))


def _path(directory: Path, name: str) -> Path:
    return directory / _LAWS / f"{name}.json"
