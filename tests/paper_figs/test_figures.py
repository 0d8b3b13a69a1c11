"""Figures of the findings: drawn from what is stored, and saying what is stored there."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable
from importlib import import_module
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from lab.figures.style import _RC
from paper_figs import (
    FIGURES,
    extrapolation_targets,
    horizon,
    mechanism,
    noise_surface,
    output_space,
    precision,
    regrounding,
)
from paper_figs.phase_diagram import ARMS, _place
from paper_figs.sign_noise import LEVELS, bowl_curve, signal_power
from paper_figs.statistics import by_seed, how_many, mean_interval, paired_difference, relative_gain
from paper_figs.stored import stored
from theory.curved_bowl import bowl_r_squared
from theory.gaussian_r_squared import drift_walk_mean, random_walk_mean


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `lab figures` filled, at a low resolution and with labels not fitted, which is slow."""
    from lab.cli import main

    output = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_RC, "savefig.dpi", 50)
        patch.setitem(_RC, "figure.constrained_layout.use", False)
        assert main(["figures", f"output={output}"]) == 0
    return output


def column(path: Path, name: str) -> np.ndarray:
    """A column of a figure's data, without what was left empty."""
    with path.open(newline="") as file:
        return np.array([float(row[name]) for row in csv.DictReader(file) if row[name]])


def results_of(path: str) -> dict[str, Any]:
    """Stored results that a test may change."""
    found = stored(path)
    assert found is not None
    return copy.deepcopy(dict(found))


