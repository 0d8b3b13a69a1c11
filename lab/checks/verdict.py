"""When a check fails: z-scores, one family over all points (Holm), and how small an error would have been seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from lab.checks.rows import Check

Array = NDArray[np.float64]

LEVEL = 0.001
"""Probability that any of all points fails although every law holds."""

NUMERICAL = 1e-6
"""Relative discrepancy that is put down to rounding: what experiments without randomness are allowed."""

LARGEST_Z = 1e6
"""A z-score stands for any beyond it: a discrepancy without a standard error, or an undefined result."""

_ZERO = 1e-9  # Rounding of a result that should be zero, relative to the largest value of its law.


@dataclass(frozen=True)
class Verdict:
    """What the points of a run say, each array [point].

    Attributes:
        z: simulated less predicted over the standard error, once the tolerance is taken off; cut at `LARGEST_Z`.
        p_value: two-sided, of each point alone.
        failed: whether Holm's procedure rejects the law at the point.
    """

    z: Array
    p_value: Array
    failed: NDArray[np.bool_]


def judge(checks: Sequence[Check], level: float = LEVEL) -> Verdict:
    """Judge all points of a run as one family."""
    z = z_scores(checks)
    p_value = p_values(z)
    return Verdict(z, p_value, holm(p_value, level))


def z_scores(checks: Sequence[Check]) -> Array:
    """(simulated - predicted) / standard error at each point, [point].

    The discrepancy is first reduced, towards zero, by the tolerance of the law and by what rounding explains.
    """
    predicted, simulated, error = _columns(checks)
    difference = simulated - predicted
    excess = np.maximum(np.abs(difference) - _allowance(checks), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(excess == 0, 0.0, excess / error)
    size = np.where(np.isfinite(size), size, LARGEST_Z)
    return np.copysign(np.minimum(size, LARGEST_Z), difference)


def p_values(z: Array) -> Array:
    """Two-sided normal p-values."""
    from scipy.stats import norm

    return np.asarray(2 * norm.sf(np.abs(z)))


def holm(p_value: Array, level: float) -> NDArray[np.bool_]:
    """Whether each hypothesis is rejected when the family-wise error is `level` (Holm 1979).

    The smallest p-value is held against level/m, the next against level/(m-1), and so on until one is not rejected.
    """
    order = np.argsort(p_value, kind="stable")
    count = len(p_value)
    passed = p_value[order] > level / np.arange(count, 0, -1)
    rejected = np.arange(count) < (int(np.argmax(passed)) if passed.any() else count)
    result = np.zeros(count, dtype=bool)
    result[order] = rejected
    return result


def plant(checks: Sequence[Check], error: float) -> list[Check]:
    """The same results held against formulas that are wrong by a factor 1 + error.

    A law whose formula is zero throughout (a slope of zero) is wrong by `error` itself.
    """
    scales = planted_scales(checks)
    return [
        replace(check, predicted=check.predicted + error * float(scale))
        for check, scale in zip(checks, scales, strict=True)
    ]


def planted_scales(checks: Sequence[Check]) -> Array:
    """What a planted error multiplies at each point: the prediction, or 1 throughout a law that is zero, [point]."""
    predicted, _, _ = _columns(checks)
    return np.where(_law_scales(checks) == 0, 1.0, predicted)


def smallest_planted_errors(checks: Sequence[Check], level: float = LEVEL) -> dict[str, float]:
    """For each `prediction.law` the smallest error of its formula, of either sign, that would be rejected.

    A planted error is seen when it makes at least one point of its law fail at level/m, Holm's first step for
    the m points at hand; what is returned is found from the results themselves, the deviations that they happen
    to have included. Points whose result is certain (nothing to learn at a pass rate of one) count only where a law
    has no others: they would see any error, but test the least. Infinite where no error would be seen; 0 where
    the law has failed as it is.
    """
    from scipy.stats import norm

    predicted, simulated, error = _columns(checks)
    critical = float(norm.isf(level / (2 * max(len(checks), 1))))
    reach = _allowance(checks) + critical * error
    scale = planted_scales(checks)
    deviation = (simulated - predicted) * np.sign(scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        too_large = np.where(scale != 0, (reach + deviation) / np.abs(scale), np.inf)
        too_small = np.where(scale != 0, (reach - deviation) / np.abs(scale), np.inf)
    result = {}
    for (prediction, law), everywhere in _by_law(checks):
        noisy = error[everywhere] > NUMERICAL * np.abs(predicted[everywhere]).max()
        places = np.array(everywhere)[noisy] if noisy.any() else everywhere
        worse = max(too_large[places].min(), too_small[places].min())
        result[f"{prediction}.{law}"] = max(float(worse), 0.0)
    return result


def _columns(checks: Sequence[Check]) -> tuple[Array, Array, Array]:
    table = np.array([(c.predicted, c.simulated, c.standard_error) for c in checks], dtype=np.float64)
    predicted, simulated, error = table.reshape(-1, 3).T
    return predicted, simulated, error


def _allowance(checks: Sequence[Check]) -> Array:
    """Discrepancy that does not count: tolerance of the law plus rounding, [point]."""
    predicted, _, _ = _columns(checks)
    tolerance = np.array([check.tolerance for check in checks])
    scale = _law_scales(checks)
    rounding = np.maximum(NUMERICAL * np.abs(predicted), _ZERO * np.where(scale == 0, 1.0, scale))
    return tolerance + rounding


def _law_scales(checks: Sequence[Check]) -> Array:
    """The largest absolute prediction of the law that each point belongs to, [point]."""
    predicted, _, _ = _columns(checks)
    scales = np.zeros(len(checks))
    for _, places in _by_law(checks):
        scales[places] = np.abs(predicted[places]).max()
    return scales


def _by_law(checks: Sequence[Check]) -> list[tuple[tuple[str, str], list[int]]]:
    def key(place: int) -> tuple[str, str]:
        return checks[place].prediction, checks[place].law

    places = sorted(range(len(checks)), key=key)
    return [(law, list(group)) for law, group in groupby(places, key=key)]
