"""Figures of the findings: drawn from what is stored, and saying what is stored there."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from lab.figures.style import _RC
from paper_figs import FIGURES
from paper_figs.phase_diagram import ARMS, _place
from paper_figs.sign_noise import LEVELS, bowl_curve, signal_power
from paper_figs.statistics import mean_interval, paired_difference
from paper_figs.stored import stored
from theory.curved_bowl import bowl_r_squared
from theory.gaussian_r_squared import random_walk_mean


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `lab figures` filled, at a low resolution."""
    from lab.cli import main

    output = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_RC, "savefig.dpi", 50)
        assert main(["figures", f"output={output}"]) == 0
    return output


def column(path: Path, name: str) -> np.ndarray:
    """A column of a figure's data, without what was left empty."""
    with path.open(newline="") as file:
        return np.array([float(row[name]) for row in csv.DictReader(file) if row[name]])


def test_every_figure_is_drawn_from_stored_results(drawn: Path) -> None:
    expected = {f"{name}.{ending}" for name in FIGURES for ending in ("png", "pdf", "csv")}
    assert {path.name for path in drawn.iterdir()} == expected
    assert all(path.stat().st_size > 200 for path in drawn.iterdir())


def test_a_figure_that_does_not_exist_is_refused(lab: Callable[..., Any]) -> None:
    outcome = lab("figures", "fig=snr_curv")
    assert outcome.code == 2 and "snr_curve" in outcome.err


def test_means_and_intervals_of_the_noise_curve_are_those_of_the_stored_runs(drawn: Path) -> None:
    results = stored("experiments/q2_snr/results.json")
    assert results is not None
    runs = [run["r2_mean"] for run in results["runs"] if (run["arm"], run["snr_db"]) == ("sgd_unit", "-5")]
    low, high = student.interval(0.95, len(runs) - 1, np.mean(runs), np.std(runs, ddof=1) / len(runs) ** 0.5)
    place = LEVELS.index("-5")
    middle = column(drawn / "snr_curve.csv", "sgd_unit_mean")[place]
    half = column(drawn / "snr_curve.csv", "sgd_unit_half_width")[place]
    assert (middle - half, middle + half) == pytest.approx((low, high), abs=1e-7)


def test_synthetic_curves_hold_every_level_with_theory_for_the_quadratic_alone(drawn: Path) -> None:
    path = drawn / "snr_synthetic.csv"
    results = stored("experiments/q2_synthetic/results.json")
    assert results is not None
    for row in results["cells"]:
        if row["snr_db"] == "zero":
            name = "_".join(row[key] for key in ("model", "optimizer", "arm", "normalisation"))
            assert column(path, f"{name}_mean")[-1] == pytest.approx(row["r2_mean"], abs=1e-6)
    with path.open() as file:
        names = file.readline().strip().split(",")
    theory = [name for name in names if name.endswith("_theory")]
    assert len(theory) == 8 and all(name.startswith("quadratic") for name in theory)


def test_curve_of_the_bowl_is_that_of_gradient_descent_with_a_weaker_drift() -> None:
    """h and the noise of a run at a place, then a times h with the same noise: exact E[R²] of that AR(1)."""
    updates, curvature, squares = 13_000, 6.0, 40.0
    steps = np.linspace(0, updates, 14)
    rate = 1 - np.exp(-curvature / updates)
    gathered = np.sqrt(((1 - rate) ** (2 * np.arange(updates))).sum())
    start = np.sqrt(squares) * gathered / (1 - np.exp(-curvature))
    expected = [
        bowl_r_squared(steps, 1 - amplitude * rate, start, 1.0) for amplitude in np.sqrt(signal_power())
    ]
    np.testing.assert_allclose(bowl_curve(curvature, squares), expected, atol=1e-3)
    assert bowl_curve(curvature, squares)[-1] == pytest.approx(float(random_walk_mean(14)), abs=1e-9)


def test_every_condition_on_the_phase_diagram_has_runs() -> None:
    for arm in ARMS:
        results = stored(arm.source)
        assert results is not None
        for value in arm.along[1]:
            assert len(_place(results["runs"], arm, value)) >= 3, (arm.label, value)


def test_simulated_map_in_the_figure_has_the_stored_discrepancy(drawn: Path) -> None:
    results = stored("experiments/phase_diagram/result.json")
    assert results is not None
    path = drawn / "phase_diagram.csv"
    for each in results["maps"]:
        if each["name"] == "damping":
            continue
        parts = [
            column(path, f"{each['name']}_{part}") for part in ("simulated", "predicted", "standard_error")
        ]
        z = (parts[0] - parts[1]) / parts[2]
        assert np.abs(z).max() == pytest.approx(each["largest_z"], abs=0.02)


def test_intervals_of_means_and_of_paired_differences() -> None:
    values = [0.2, 0.5, 0.3, 0.9]
    low, high = student.interval(0.95, 3, np.mean(values), np.std(values, ddof=1) / 2)
    middle, half = mean_interval(values)
    assert (middle - half, middle + half) == pytest.approx((low, high))
    assert np.isnan(mean_interval([1.0])[1])
    first, second = {0: 1.0, 1: 2.0, 2: 3.0, 9: 5.0}, {0: 1.5, 1: 2.1, 2: 3.3, 7: 0.0}
    assert paired_difference(first, second) == pytest.approx((*mean_interval([0.5, 0.1, 0.3]), 3))
