"""What the published filter and bfloat16 weights do to straightness, by learning rate, beside runs without a signal.

python -m experiments.analysis.precision experiments/precision
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments.analysis.statistics import Rows, by_seed, cells, interval
from lab.files import read_json, write_json
from lab.linearity import to_json

AXES = ("arm", "optimizer.learning_rate")
_VALUES = ("kept", "kept_count", "moved", "r2_median", "r2_median_momentum_free", "walk_r2_median")
PLAIN, PAPER = "unfiltered", "paper"


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


def summarise(rows: Rows) -> list[dict[str, Any]]:
    """Return one row for each arm and learning rate: every number under every filter, and what the filter adds.

    `filter_adds` is the median R² after the published filter less that before it, raw, paired by run. Undefined values
    (nothing kept) are left out of a mean; `n` says how many are in it.
    """
    found = []
    for labels, members in cells(rows, AXES).items():
        filters = members[0]["filters"]
        found.append(
            {
                **dict(zip(AXES, labels, strict=True)),
                "gain": interval(row["pass_rate"][-1] - row["pass_rate"][0] for row in members),
                "r2_mean": interval(_number(row["r2_mean"]) for row in members),
                "filters": {
                    name: {
                        value: interval(_number(row["filters"][name][value]) for row in members)
                        for value in _VALUES
                    }
                    for name in filters
                },
                "filter_adds": interval(
                    _number(row["filters"][PAPER]["r2_median"]) - _number(row["filters"][PLAIN]["r2_median"])
                    for row in members
                ),
            }
        )
    return found


def difference(rows: Rows, first: str, second: str) -> list[dict[str, Any]]:
    """Return the median R² (raw) of one arm less that of another, paired by seed, by learning rate and filter."""
    by_arm = {(arm, rate): by_seed(members) for (arm, rate), members in cells(rows, AXES).items()}
    found = []
    for rate in dict.fromkeys(rate for _, rate in by_arm):
        one, other = by_arm.get((first, rate), {}), by_arm.get((second, rate), {})
        seeds = sorted(one.keys() & other.keys())
        if seeds:
            found.append(
                {
                    "optimizer.learning_rate": rate,
                    **{
                        name: interval(
                            _number(one[seed]["filters"][name]["r2_median"])
                            - _number(other[seed]["filters"][name]["r2_median"])
                            for seed in seeds
                        )
                        for name in (PLAIN, PAPER)
                    },
                }
            )
    return found


def main(directory: str) -> None:
    """Read `results.json` of a directory, write `precision.json` beside it, and print a table."""
    where = Path(directory)
    rows = read_json(where / "results.json")["runs"]
    summary = summarise(rows)
    write_json(
        where / "precision.json",
        to_json(
            {
                "cells": summary,
                "float32_minus_twin": difference(rows, "float32", "float32 twin"),
                "float32_minus_bfloat16": difference(rows, "float32", "bfloat16"),
            }
        ),
    )
    for row in summary:
        plain, paper = row["filters"][PLAIN], row["filters"][PAPER]
        print(
            f"{row['arm']:13s} {row['optimizer.learning_rate']:7s} kept {paper['kept']['mean']:.4f} "
            f"median R² {plain['r2_median']['mean']:.3f} -> {paper['r2_median']['mean']:.3f} "
            f"(walks through the filter {paper['walk_r2_median']['mean']:.3f}), gain {row['gain']['mean']:+.3f}"
        )


if __name__ == "__main__":
    main(sys.argv[1])
