"""Everything that is said about one trajectory: R², forecast skill, persistence, and the null of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lab.linearity.checks import FloatArray, check_trajectory
from lab.linearity.filters import Protocol, check_kind
from lab.linearity.forecast import forecast_skill
from lab.linearity.increments import lag_cosine, split_half
from lab.linearity.r_squared import RSquaredSummary, r_squared_unchecked, summarise
from lab.linearity.sign_flip import SignFlipResult, Statistic, sign_flip_test, sign_patterns
from lab.linearity.statistics import DampedSkill, LagCosine, MedianRSquared, SplitHalf
from lab.linearity.walk import selection_matched, walk_r_squared
from lab.settings import require

UNSAFE_SPACING = (
    "checkpoints are too close together to tell persistence from momentum: store the optimiser state, "
    "or space checkpoints at least 20 / (1 - beta1) updates apart"
)
NOTHING_MOVED = "no element that the protocol keeps moved"
MOMENTUM_FREE = "momentum-free position"
RAW = "raw position"


@dataclass(frozen=True)
class Curves:
    """R² samples behind a measurement, for histograms.

    Attributes:
        r2: [kept element], R² of the elements that passed the filter; NaN at zero variance.
        walk: [sample], R² of independent random walks at the same steps.
        selection_matched: [survivor], R² of walks that passed the same cast and filter.
    """

    r2: FloatArray
    walk: FloatArray
    selection_matched: FloatArray


def measure_trajectory(
    values: ArrayLike,
    steps: ArrayLike,
    kind: str,
    protocol: Protocol,
    generator: np.random.Generator,
    momentum_free: ArrayLike | None = None,
    *,
    spacing_is_safe: bool = False,
    n_flips: int = 999,
    max_elements: int = 4000,
    walk_samples: int = 4000,
    fit_share: float = 0.75,
    lags: Sequence[int] = (1, 2, 3, 4, 5, 6),
    gap: int = 1,
) -> tuple[dict[str, Any], Curves]:
    """Measure one trajectory against its nulls.

    R² and forecast skill are of the raw values (R² after the protocol's cast and filter, skill of all
    elements as they are). p-values, lag cosine and split-half are of the momentum-free position; without
    one, of the raw values if `spacing_is_safe`, else they are None and `null_p_value_reason` says why.

    Args:
        values: [checkpoint, element], weights or log-probs in nats, before any cast.
        steps: [checkpoint].
        kind: 'weights' or 'logprobs'.
        protocol: see `lab.linearity.filters`.
        generator: source of all randomness here; the same state gives the same result.
        momentum_free: [checkpoint, element], from `lab.linearity.momentum`, where optimiser state is known.
        spacing_is_safe: whether checkpoints are at least `minimum_spacing(beta1)` updates apart.
        n_flips: random sign patterns where not all are enumerated.
        max_elements: the sign-flip test of the median R² uses this many elements, a fixed subset, if there
            are more; statistics pooled over elements always use all.
        walk_samples: random walks in each reference curve.
        fit_share: see `forecast_skill`.
        lags: see `lag_cosine`; its p-value is that of the first lag.
        gap: see `split_half`.

    Returns:
        A dictionary of plain Python values ready for JSON, undefined numbers being None, and the `Curves`.
        `n` counts elements with a defined R², `n_zero_variance` those of all elements that are constant after
        the cast, `retained_share` is the filter's, `null_r2_median` is that of plain walks for a protocol
        that neither casts nor filters this kind, else of selection-matched ones, `nulls.sign_flip.r2_median` is
        that of what is tested.

    Raises:
        Invalid: see `check_trajectory`; unknown `kind`; no lag; a `momentum_free` of another shape.
    """
    table, times = check_trajectory(values, steps)
    check_kind(kind)
    require(len(lags) > 0, "lags", "expected at least one lag")
    require(max_elements >= 1, "max_elements", f"expected at least 1, got {max_elements}")

    stored = protocol.cast(table, kind)
    kept = protocol.keep(stored, kind)
    r2 = r_squared_unchecked(stored[:, kept], times)
    summary = summarise(r2)
    walk = walk_r_squared(times, walk_samples, generator)
    matched = selection_matched(table, times, protocol, kind, generator, walk_samples)
    plain = protocol.keeps_all(kind) and not protocol.casts(kind)
    forecast = forecast_skill(table, times, fit_share)

    result: dict[str, Any] = {
        "r2_median": summary.median,
        "r2_share_above_0_7": summary.share_above,
        "r2_quartiles": summary.quartiles,
        "n": summary.n,
        "n_zero_variance": np.count_nonzero((stored == stored[0]).all(axis=0)),
        "retained_share": kept.mean(),
        "null_r2_median": summarise(walk if plain else matched.r2).median,
        "skill": forecast.skill,
        "skill_damped": forecast.skill_damped,
        "damping": forecast.damping,
        "origin_step": forecast.origin_step,
        "horizon": forecast.horizon[-1],
        "skill_by_horizon": {
            "horizon": forecast.horizon,
            "skill": forecast.skill_by_horizon,
            "skill_damped": forecast.skill_damped_by_horizon,
        },
        "nulls": {
            "walk": _distribution(summarise(walk)),
            "selection_matched": {
                **_distribution(summarise(matched.r2)),
                "retained_share": matched.retained_share,
            },
        },
    }
    path, computed_on, reason = table, RAW, None
    if momentum_free is not None:
        path, _ = check_trajectory(momentum_free, times)
        require(path.shape == table.shape, "momentum_free", f"expected {table.shape}, got {path.shape}")
        computed_on = MOMENTUM_FREE
    elif not spacing_is_safe:
        reason = UNSAFE_SPACING
    tests = (
        {}
        if reason
        else _sign_flips(path, times, kind, protocol, generator, n_flips, max_elements, fit_share, lags, gap)
    )
    if tests and np.isnan(tests["r2"].p_value):
        reason = NOTHING_MOVED
    untested = reason == UNSAFE_SPACING
    result |= {
        "null_p_value": tests["r2"].p_value if tests else None,
        "null_p_value_reason": reason,
        "skill_p_value": tests["skill"].p_value if tests else None,
        "lag_cosine": {
            "lag": list(lags),
            "cosine": [None] * len(lags) if untested else lag_cosine(path, times, lags),
            "p_value": tests["lag"].p_value if tests else None,
        },
        "split_half": {
            "cosine": None if untested else split_half(path, times, gap),
            "p_value": tests["split"].p_value if tests else None,
        },
    }
    result["nulls"]["sign_flip"] = _sign_flip_null(tests.get("r2"), None if untested else computed_on)
    plain_result: dict[str, Any] = to_json(result)
    return plain_result, Curves(r2, walk, matched.r2)


def _sign_flips(
    path: FloatArray,
    times: FloatArray,
    kind: str,
    protocol: Protocol,
    generator: np.random.Generator,
    n_flips: int,
    max_elements: int,
    fit_share: float,
    lags: Sequence[int],
    gap: int,
) -> dict[str, SignFlipResult]:
    """All sign-flip tests of a measurement, on the same sign patterns."""
    patterns = sign_patterns(len(times) - 1, n_flips, generator)
    some = path
    if path.shape[1] > max_elements:
        subset = np.random.default_rng(0).choice(path.shape[1], max_elements, replace=False)
        some = path[:, np.sort(subset)]
    statistics: dict[str, tuple[FloatArray, Statistic]] = {
        "r2": (some, MedianRSquared(protocol, kind)),
        "skill": (path, DampedSkill(fit_share)),
        "lag": (path, LagCosine(lags[0])),
        "split": (path, SplitHalf(gap)),
    }
    return {
        name: sign_flip_test(part, times, statistic, generator, patterns=patterns)
        for name, (part, statistic) in statistics.items()
    }


def _distribution(summary: RSquaredSummary) -> dict[str, Any]:
    return {
        "r2_median": summary.median,
        "r2_share_above_0_7": summary.share_above,
        "r2_quartiles": summary.quartiles,
    }


def _sign_flip_null(test: SignFlipResult | None, computed_on: str | None) -> dict[str, Any]:
    defined = np.array([]) if test is None else test.null[~np.isnan(test.null)]
    median, high = np.quantile(defined, [0.5, 0.95]) if defined.size else (None, None)
    return {
        "r2_median": None if test is None else test.observed,
        "r2_median_null_median": median,
        "r2_median_null_q95": high,
        "n_patterns": None if test is None else test.n_patterns,
        "exact": None if test is None else test.exact,
        "computed_on": computed_on,
    }


def to_json(value: Any) -> Any:
    """`value` with NumPy numbers and arrays as plain Python ones, and NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