def t_interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of the 95 % t interval, by hand."""
    low, high = student.interval(
        0.95, len(values) - 1, np.mean(values), np.std(values, ddof=1) / len(values) ** 0.5
    )
    return (low + high) / 2, (high - low) / 2


def title(figure: Any) -> str:
    """What stands above all panels."""
    return str(figure.get_suptitle())


def test_every_figure_is_drawn_from_stored_results(drawn: Path) -> None:
    there = [name for name, module in FIGURES.items() if stored(import_module(module).SOURCE) is not None]
    expected = {f"{name}.{ending}" for name in there for ending in ("png", "pdf", "csv")}
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


def test_numbers_are_found_by_their_path_and_what_is_absent_is_left_out() -> None:
    rows = [
        {"seed": "0", "arm": "a", "inner": {"x": 0.0}},
        {"seed": "1", "arm": "a", "inner": {"x": None}},
        {"seed": "2", "arm": "a", "inner": {}},
        {"seed": "3", "arm": "a"},
        {"seed": "4", "arm": "b", "inner": {"x": 2.0}},
    ]
    assert by_seed(rows, ("inner", "x"), arm="a") == {0: 0.0}
    assert by_seed(rows, ("inner", "x")) == {0: 0.0, 4: 2.0}
    assert relative_gain({0: 2.0, 1: 0.0, 2: 4.0}, {0: 3.0, 1: 1.0, 3: 9.0}) == {0: 0.5}
    assert (how_many([8, 8]), how_many([8, 4]), how_many([], "runs")) == (
        "8 seeds",
        "4 to 8 seeds",
        "no runs",
    )


def test_extrapolations_stand_beside_standing_still_of_the_same_run(drawn: Path) -> None:
    runs = results_of(extrapolation_targets.SOURCE)["runs"]
    own = [run["weight_space"]["160"] for run in runs if run["task"] == "maximum"]
    middle, half = t_interval([each["rank_1"] - each["persistence"] for each in own])
    path = drawn / "extrapolation_targets.csv"
    place = list(column(path, "maximum_rank_1_target")).index(160)
    assert column(path, "maximum_rank_1_mean")[place] == pytest.approx(middle, abs=1e-7)
    assert column(path, "maximum_rank_1_half_width")[place] == pytest.approx(half, abs=1e-7)


def test_a_target_that_was_not_evaluated_is_left_out() -> None:
    results = results_of(extrapolation_targets.SOURCE)
    for run in results["runs"]:
        if run["task"] == "addition":
            del run["weight_space"]["240"]["damped"]
            run["weight_space"] = {key: each for key, each in run["weight_space"].items() if key != "320"}
    _, data = extrapolation_targets.draw(results)
    assert list(data["addition_damped_target"]) == [100, 120, 160]
    assert len(data["addition_damped_mean"]) == 3
    assert list(data["addition_trained_target"]) == [100, 120, 160, 240]
    assert list(data["maximum_damped_target"]) == [100, 120, 160, 240, 320]


def test_gains_of_extrapolated_decoding_are_relative_and_averaged_within_a_seed(drawn: Path) -> None:
    results = results_of(output_space.SOURCE)
    design = "160-320 at 1"
    place = list(results["runs"][0]["output_space"]).index(design)
    gains: dict[int, list[float]] = {}
    for run in results["runs"]:
        scores = {arm: each["avg@4"] for arm, each in run["output_space"][design].items()}
        gains.setdefault(run["seed"], []).append(scores["extrapolated"] / scores["temperature_tuned"] - 1)
    middle, half = t_interval([float(np.mean(values)) for values in gains.values()])
    path = drawn / "output_space.csv"
    assert column(path, "all tasks_over_temperature_tuned_mean")[place] == pytest.approx(middle, abs=1e-7)
    assert column(path, "all tasks_over_temperature_tuned_half_width")[place] == pytest.approx(half, abs=1e-7)
    said = results["summary"]["all tasks"][design]["relative_gain_over_temperature_tuned"]
    assert (middle, half) == pytest.approx((said["mean"], said["half_width"]))


def test_a_design_that_a_task_lacks_is_left_out_there_and_of_the_mean() -> None:
    results = results_of(output_space.SOURCE)
    for run in results["runs"]:
        if run["task"] == "maximum":
            del run["output_space"]["80-160 at 1"]
    _, data = output_space.draw(results)
    assert len(data["addition_over_last_mean"]) == 6
    for task in ("maximum", "all tasks"):
        assert list(data[f"{task}_over_last_design"]) == [1, 2, 3, 4, 5]
        assert len(data[f"{task}_over_last_mean"]) == 5


def test_mechanism_shows_the_stored_slopes_and_cosines(drawn: Path) -> None:
    path = drawn / "mechanism.csv"
    for run in results_of(mechanism.SOURCE)["runs"]:
        name = f"bandit_{run['optimizer']}_{run['cell']}_gap_square"
        place = list(column(path, f"{name}_flips")).index(float(run["flips"]))
        expected = run["slope_on_log_failure"]["gap_square"]["high"]
        assert column(path, f"{name}_high")[place] == pytest.approx(expected, rel=1e-6)
    summary = results_of(mechanism.LANGUAGE_MODEL)["summary"]["addition"]
    later = [each["low"] for each in summary["cosine_with_start"]["drift corrected"][1:]]
    assert column(path, "addition_drift_corrected_low") == pytest.approx(later, rel=1e-6)
    assert list(column(path, "addition_drift_corrected_step")) == summary["steps"][1:]


def test_mechanism_is_drawn_without_the_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mechanism, "stored", lambda path: None)
    results = results_of(mechanism.SOURCE)
    results["runs"] = results["runs"][:5]
    figure, data = mechanism.draw(results)
    assert len(figure.axes) == 1 and "right" not in title(figure)
    assert sum(len(values) for name, values in data.items() if name.endswith("gap_square_mean")) == 5


def test_precision_draws_the_stored_cells_and_says_how_many() -> None:
    results = results_of(precision.SOURCE)
    runs = [
        run
        for run in results["runs"]
        if (run["arm"], run[precision.RATE]) != ("bfloat16", "0.0001") or int(run["seed"]) < 3
    ]
    chosen = [run for run in runs if (run["arm"], run[precision.RATE]) == ("bfloat16", "0.0001")]
    chosen[0]["filters"]["paper"]["r2_median"] = None  # nothing kept
    for run in runs:
        if run["arm"] == "float32 twin":
            run["filters"]["thresholds alone"]["r2_median"] = None
    figure, data = precision.draw({**results, "runs": runs})
    filters = list(precision.FILTERS)
    medians = [run["filters"]["paper"]["r2_median"] for run in chosen[1:]]
    place = filters.index("paper")
    drawn_at = (
        data["bfloat16_0.0001_r2_median_mean"][place],
        data["bfloat16_0.0001_r2_median_half_width"][place],
    )
    assert drawn_at == pytest.approx(t_interval(medians))
    left = [filters.index(name) for name in ("unfiltered", "cast alone", "paper")]
    assert list(data["float32 twin_1e-05_r2_median_filter"]) == left
    assert list(data["float32 twin_1e-05_walk_r2_median_filter"]) == [0, 1, 2, 3]
    cells = {(run["arm"], run[precision.RATE]) for run in runs}
    assert f"{len(cells)} of 9 cells stored, {len(runs)} runs" in title(figure)
    assert {name.rsplit("_r2_median_mean")[0] for name in data if name.endswith("r2_median_mean")} == {
        f"{arm}_{rate}{walk}" for arm, rate in cells for walk in ("", "_walk")
    }
    assert "3 to 4 seeds" in figure.axes[0].get_title()


@pytest.mark.parametrize(("flips", "prompts", "rollouts"), [(0.2, 8, 4), (0.4, 32, 16), (0.1, 16, 8)])
def test_surface_follows_from_counting_rewarded_groups(flips: float, prompts: int, rollouts: int) -> None:
    """S² by hand: drift is E[s_k] times the noisy gap, noise is 1/G wherever a group's rewards differ."""
    rate, anchored = 0.4, 90.0
    anchor = noise_surface.Anchor(16, 8, rate, 300, 16, "equal", anchored)

    def power(share: float, batch: int, group: int) -> float:
        noisy = rate * (1 - share) + (1 - rate) * share
        weights = [comb(group, k) * noisy**k * (1 - noisy) ** (group - k) for k in range(group + 1)]
        spread = sum(w * (k / group * (1 - k / group)) ** 0.5 for k, w in enumerate(weights))
        gap = (1 - 2 * share) * rate * (1 - rate) / (noisy * (1 - noisy))
        return batch * (gap * spread) ** 2 / ((1 - weights[0] - weights[-1]) / group)

    signal_squared = anchored * power(flips, prompts, rollouts) / power(0.0, 16, 8)
    expected = drift_walk_mean(16, (signal_squared / 15) ** 0.5)
    found = noise_surface.expected(anchor, flips, prompts, rollouts)
    assert float(found) == pytest.approx(float(expected), rel=1e-9)
    at_half = noise_surface.expected(anchor, 0.5, prompts, rollouts)
    assert float(at_half) == pytest.approx(float(random_walk_mean(16)), abs=1e-9)


