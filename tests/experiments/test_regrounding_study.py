"""Costs until the target of arms whose curves are set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments.regrounding_study.analyse import analyse, curves
from lab.errors import BadInput

GRID = [0, 10, 20, 30]


def run(arm: str, seed: int, rates: list[float], steps: float | None, checks: float = 0.0) -> dict[str, Any]:
    """Return a row of task `t`; `steps` None is censored."""
    end = 30.0 + checks
    return {
        "task": "t",
        "arm": arm,
        "seed": seed,
        **{unit: end if steps is None else steps for unit in ("steps", "tokens")},
        **{f"{unit}_in_all": end for unit in ("steps", "tokens")},
        "reached": steps is not None,
        "pass_rate": rates,
        "evaluated_at": GRID,
        "steps_spent": [step + checks * step / 30 for step in GRID],
    }


def rows() -> list[dict[str, Any]]:
    plain = [run("plain", seed, [0.1, 0.2, 0.3, 0.4 + 0.1 * seed], 20.0) for seed in range(3)]
    return plain + [run("other", seed, [0.1, 0.1, 0.2, 0.2], None, checks=3.0) for seed in range(2)]


def test_curves_are_means_over_seeds_with_an_interval_from_three_on() -> None:
    found = curves(rows())["t"]
    plain, other = found["plain"], found["other"]
    assert plain["evaluated_at"] == GRID and plain["mean"] == pytest.approx([0.1, 0.2, 0.3, 0.5])
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert plain["low"][-1] == pytest.approx(0.5 - half, abs=1e-4)
    assert plain["high"][-1] == pytest.approx(0.5 + half, abs=1e-4)
    assert (other["low"], other["seeds"]) == (None, 2)
    assert other["steps_spent"] == [0.0, 11.0, 22.0, 33.0]


def test_runs_on_different_grids_have_no_mean_curve() -> None:
    with pytest.raises(BadInput, match="t, plain: runs were evaluated at different steps"):
        curves([*rows(), {**run("plain", 3, [0.1, 0.2, 0.3], 20.0), "evaluated_at": GRID[:3]}])


def test_what_has_not_arrived_counts_as_the_horizon_that_both_arms_share() -> None:
    found = analyse(rows(), "plain")["other"]
    assert found["reached"]["t"] == "0 of 2"
    assert found["speedup_steps"]["all tasks"]["ratio"] == pytest.approx(20 / 30)
    assert found["speedup_steps"]["all tasks"]["low"] is None
