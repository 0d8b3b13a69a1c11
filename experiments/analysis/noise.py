"""Q1 and Q4 of a collected study: families of motion, straightness at matched progress, noise as the common axis.

    python -m experiments.analysis.noise experiments/q1_noise

Writes `analysis.json` beside `results.json` and prints what it found.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.analysis.matched_progress import at_matched_progress
from experiments.analysis.noise_axis import rank_correlation, table
from experiments.analysis.persistence_families import compare
from experiments.analysis.statistics import Rows, cells
from experiments.collect import LAGS, SHORTEST_WINDOW
from lab.files import read_json, write_json
from lab.linearity import to_json

GAIN = 0.05


def axes_of(rows: Rows) -> tuple[str, ...]:
    """Return the axes of a sweep: what a collected row says before its seed and its numbers."""
    names = list(rows[0])
    return tuple(name for name in names[: names.index("steps")] if name != "seed")


def _is_share(label: Any) -> bool:
    try:
        float(label)
    except (TypeError, ValueError):
        return False
    return True


def families(rows: Rows, axes: tuple[str, ...]) -> dict[str, Any]:
    """Return the comparison of families for every cell with lag cosines of three runs or more."""
    found = {}
    for labels, members in cells(rows, axes).items():
        usable = [row for row in members if row["lag_cosine"] and None not in row["lag_cosine"]]
        if len(usable) >= 3:
            spacing = float(np.diff(usable[0]["steps"])[0])
            cosines = np.array([row["lag_cosine"] for row in usable], dtype=np.float64)
            found[" ".join(labels)] = compare(np.array(LAGS) * spacing, cosines)
    return found


def progress(rows: Rows, axes: tuple[str, ...], gain: float) -> dict[str, Any]:
    """Return straightness at matched progress for every cell whose arms are shares of flips."""
    chosen = [row for row in rows if _is_share(row.get("flips")) and row.get("training_pass_rate")]
    others = tuple(axis for axis in axes if axis != "flips")
    return {
        " ".join(labels): at_matched_progress(members, gain, SHORTEST_WINDOW)
        for labels, members in cells(chosen, others).items()
    }


def analyse(results: Mapping[str, Any], gain: float) -> dict[str, Any]:
    """Return all analyses of a collected study."""
    rows = results["runs"]
    axes = axes_of(rows)
    cells_ = table(rows, axes)
    return {
        "axes": axes,
        "families": families(rows, axes),
        "matched_progress": progress(rows, axes, gain),
        "noise_axis": cells_,
        "noise_axis_rank_correlation": rank_correlation(cells_, "optimizer" if "optimizer" in axes else None),
    }


def main(arguments: list[str] | None = None) -> None:
    """Analyse a directory's results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--gain", type=float, default=GAIN, help="in pass rate, at which arms are compared")
    options = parser.parse_args(arguments)
    found = to_json(analyse(read_json(options.directory / "results.json"), options.gain))
    write_json(options.directory / "analysis.json", found)
    for name, row in found["families"].items():
        rejected = [family for family, one in row["families"].items() if one["rejected"]]
        print(f"{name}: {row['verdict']} (remain {row['remain']}; rejected {rejected})")
    for name, row in found["matched_progress"].items():
        print(f"{name}: at a gain of {row['gain']}:", row["arms"], "slope", row["slope_on_flips"])
    for row in found["noise_axis"]:
        scale = row["noise_scale_median"]
        point = " ".join(row[axis] for axis in found["axes"])
        text = "no signal" if scale is None else f"{scale:.0f}"
        print(f"{point}: noise scale {text}, R² {row['r2_mean']['mean']:.3f}")
    print("rank correlation of R² with the noise scale:", found["noise_axis_rank_correlation"])


if __name__ == "__main__":
    main()
