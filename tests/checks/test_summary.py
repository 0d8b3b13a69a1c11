"""Counts by prediction and law, the one-line result, and nulls from theory and simulation side by side."""

from __future__ import annotations

import numpy as np
import pytest

from lab.checks.rows import Check, NullRow
from lab.checks.summary import null_lines, result_line, summarise
from lab.checks.verdict import judge, smallest_planted_errors

CHECKS = [
    Check("one", "a", 0, {}, 1.0, 1.001, 0.01, 0.0, True, 10),
    Check("one", "a", 2, {}, 1.0, 1.5, 0.01, 0.0, True, 10),
    Check("one", "b", 0, {}, 2.0, 2.0, 0.01, 0.0, True, 10),
    Check("two", "a", 0, {}, 3.0, 2.97, 0.01, 0.0, True, 10),
]
NULLS = [
    NullRow("walk", "mean", "exact", 0.442, 0.0, 0.44, 0.005),
    NullRow("walk", "mean", "simulated", 0.443, 0.001, 0.44, 0.005),
    NullRow("twin", "median", "simulated", 0.60, 0.01, 0.5, 0.02),
    NullRow("twin", "share", "simulated", 0.60, 0.01),
]


def test_counts_and_worst_points() -> None:
    seconds = {"one.a": 1.0, "one.b": 2.0, "two.a": 3.0}
    summary = summarise(CHECKS, judge(CHECKS), smallest_planted_errors(CHECKS), seconds, NULLS)
    assert summary["failed"] == ["one.a[2]"] and summary["n_failed"] == 1 and summary["n_points"] == 4
    assert summary["predictions"]["one"]["n_points"] == 3 and summary["predictions"]["two"]["n_failed"] == 0
    assert summary["predictions"]["one"]["worst_z"] == pytest.approx(50.0, rel=1e-3)
    assert summary["predictions"]["two"]["worst_point"] == "two.a[0]"
    assert summary["laws"]["one.b"]["cpu_seconds"] == 2.0
    assert summary["laws_not_rejected"] == ["one.b", "two.a"]
    assert summary["nulls_not_as_stated"] == ["twin: median"]
    assert result_line(summary, [], 0.0) == "1 of 4 points of 2 predictions failed: one.a[2]"
    assert result_line(summary, [], 0.02) == "planted error 0.02: 1 of 3 laws rejected"
    assert result_line(summary, ["two.b"], 0.0) == "not simulated: two.b"


def test_agreement_in_one_line() -> None:
    good = CHECKS[:1]
    summary = summarise(good, judge(good), None, {"one.a": 1.0}, [])
    assert result_line(summary, [], 0.0) == "all 1 points of 1 prediction agree"
    assert "smallest_planted_error" not in summary["laws"]["one.a"]


def test_theory_and_simulation_of_a_null_share_a_line() -> None:
    lines = null_lines(NULLS)
    assert [line.name for line in lines] == ["walk: mean", "twin: median", "twin: share"]
    assert (lines[0].exact, lines[0].simulated, lines[0].standard_error) == (0.442, 0.443, 0.001)
    assert lines[1].exact is None and lines[2].stated is None
    assert [row.as_stated for row in NULLS] == [True, True, False, None]
    assert NullRow("x", "y", "simulated", np.nan, 0.1, 0.5, 0.1).as_stated is False