def test_surface_goes_through_its_anchor_alone_and_marks_are_means_of_the_runs(drawn: Path) -> None:
    path = drawn / "noise_surface.csv"
    runs = results_of(noise_surface.SOURCE)["runs"]
    for cell, flips in (("16x8", "0"), ("8x4", "0.4")):
        own = [
            run["r2_mean"]
            for run in runs
            if (run["optimizer"], run["cell"], run["flips"]) == ("adamw", cell, flips)
        ]
        points = zip(
            column(path, "built-in model AdamW_prompts"),
            column(path, "built-in model AdamW_flips"),
            strict=True,
        )
        place = list(points).index((float(cell.split("x")[0]), float(flips)))
        measured, theory = (
            column(path, f"built-in model AdamW_{name}")[place] for name in ("measured", "theory")
        )
        assert measured == pytest.approx(np.mean(own), abs=1e-7)
        assert (abs(measured - theory) < 1e-6) == (cell == "16x8")


def test_a_noise_cell_without_runs_has_no_mark_and_an_optimiser_without_an_anchor_no_panel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(noise_surface, "stored", lambda path: None)
    monkeypatch.setattr(noise_surface, "FINE", 3)
    results = results_of(noise_surface.SOURCE)
    runs = [run for run in results["runs"] if run["optimizer"] == "adamw"]
    stray = [{**run, "optimizer": "sgd"} for run in runs if run["cell"] == "8x4"]
    kept = [run for run in runs if (run["cell"], run["flips"]) != ("32x16", "0.2")]
    _, data = noise_surface.draw({**results, "runs": kept + stray})
    assert len(data["built-in model AdamW_measured"]) == 11
    assert not any("SGD" in name for name in data)
    _, with_sgd = noise_surface.draw({"runs": kept + [{**run, "optimizer": "sgd"} for run in kept]})
    assert with_sgd["built-in model SGD_theory"] == pytest.approx(data["built-in model AdamW_theory"])


