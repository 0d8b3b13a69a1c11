"""The same on the softmax bandit, where pass rates and mean scores are exact at every step.

python -m experiments.mechanism.bandit runs/q1_bandit/q1_bandit experiments/mechanism
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from experiments.analysis.statistics import interval
from experiments.collect import runs_of
from experiments.mechanism.estimates import within_slope
from lab.files import write_json
from lab.linearity import to_json
from lab.provenance import code_version
from lab.trajectory.store import group, open_store

_SQUARES = ("right_score_square", "wrong_score_square", "gap_square")


def numbers_of(run: Path) -> dict[str, Any]:
    """Return slopes of log squares on log(1 - p) with contexts' own intercepts, and cosines with the start.

    Intervals are over replicates, which are runs of their own.
    """
    mechanism = group(open_store(run), "mechanism")
    table = {str(name): values.values[:, 0].astype(np.float64) for name, values in mechanism.items()}
    failure = 1 - table["pass_rate"]
    known = ~np.isnan(table["right_score_cosine"])
    cosine = np.where(known, table["right_score_cosine"], 0.0).sum(-1) / np.maximum(known.sum(-1), 1)
    return {
        "steps": mechanism["step"].values,
        "pass_rate": table["pass_rate"].mean(axis=(1, 2)),
        "slope_on_log_failure": {name: interval(within_slope(failure, table[name])) for name in _SQUARES},
        "right_score_cosine_with_start": [interval(row) for row in cosine],
        "drift_cosine_with_start": [interval(row) for row in table["drift_cosine"]],
    }


def main(study: Path, directory: Path) -> None:
    """Store and print the numbers of every point of a study."""
    rows = [{**axes, **numbers_of(run)} for axes, run in runs_of(study)]
    directory.mkdir(parents=True, exist_ok=True)
    write_json(
        directory / "bandit.json",
        to_json({"study": study.name, "collected_by": code_version(), "runs": rows}),
    )
    for row in rows:
        point = {key: value for key, value in row.items() if isinstance(value, str)}
        slopes = {name: round(found["mean"], 3) for name, found in row["slope_on_log_failure"].items()}
        print(point, slopes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    main(arguments.study, arguments.directory)
