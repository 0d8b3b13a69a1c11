"""Windows of a run, on paths whose straightness is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments.analysis.horizon import (
    AXIS,
    ENDS,
    at_equal_path,
    excess_at,
    number,
    still_since,
    summarise,
    window_of,
)
from lab.linearity.walk import exact_mean_walk_r_squared
from theory.gaussian_r_squared import drift_walk_mean

STEPS = np.arange(0.0, 920.0, 20.0)


def test_a_window_of_drift_under_a_walk_is_placed_and_exceeds_a_walk_as_expected() -> None:
    generator = np.random.default_rng(0)
    drift = generator.choice([-1.0, 1.0], 2000)
    increments = drift + generator.standard_normal((24, 2000))
    free = np.concatenate([np.zeros((1, 2000)), increments.cumsum(axis=0)])
    raw = 2 * free
    found = window_of(raw, free, STEPS[:25])
    walk = exact_mean_walk_r_squared(25)
    assert (found["checkpoints"], found["walk"]) == (25, walk)
    assert found["r2_mean"] == pytest.approx(float(drift_walk_mean(25, 1.0)), abs=0.01)
    assert found["excess"] == pytest.approx(found["r2_mean"] - walk)
    assert found["expected_excess"] == pytest.approx(found["excess"], abs=0.02)
    assert found["signal_squared"] == pytest.approx(24, abs=2)
    assert found["lag_cosine"] == pytest.approx(0.5, abs=0.02)
    assert found["displacement"] == pytest.approx(2 * np.sqrt((free[-1] ** 2).sum()))


def test_a_window_that_is_too_short_has_no_place() -> None:
    free = np.random.default_rng(0).standard_normal((4, 50)).cumsum(axis=0)
    found = window_of(free, free, STEPS[:4])
    assert "curvature_horizon" not in found and np.isnan(found["skill_damped"])
    assert np.isfinite(found["excess"])


def test_a_run_stands_still_from_where_its_last_weight_moves() -> None:
    raw = np.zeros((5, 3))
    raw[2:, 1] = 1.0
    assert still_since(raw, STEPS[:5]) == 40.0
    raw[4, 0] = 1.0
    assert still_since(raw, STEPS[:5]) is None
    assert still_since(np.zeros((5, 3)), STEPS[:5]) == 0.0


def run(rate: str, seed: int, excess: float, still: float | None = None) -> dict[str, Any]:
    """Return a run whose excess is `excess` times learning rate x steps at every window."""
    ends = STEPS[4:]
    windows = {
        str(end): {
            "excess": excess * float(rate) * end,
            "curvature_horizon": 1.0,
            "curvature_interval": [0.5 if end > 300 else 0.0, 2.0],
        }
        for end in ENDS
    }
    walks = [exact_mean_walk_r_squared(5 + i) for i in range(len(ends))]
    return {
        AXIS: rate,
        "seed": str(seed),
        "steps": STEPS.tolist(),
        "still_since": still,
        "windows": windows,
        "window_r2_mean": (np.array(walks) + excess * float(rate) * ends).tolist(),
    }


def test_windows_are_compared_within_a_seed_and_those_of_a_still_run_left_out() -> None:
    rows = [run("1e-3", seed, 0.1 + 0.01 * seed) for seed in range(3)]
    rows += [run("2e-3", seed, 0.1 + 0.01 * seed, 460.0 if seed == 2 else None) for seed in range(3)]
    table = {(row[AXIS], row["end"]): row for row in summarise(rows)}
    slow, fast = table["1e-3", 240], table["2e-3", 480]
    assert slow["longer"]["mean"] == pytest.approx(0.11 * 0.12) and slow["faster"] is None
    assert (slow["curved"], slow["placed"], slow["still"]) == (0, 3, 0)
    assert fast["excess"]["mean"] == pytest.approx(0.105 * 0.96) and fast["excess"]["n"] == 2
    assert fast["faster"]["mean"] == pytest.approx(0.105 * 0.48)
    assert (fast["curved"], fast["placed"], fast["still"]) == (2, 2, 1)
    assert table["2e-3", 60]["longer"] is None and table["2e-3", 60]["excess"]["n"] == 3
    assert np.isnan(number(rows[0], "60", "signal_squared"))


def test_equal_learning_rate_times_steps_is_read_between_recorded_windows() -> None:
    rows = [run(rate, seed, 0.1 + 0.01 * seed) for rate in ("1e-3", "2e-3") for seed in range(2)]
    assert excess_at(rows[0], 0.25) == pytest.approx(0.025)  # step 250, between 240 and 260
    assert np.isnan(excess_at(rows[0], 0.02)) and np.isnan(excess_at(rows[0], 1.0))
    assert np.isnan(excess_at({**rows[0], "still_since": 240.0}, 0.25))
    same = {(round(row["learning_rate_x_steps"], 3), row[AXIS]): row for row in at_equal_path(rows)}
    assert set(same) == {(0.9, "1e-3"), (0.9, "2e-3"), (1.8, "2e-3")}
    assert same[0.9, "2e-3"]["steps"] == pytest.approx(450)
    assert same[0.9, "2e-3"]["difference"]["mean"] == pytest.approx(0.0, abs=1e-12)
    assert same[0.9, "1e-3"]["difference"] is None
