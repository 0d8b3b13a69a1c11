"""Holm's procedure, z-scores and planted errors, against hand examples, sizes under the null, and bisection."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lab.checks.rows import Check
from lab.checks.verdict import (
    LARGEST_Z,
    LEVEL,
    holm,
    judge,
    p_values,
    plant,
    planted_scales,
    smallest_planted_errors,
    z_scores,
)


def check(
    predicted: float, simulated: float, error: float, law: str = "a", tolerance: float = 0.0, point: int = 0
) -> Check:
    return Check("theory", law, point, {}, predicted, simulated, error, tolerance, tolerance == 0, 1000)


@pytest.mark.parametrize(
    ("p_value", "rejected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [True, False, False, True]),  # .03 > .05/2 stops the procedure
        ([0.001, 0.02, 0.04], [True, True, True]),  # where Bonferroni rejects the first alone
        ([0.02, 0.001, 0.0001], [True, True, True]),
        ([0.2, 0.5], [False, False]),
        ([0.05], [True]),
    ],
)
def test_holm_by_hand(p_value: list[float], rejected: list[bool]) -> None:
    assert holm(np.array(p_value), 0.05).tolist() == rejected


def test_holm_family_wise_error_of_true_laws() -> None:
    """With m independent uniform p-values any rejection has probability 1 - (1 - level/m)^m."""
    rng = np.random.default_rng(1)
    families, count, level = 4000, 20, 0.05
    any_rejected = [holm(rng.random(count), level).any() for _ in range(families)]
    expected = 1 - (1 - level / count) ** count
    assert abs(np.mean(any_rejected) - expected) < 4 * np.sqrt(expected * (1 - expected) / families)


def test_z_scores_of_true_laws_are_the_normals_drawn() -> None:
    rng = np.random.default_rng(2)
    errors, drawn = rng.uniform(0.01, 2.0, 2000), rng.standard_normal(2000)
    checks = [check(3.0, 3.0 + error * z, error) for error, z in zip(errors, drawn, strict=True)]
    assert z_scores(checks) == pytest.approx(
        drawn, abs=4e-4
    )  # but for the millionth that is put down to rounding
    assert p_values(drawn) == pytest.approx(stats.chi2.sf(drawn**2, 1))
    assert not judge(checks).failed.any()


def test_tolerance_and_rounding_are_taken_off_first() -> None:
    z = z_scores(
        [
            check(1.0, 1.05, 0.01, "a", tolerance=0.03),
            check(1.0, 0.98, 0.01, "b", tolerance=0.03),
            check(1.0, 1.0 + 5e-7, 0.0, "c"),
            check(0.0, 1e-17, 1e-20, "d"),
            check(1.0, 1.0 + 1e-5, 0.0, "e"),
            check(1.0, np.nan, 0.1, "f"),
            check(-1.0, -1.2, 0.1, "g"),
        ]
    )
    assert z == pytest.approx([2.0, 0.0, 0.0, 0.0, LARGEST_Z, LARGEST_Z, -2.0], rel=1e-4)


def test_rounding_at_zero_is_relative_to_the_law() -> None:
    """1e-12 is nothing beside 1, and everything beside 1e-12."""
    large = [check(1.0, 1.0, 0.0, "a"), check(0.0, 1e-12, 0.0, "a")]
    small = [check(1e-12, 1e-12, 0.0, "a"), check(0.0, 1e-12, 0.0, "a")]
    assert judge(large).failed.tolist() == [False, False]
    assert judge(small).failed.tolist() == [False, True]


def test_smallest_planted_error_is_where_rejection_begins() -> None:
    rng = np.random.default_rng(3)
    checks = [
        check(value, value + error * rng.standard_normal(), error, law, tolerance, index)
        for law, tolerance in (("a", 0.0), ("b", 0.004), ("zero", 0.0))
        for index, (value, error) in enumerate(
            ((0.0, 0.003), (0.0, 0.01)) if law == "zero" else ((1.0, 0.004), (-2.5, 0.03), (0.0, 0.01))
        )
    ]
    smallest = smallest_planted_errors(checks)
    assert set(smallest) == {"theory.a", "theory.b", "theory.zero"}

    def rejected(law: str, error: float) -> bool:
        own = [row.law == law for row in checks]
        planted = plant(checks, error)
        kept = [after if mine else before for before, after, mine in zip(checks, planted, own, strict=True)]
        return bool(judge(kept).failed[np.array(own)].any())

    for law in ("a", "b", "zero"):
        error = smallest[f"theory.{law}"]
        assert rejected(law, 1.001 * error) and rejected(law, -1.001 * error)
        assert not (rejected(law, 0.999 * error) and rejected(law, -0.999 * error))


def test_certain_points_do_not_count_as_power() -> None:
    noisy, certain = check(1.0, 1.0, 0.01, point=0), check(1.0, 1.0, 0.0, point=1)
    critical = stats.norm.isf(LEVEL / 4)
    assert smallest_planted_errors([noisy, certain])["theory.a"] == pytest.approx(critical * 0.01, rel=1e-3)
    assert smallest_planted_errors([certain])["theory.a"] == pytest.approx(1e-6)
    assert smallest_planted_errors([check(0.0, 0.0, 0.01), check(1.0, 1.0, 0.0)])["theory.a"] == np.inf


def test_a_law_that_is_zero_throughout_is_wrong_by_the_error_itself() -> None:
    checks = [check(0.0, 0.0, 0.001, "zero"), check(0.0, 0.0, 0.001, "mixed"), check(2.0, 2.0, 0.1, "mixed")]
    assert planted_scales(checks).tolist() == [1.0, 0.0, 2.0]
    assert [row.predicted for row in plant(checks, 0.02)] == pytest.approx([0.02, 0.0, 2.04])


def test_a_failed_law_sees_every_error() -> None:
    assert smallest_planted_errors([check(1.0, 2.0, 0.01)])["theory.a"] > 0.9  # but one of +100 % would fit
    both = [check(1.0, 2.0, 0.01, point=0), check(1.0, 0.5, 0.01, point=1)]
    assert smallest_planted_errors(both)["theory.a"] == 0