def test_windows_of_a_run_stand_over_the_walk_of_as_many_checkpoints(drawn: Path) -> None:
    runs = [run for run in results_of(horizon.SOURCE)["runs"] if run[horizon.AXIS] == "0.0003"]
    walk = float(random_walk_mean(25))  # a checkpoint every 20 steps, 0 to 480
    middle, half = t_interval([run["windows"]["480"]["r2_mean"] - walk for run in runs])
    path = drawn / "horizon.csv"
    place = list(column(path, "0.0003_excess_end")).index(480)
    assert column(path, "0.0003_excess_mean")[place] == pytest.approx(middle, abs=1e-7)
    assert column(path, "0.0003_excess_half_width")[place] == pytest.approx(half, abs=1e-7)
    whole = list(column(path, "0.0003_every_window_end"))
    assert whole == list(range(80, 920, 20))
    assert column(path, "0.0003_every_window_mean")[whole.index(480)] == pytest.approx(middle, abs=1e-7)


def test_windows_of_runs_that_stand_still_are_left_out() -> None:
    results = results_of(horizon.SOURCE)
    for run in results["runs"]:
        run["still_since"] = 300.0 if (run[horizon.AXIS], run["seed"]) == ("0.0001", "1") else None
    figure, data = horizon.draw(results)
    runs = dict(zip(data["0.0001_excess_end"], data["0.0001_excess_runs"], strict=True))
    assert runs == {60: 3, 120: 3, 240: 3, 480: 2, 900: 2}
    assert data["0.0001_every_window_end"][-1] == 300
    assert data["0.0003_every_window_end"][-1] == 900
    assert "2 to 3 seeds a point" in title(figure)


DEVELOPMENT = "experiments/q6_development_2/results.json"


def test_ends_of_schedules_are_paired_with_the_baseline_and_arrivals_counted() -> None:
    results = results_of(DEVELOPMENT)
    _, data = regrounding.draw(results)
    ends = {
        (run["arm"], run["seed"]): run["pass_rate"][-1]
        for run in results["runs"]
        if run["task"] == "addition"
    }
    arms = ["plain 2e-4", *(arm for arm in results["arms"] if arm != "plain 2e-4")]
    place = arms.index("fixed (20,5) 2e-4")
    middle, half = t_interval([ends[arms[place], seed] - ends["plain 2e-4", seed] for seed in (100, 101)])
    assert data["addition_end_difference"][place] == pytest.approx(middle)
    assert data["addition_end_half_width"][place] == pytest.approx(half)
    assert data["addition_share_arrived"][place] == 0
    assert data["addition_share_arrived"][0] == 0.5
    said = results["arms"][arms[place]]["speedup_steps"]
    assert data["all tasks_speed_ratio"][place] == said["all tasks"]["ratio"]
    # both of the arm and one of the baseline
    assert (data["addition_late_arm"][place], data["addition_late_baseline"][place]) == (2, 1)
    assert (data["all tasks_late_arm"][place], data["all tasks_late_baseline"][place]) == (2, 1)


def test_a_run_that_arrives_after_the_common_horizon_is_censored() -> None:
    rows = [
        {"task": "t", "arm": "a", "steps": 164.0, "steps_in_all": 165.0, "reached": True},
        {"task": "t", "arm": "a", "steps": 160.0, "steps_in_all": 165.0, "reached": True},
        {"task": "t", "arm": "plain", "steps": 160.0, "steps_in_all": 160.0, "reached": False},
        {"task": "u", "arm": "plain", "steps": 10.0, "steps_in_all": 10.0, "reached": False},
    ]
    assert regrounding.censored(rows, "a", "plain", "t") == (1, 1)


def test_curves_of_schedules_are_drawn_where_they_are_stored() -> None:
    results = results_of(DEVELOPMENT)
    assert len(regrounding.draw(results)[0].axes) == 3
    arm = "adaptive (40,20) 2e-4"
    curve = {"steps_spent": [0.0, 11.0], "mean": [0.3, 0.4], "low": [0.2, 0.3], "high": [0.4, 0.5]}
    results["curves"] = {task: {"plain 2e-4": curve, arm: curve} for task in results["targets"]}
    figure, data = regrounding.draw(results)
    assert len(figure.axes) == 6
    assert list(data["maximum_adaptive (40;20) 2e-4_steps"]) == [0, 11]
    assert list(data["maximum_plain 2e-4_high"]) == [0.4, 0.5]
