"""Tables over cells, and the commands that read and store them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.analysis import noise, precision
from experiments.analysis.noise_axis import rank_correlation, table
from experiments.analysis.statistics import by_seed, interval, select
from experiments.mechanism import language_model
from lab.files import read_json, write_json


def run(flips: str, seed: int, r2: float, scale: float | None) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    steps = np.arange(0, 320, 20)
    return {
        "optimizer": "sgd",
        "cell": "16x8",
        "flips": flips,
        "seed": str(seed),
        "steps": steps.tolist(),
        "r2_mean": r2 + 0.01 * seed,
        "skill_damped": None,
        "noise_scale": scale,
        "lag_cosine": (0.3 + 0.01 * generator.standard_normal(6)).tolist(),
        "training_pass_rate": (0.3 + 0.001 * (steps[1:] - 10)).tolist(),
        "window_r2_mean": np.full(12, r2).tolist(),
    }


def rows() -> list[dict[str, Any]]:
    return [
        run(flips, seed, r2, scale)
        for flips, r2, scale in (("0", 0.6, 10.0), ("0.1", 0.5, 30.0), ("0.4", 0.4, None))
        for seed in range(4)
    ]


def test_cells_are_ordered_by_noise_and_one_without_signal_counts_as_infinite() -> None:
    found = table(rows(), ("cell", "flips"))
    assert [row["flips"] for row in found] == ["0", "0.1", "0.4"]
    assert found[-1]["noise_scale_median"] == np.inf and found[-1]["without_signal"] == 4
    assert found[0]["r2_mean"]["mean"] == pytest.approx(0.615)
    assert rank_correlation(found, "cell")["all"] == {"rho": pytest.approx(-1.0), "cells": 3}


def test_the_analysis_of_a_study_is_stored_beside_its_results(tmp_path: Path, capsys: Any) -> None:
    write_json(tmp_path / "results.json", {"runs": rows()})
    noise.main([str(tmp_path), "--gain", "0.1"])
    found = read_json(tmp_path / "analysis.json")
    assert found["axes"] == ["optimizer", "cell", "flips"]
    # equal cosines at every window are those of fractional motion alone
    families = found["families"]["sgd 16x8 0"]
    assert families["families"]["constant drift"]["rejected"]
    assert "fractional" in families["remain"]
    slope = found["matched_progress"]["sgd 16x8"]["slope_on_flips"]
    exact = np.polyfit([0, 0.1, 0.4], [0.6, 0.5, 0.4], 1)[0]
    assert slope["mean"] == pytest.approx(exact)
    assert "noise scale no signal" in capsys.readouterr().out


def filtered(plain: float, paper: float | None) -> dict[str, Any]:
    each = {
        "kept": 0.2,
        "kept_count": 20,
        "moved": 1.0,
        "r2_median_momentum_free": plain,
        "walk_r2_median": 0.45,
    }
    return {"unfiltered": {**each, "r2_median": plain}, "paper": {**each, "r2_median": paper}}


def test_what_the_filter_adds_is_paired_by_run_and_undefined_where_nothing_is_kept(tmp_path: Path) -> None:
    runs = [
        {
            "optimizer.learning_rate": rate,
            "arm": arm,
            "seed": str(seed),
            "steps": [0, 20],
            "pass_rate": [0.3, 0.4],
            "r2_mean": 0.5,
            "filters": filtered(0.5 + 0.02 * seed, None if rate == "1e-06" else paper + 0.02 * seed),
        }
        for rate in ("1e-05", "1e-06")
        for arm, paper in (("float32", 0.7), ("float32 twin", 0.6))
        for seed in range(3)
    ]
    write_json(tmp_path / "results.json", {"runs": runs})
    precision.main(str(tmp_path))
    found = read_json(tmp_path / "precision.json")
    (cell,) = select(found["cells"], arm="float32", **{"optimizer.learning_rate": "1e-05"})
    assert cell["filter_adds"]["mean"] == pytest.approx(0.2)
    assert cell["filter_adds"]["high"] - cell["filter_adds"]["low"] < 1e-9
    (nothing,) = select(found["cells"], arm="float32", **{"optimizer.learning_rate": "1e-06"})
    assert nothing["filter_adds"]["n"] == 0 and nothing["filter_adds"]["mean"] is None
    assert found["float32_minus_twin"][0]["paper"]["mean"] == pytest.approx(0.1)
    assert found["float32_minus_bfloat16"] == []


def test_an_interval_leaves_undefined_values_out_and_seeds_are_told_apart() -> None:
    found = interval([1.0, float("nan"), 3.0])
    assert (found["mean"], found["n"]) == (2.0, 2)
    with pytest.raises(ValueError, match="two runs of one seed"):
        by_seed([{"seed": "1"}, {"seed": 1}])


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of three runs of which only the table exists."""
    (tmp_path / "study").mkdir()
    write_json(tmp_path / "study" / "summary.json", {"metrics": ["pass_rate_end"]})
    with (tmp_path / "study" / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "point", "task", "seed", "state", "pass_rate_end"])
        writer.writerows([[0, 0, "addition", seed, "complete", 0.5] for seed in range(3)])
        writer.writerow([1, 1, "maximum", 0, "failed", ""])
    return tmp_path / "study"


def test_mechanism_finds_the_law_that_was_put_in_and_goes_on_where_it_was(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def along(run: Path, steps: list[int], rollouts: int) -> list[dict[str, Any]]:
        asked.append(run)
        moments = []
        for step in steps:
            failure = 0.7 - 0.1 * step / 80
            right, gap = failure**2, 1.0
            exact = {"right": right, "gap": gap, "mean": 0.0, "drift": 1.0, "wrong": 1.0}
            moments.append(
                {
                    "step": step,
                    "pass_rate": 1 - failure,
                    "squares": {k: {"corrected": v, "uncorrected": v + 1} for k, v in exact.items()},
                    "products": {f"{a} {b}": (exact[a] * exact[b]) ** 0.5 for a, b in language_model.PAIRS},
                    "uncorrected_products": {f"{a} {b}": 0.5 for a, b in language_model.PAIRS},
                    "with_start": {k: (v * (0.49 if k == "right" else v)) ** 0.5 for k, v in exact.items()},
                    "uncorrected_with_start": exact,
                    "with_previous": dict.fromkeys(exact, -0.5),
                }
            )
        return moments

    monkeypatch.setattr(language_model, "along", along)
    monkeypatch.setattr(language_model, "checkpoints_of", lambda run, every: [0, 80, 160, 240])
    words = [str(study), str(tmp_path / "out"), "--axis", "task"]
    language_model.main(words)
    language_model.main(words)
    assert [path.name for path in asked] == ["seed_0", "seed_1", "seed_2"]  # not again
    found = read_json(tmp_path / "out" / "language_model.json")["summary"]["addition"]
    slopes = found["slope_on_log_failure"]
    assert slopes["right corrected"]["over_runs"]["mean"] == pytest.approx(2.0, abs=1e-3)
    assert slopes["gap corrected"]["pooled"]["mean"] == pytest.approx(0.0, abs=1e-3)
    assert found["size_of_slope_right_minus_gap"]["corrected"]["mean"] == pytest.approx(2.0, abs=1e-3)
    for row in found["cosine_with_start"]["right corrected"]:
        assert row["mean"] == pytest.approx(1.0)
    assert [row["mean"] for row in found["cosine_with_previous"]["gap"]] == pytest.approx([-0.5] * 3)
    assert found["cosine"]["drift gap corrected"][2]["mean"] == pytest.approx(1.0)
