"""Straightness at equal progress, on runs whose gain and straightness are set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments.analysis.matched_progress import at_matched_progress, excess_at_gain, smoothed_gain
from lab.linearity.walk import exact_mean_walk_r_squared

STEPS = np.arange(0.0, 320.0, 20.0)
MIDDLE = (STEPS[1:] + STEPS[:-1]) / 2
SHORTEST = 5


def row(flips: float, seed: int, rate: float, excess: float, noise: float = 0.0) -> dict[str, Any]:
    """Return a run that gains `rate` a step, every window of which is straighter than a walk by `excess`."""
    generator = np.random.default_rng(seed)
    walks = [exact_mean_walk_r_squared(n) for n in range(SHORTEST, len(STEPS) + 1)]
    return {
        "flips": str(flips),
        "seed": str(seed),
        "steps": STEPS.tolist(),
        "training_pass_rate": 0.3 + rate * MIDDLE + noise * generator.standard_normal(len(MIDDLE)),
        "window_r2_mean": np.array(walks) + excess,
    }


def test_the_smoothed_gain_is_exact_for_a_parabola_and_starts_at_zero() -> None:
    gain = smoothed_gain(STEPS, 0.2 + 1e-3 * MIDDLE - 1e-6 * MIDDLE**2)
    assert gain == pytest.approx(1e-3 * STEPS - 1e-6 * STEPS**2)


def test_excess_is_read_where_the_gain_is_reached_between_checkpoints() -> None:
    run = row(0, 0, 0.001, 0.0)
    run["window_r2_mean"] += 0.1 * np.arange(len(run["window_r2_mean"]))
    # a gain of .13 at step 130, half way between checkpoints number 7 (120) and 8 (140)
    assert excess_at_gain(run, 0.13, SHORTEST) == pytest.approx(0.25)
    assert excess_at_gain(run, 0.5, SHORTEST) is None
    assert excess_at_gain(run, 0.01, SHORTEST) == pytest.approx(0.0)


def test_the_slope_over_flips_is_that_of_the_arms_that_gain_and_the_others_are_censored() -> None:
    rows = [row(0, s, 0.001, 0.10 + 0.01 * s, 0.003) for s in range(6)]
    rows += [row(0.2, s, 0.0006, 0.06 + 0.01 * s, 0.003) for s in range(6)]
    rows += [row(0.4, s, -0.0002, 0.3, 0.003) for s in range(6)]
    found = at_matched_progress(rows, 0.1, SHORTEST)
    assert found["arms"]["0.4"]["censored"] == 6
    assert found["slope_over_flips"] == [0.0, 0.2]
    # the spread of seeds is common to both arms and drops out
    slope = found["slope_on_flips"]
    assert slope["mean"] == pytest.approx(-0.2)
    assert slope["high"] - slope["low"] < 1e-9 and slope["n"] == 6
