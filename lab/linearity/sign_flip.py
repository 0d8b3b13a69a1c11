"""The sign-flip test: is a run straighter, or better forecast, than its own increments in random directions?

The null hypothesis is that the increments between checkpoints are independent in time, each symmetric about
zero as a vector; how the elements depend on each other is left free, which matters because thousands of
weights of one run share noise directions. Under it, flipping the sign of whole increment vectors leaves
the distribution of the trajectory unchanged. Momentum breaks the null without any drift: test the
momentum-free position (`lab.linearity.momentum`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from lab.linearity.checks import FloatArray, check_trajectory
from lab.settings import require

Statistic = Callable[[FloatArray, FloatArray], float]

TIE_TOLERANCE = 1e-9


@runtime_checkable
class FlippedStatistic(Protocol):
    """A statistic that can be computed for many sign patterns at once (`lab.linearity.statistics`)."""

    def __call__(self, values: FloatArray, steps: FloatArray) -> float:
        """The statistic of one trajectory, values[checkpoint, element] at steps[checkpoint]."""

    def flipped(self, values: FloatArray, steps: FloatArray, signs: FloatArray) -> FloatArray:
        """The statistic after each flip: signs[pattern, interval] -> [pattern]."""


@dataclass(frozen=True)
class SignPatterns:
    """Sign patterns other than the identity.

    Attributes:
        signs: [pattern, interval], +1 or -1, float64; in lexicographic order, + first.
        exact: whether these and the identity are all distinct patterns.
    """

    signs: FloatArray
    exact: bool


@dataclass(frozen=True)
class SignFlipResult:
    """Outcome of a sign-flip test.

    Attributes:
        observed: T, the statistic of the trajectory itself.
        p_value: (1 + #{T_null >= T}) / (1 + M), one-sided; NaN if T is.
        null: [M], the statistic under each pattern other than the identity.
        n_patterns: 1 + M, the identity included.
        n_nan: how many of the null statistics are NaN; they count in M, not as >= T.
        exact: whether all distinct patterns were enumerated.
    """

    observed: float
    p_value: float
    null: FloatArray
    n_patterns: int
    n_nan: int
    exact: bool


def sign_patterns(
    n_increments: int, n_flips: int, generator: np.random.Generator, max_enumeration: int = 4096
) -> SignPatterns:
    """All distinct sign patterns if there are at most `max_enumeration`, else `n_flips` random ones.

    Flipping every sign mirrors the trajectory at its start and changes none of our statistics, so
    enumeration fixes the first sign: 2^(n_increments - 1) patterns, 4096 for 14 checkpoints. These form a
    group, so the test is exact for any statistic, whether or not mirroring changes it.

    Args:
        n_increments: checkpoints minus one, at least 1.
        n_flips: number of random patterns, independent and uniform, where enumeration is too long.
        generator: source of randomness; unused when enumerating.
        max_enumeration: largest number of patterns to enumerate.

    Raises:
        Invalid: a number below 1.
    """
    require(n_increments >= 1, "n_increments", f"expected at least 1, got {n_increments}")
    require(n_flips >= 1, "n_flips", f"expected at least 1, got {n_flips}")
    free = n_increments - 1
    if free < 63 and 2**free <= max_enumeration:
        codes = np.arange(1, 2**free, dtype=np.int64)[:, None]
        flipped = (codes >> np.arange(free - 1, -1, -1, dtype=np.int64)) & 1
        signs = np.concatenate([np.ones((len(codes), 1)), 1.0 - 2.0 * flipped], axis=1)
        return SignPatterns(signs, exact=True)
    coins = generator.integers(0, 2, size=(n_flips, n_increments))
    ordered = coins[np.lexsort(coins.T[::-1])].astype(np.float64)
    return SignPatterns(1.0 - 2.0 * ordered, exact=False)


def sign_flip_test(
    values: ArrayLike,
    steps: ArrayLike,
    statistic: Statistic,
    generator: np.random.Generator,
    n_flips: int = 999,
    max_enumeration: int = 4096,
    patterns: SignPatterns | None = None,
) -> SignFlipResult:
    """One-sided sign-flip test of `statistic` (large values speak against the null).

    Each pattern multiplies the increment between checkpoints j and j+1 by s_j for all elements jointly and
    rebuilds the path from the first value; p = (1 + #{T_null >= T}) / (1 + M). With enumeration this is the
    share of all distinct patterns, the observed one included, that reach T. Null values within 1e-9 of T
    (relative to the larger of |T| and the median |T_null|) count as reaching it.

    Args:
        values: [checkpoint, element], best the momentum-free position.
        steps: [checkpoint].
        statistic: (values, steps) -> float; one with a method `flipped` is computed for all patterns at once.
        generator: source of random patterns.
        n_flips: M where not all patterns are enumerated.
        max_enumeration: see `sign_patterns`.
        patterns: patterns to use in place of fresh ones, to share them between statistics.

    Raises:
        Invalid: see `check_trajectory` and `sign_patterns`; `patterns` for another number of checkpoints.
    """
    table, times = check_trajectory(values, steps)
    if patterns is None:
        patterns = sign_patterns(len(times) - 1, n_flips, generator, max_enumeration)
    width = patterns.signs.shape[1]
    require(width == len(times) - 1, "patterns", f"expected {len(times) - 1} signs a pattern, got {width}")
    observed = float(statistic(table, times))
    if isinstance(statistic, FlippedStatistic):
        null = statistic.flipped(table, times, patterns.signs)
    else:
        null = np.array([float(statistic(flip_increments(table, row), times)) for row in patterns.signs])
    return SignFlipResult(
        observed=observed,
        p_value=_p_value(observed, null),
        null=null,
        n_patterns=1 + len(null),
        n_nan=int(np.isnan(null).sum()),
        exact=patterns.exact,
    )


def flip_increments(values: FloatArray, signs: FloatArray) -> FloatArray:
    """The path from the same first value with increment j multiplied by signs[j], [checkpoint, element]."""
    increments = signs[:, None] * np.diff(values, axis=0)
    return np.concatenate([values[:1], values[0] + np.cumsum(increments, axis=0)])


def _p_value(observed: float, null: FloatArray) -> float:
    if np.isnan(observed):
        return float("nan")
    defined = np.abs(null[np.isfinite(null)])
    size = max(abs(observed), float(np.median(defined)) if defined.size else 0.0)
    reached = np.count_nonzero(null >= observed - TIE_TOLERANCE * size)  # A comparison with NaN is false.
    return (1 + reached) / (1 + len(null))
