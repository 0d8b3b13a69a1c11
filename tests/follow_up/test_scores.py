"""Scores and their paired differences, on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lab.draw import Draw
from lab.follow_up.figure import targets_figure
from lab.follow_up.scores import Score, compare_targets, difference

NAN = float("nan")


def score(*rates: float) -> Score:
    return Score(np.array(rates), 0.1)


def test_a_gain_that_every_problem_shares_has_no_spread() -> None:
    """Unpaired, the spread between problems would make a wide interval of it."""
    still = score(0.0, 0.25, 0.5, 0.75, 0.25, 0.0)
    better = Score(still.rates + 0.25, 0.1)
    found = difference(better, still, Draw(0))
    assert [found[key] for key in ("estimate", "low", "high")] == pytest.approx([0.25] * 3)
    assert difference(still, better, Draw(0))["estimate"] == pytest.approx(-0.25)


def test_a_gain_on_some_problems_only_has_an_interval_that_holds_zero() -> None:
    found = difference(score(1, 0, 0, 0.5, 0, 0), score(0, 0, 0.5, 0.5, 0, 0), Draw(0))
    assert found["low"] < 0 < found["high"] and found["estimate"] == pytest.approx(1 / 12)


def test_problems_that_were_not_judged_are_left_out() -> None:
    assert score(1.0, NAN, 0.5).mean == pytest.approx(0.75)
    found = difference(score(1.0, NAN, 0.5, 1.0), score(0.5, 1.0, NAN, 0.5), Draw(0))
    assert found["estimate"] == pytest.approx(0.5)


def test_a_stored_piece_comes_back_as_the_score_that_it_was() -> None:
    piece = {"pass_rate_of_problem": [0.5, None, 1.0], "interval_half_width": None}
    found = Score.of(piece)
    np.testing.assert_array_equal(found.rates, [0.5, NAN, 1.0])
    assert np.isnan(found.half_width) and found.refused is None
    refused = Score.of({"refused": "not finite"})
    assert refused.refused == "not finite" and np.isnan(refused.mean)


def test_targets_stand_beside_what_they_are_compared_with() -> None:
    still, on = score(0.0, 0.5, 0.5), score(0.5, 1.0, 1.0)
    jumped = {
        ("two_point", 30): score(0.5, 0.5, 0.5),
        ("damped", 30): Score(np.zeros(0), NAN, "overflow"),
        ("two_point", 60): score(1.0, 1.0, 1.0),
    }
    near, far = compare_targets(still, {30: on}, jumped, Draw(0))
    assert near["step"] == 30 and far["step"] == 60
    assert near["actual"]["pass_rate"] == pytest.approx(5 / 6)
    assert near["actual"]["over_persistence"]["estimate"] == pytest.approx(0.5)
    reached = near["methods"]["two_point"]
    assert reached["over_persistence"]["estimate"] == pytest.approx(1 / 6)
    assert reached["over_actual"]["estimate"] == pytest.approx(-1 / 3)
    assert near["methods"]["damped"]["refused"] == "overflow"
    assert near["methods"]["damped"]["over_persistence"] is None
    assert far["actual"] is None and far["methods"]["two_point"]["over_actual"] is None
    assert set(far["methods"]) == {"two_point"}


def test_the_figure_holds_every_known_score_and_no_other() -> None:
    still, jumped = score(0.0, 0.5), {("damped", 30): score(0.5, 1.0), ("damped", 60): score(1.0, 1.0)}
    jumped["rank_1", 60] = Score(np.zeros(0), NAN, "overflow")
    _, data = targets_figure(20, still, {30: score(1.0, 0.0)}, jumped, "1 run")
    assert data["persistence_pass_rate"].tolist() == [0.25]
    assert data["trained_on_step"].tolist() == [20, 30]
    assert data["trained_on_pass_rate"].tolist() == [0.25, 0.5]
    assert data["damped_step"].tolist() == [30, 60] and data["damped_pass_rate"].tolist() == [0.75, 1.0]
    assert data["rank_1_step"].tolist() == []
