"""Flipped rewards: what a verifier that errs does to the drift of a prompt and of a sum over prompts.

A right rollout is refused with probability nu (`false_negative`), a wrong one is paid with probability phi
(`false_positive`). *Fresh* flips are drawn for every rollout: the noisy reward has pass rate
p~ = p (1-nu) + (1-p) phi, and the noisy problem is again a problem of binary rewards, with its own mean scores
of paid and unpaid rollouts. *Fixed* flips are drawn once for a prompt (one uniform number U decides both errors,
U < nu for a right and U < phi for a wrong rollout) and stay: they are a bias of the verifier, not noise. A prompt
with U below both is inverted (scale -1), with U above both untouched (scale 1), in between all its rewards are
equal (scale 0), whatever its pass rate; as inverting the rewards turns the gap and leaves every s_k as it is,
this holds for finite groups and every scaling but `batch`.

All scales are relative to the clean drift in an infinite group, sigma (v_R - v_W), unless a law says otherwise.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

from theory.finite_group import (
    GroupScaling,
    batch_std_coefficient,
    derive_batch,
    derive_coefficient,
    group_coefficient,
)
from theory.prediction import (
    Derivation,
    Law,
    Point,
    Prediction,
    Step,
    non_negative,
    probability,
    whole_number,
)

_P = sympy.Symbol("pass_rate", positive=True)
_PHI, _NU = sympy.symbols("false_positive false_negative", nonnegative=True)
_V_RIGHT, _V_WRONG = sympy.symbols("v_R v_W")


@cache
def _noisy_scores() -> tuple[tuple[Step, ...], sympy.Expr, sympy.Expr]:
    """Steps, the noisy pass rate, and the gap of mean scores of paid and unpaid rollouts over the clean gap."""
    joint = {
        (1, 1): _P * (1 - _NU),
        (1, 0): _P * _NU,
        (0, 1): (1 - _P) * _PHI,
        (0, 0): (1 - _P) * (1 - _PHI),
    }
    score = {1: _V_RIGHT, 0: _V_WRONG}
    rate = joint[1, 1] + joint[0, 1]
    paid = sum(joint[truth, 1] * score[truth] for truth in (0, 1)) / rate
    unpaid = sum(joint[truth, 0] * score[truth] for truth in (0, 1)) / (joint[1, 0] + joint[0, 0])
    gap = sympy.factor(sympy.together(paid - unpaid))
    relative = sympy.factor(sympy.cancel(gap / (_V_RIGHT - _V_WRONG)))
    steps = (
        Step("noisy pass rate, summed over the truth", rate),
        Step("mean score of a paid rollout", paid),
        Step("mean score of an unpaid rollout", unpaid),
        Step("noisy gap: a multiple of the clean one, so the direction stays", gap),
        Step("noisy gap over clean gap", relative),
    )
    return steps, rate, relative


@cache
def _derive_rate() -> Derivation:
    steps, rate, _ = _noisy_scores()
    return Derivation(steps[:1], rate)


@cache
def _derive_scale() -> Derivation:
    steps, rate, relative = _noisy_scores()
    noisy, clean = sympy.sqrt(rate * (1 - rate)), sympy.sqrt(_P * (1 - _P))
    scale = sympy.simplify(noisy * relative / clean)
    return Derivation(
        (
            *steps,
            Step("drift in an infinite group is noisy sigma times noisy gap; over the clean drift", scale),
        ),
        scale,
    )


@cache
def _derive_group(scaling: GroupScaling | None) -> Derivation:
    """Flips and a finite group; None stands for the scale of the batch."""
    steps, rate, relative = _noisy_scores()
    clean = derive_batch() if scaling is None else derive_coefficient(scaling)
    other = sympy.Symbol("other_pass_rate", positive=True)
    noisy = clean.result.subs({_P: rate, other: rate.subs(_P, other)}, simultaneous=True)
    result = sympy.factor(relative * noisy) if scaling == "none" else relative * noisy
    return Derivation(
        (
            *steps,
            *clean.steps,
            Step("at the noisy pass rate: the flipped problem is one of binary rewards", noisy),
            Step("times noisy gap over clean gap", result),
        ),
        result,
    )


@cache
def _derive_rotation() -> Derivation:
    rates = sympy.symbols("pass_rate_1 pass_rate_2", positive=True)
    ratio = sympy.Symbol("gap_ratio", nonnegative=True)
    scale = _derive_scale()
    clean = [sympy.sqrt(rates[0] * (1 - rates[0])), ratio * sympy.sqrt(rates[1] * (1 - rates[1]))]
    noisy = [scale.result.subs(_P, rate) * size for rate, size in zip(rates, clean, strict=True)]
    inner = sum(a * b for a, b in zip(clean, noisy, strict=True))
    norms = sympy.sqrt(sum(a**2 for a in clean)) * sympy.sqrt(sum(b**2 for b in noisy))
    result = inner / norms
    return Derivation(
        (
            *scale.steps,
            Step(
                "clean drifts of two prompts of orthogonal gaps 1 and gap_ratio",
                sympy.Eq(
                    sympy.Symbol("D_clean"), clean[0] * sympy.Symbol("e_1") + clean[1] * sympy.Symbol("e_2")
                ),
            ),
            Step(
                "noisy drifts",
                sympy.Eq(
                    sympy.Symbol("D_noisy"), noisy[0] * sympy.Symbol("e_1") + noisy[1] * sympy.Symbol("e_2")
                ),
            ),
            Step("cosine of the two sums", result),
        ),
        result,
    )


@cache
def _fixed_moments() -> tuple[tuple[Step, ...], sympy.Expr, sympy.Expr]:
    """Steps, mean and mean square over prompts of the scale of a prompt whose flips are fixed."""
    scale = _derive_scale().result
    both = sympy.simplify(scale.subs({_NU: 1, _PHI: 1}))  # every reward inverted
    neither = sympy.simplify(scale.subs({_NU: 0, _PHI: 0}))
    inverted = sympy.Min(_NU, _PHI)  # U below both
    untouched = 1 - sympy.Max(_NU, _PHI)  # U above both; in between all rewards are equal: no drift
    mean = both * inverted + neither * untouched
    square = both**2 * inverted + neither**2 * untouched
    steps = (
        Step("scale of a prompt whose rewards are all inverted", both),
        Step("share of such prompts", inverted),
        Step("scale of an untouched prompt", neither),
        Step("share of such prompts; the rest have equal rewards and no drift", untouched),
    )
    return steps, mean, square


@cache
def _derive_fixed_mean() -> Derivation:
    steps, mean, _ = _fixed_moments()
    result = sympy.simplify(mean.rewrite(sympy.Piecewise))
    return Derivation((*steps, Step("mean over prompts", mean), Step("Min + Max is the sum", result)), result)


@cache
def _derive_fixed_spread() -> Derivation:
    steps, mean, square = _fixed_moments()
    result = sympy.sqrt(square - mean**2)
    return Derivation(
        (*steps, Step("mean square over prompts", square), Step("standard deviation", result)), result
    )


@cache
def _derive_fixed_cosine() -> Derivation:
    steps, mean, square = _fixed_moments()
    result = mean / sympy.sqrt(square)
    return Derivation(
        (
            *steps,
            Step("mean square over prompts", square),
            Step(
                "sums over many orthogonal equal drifts: inner product N mean, squared norms N, N square",
                result,
            ),
        ),
        result,
    )


def _flips(
    false_positive: ArrayLike, false_negative: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return probability("false_positive", false_positive), probability("false_negative", false_negative)


def _informedness(
    false_positive: NDArray[np.float64], false_negative: NDArray[np.float64]
) -> NDArray[np.float64]:
    """1 - nu - phi, exactly zero where it is zero but for rounding."""
    value = 1 - false_negative - false_positive
    return np.where(np.abs(value) < 1e-15, 0.0, value)


def noisy_pass_rate(
    pass_rate: ArrayLike, false_positive: ArrayLike, false_negative: ArrayLike
) -> NDArray[np.float64]:
    """The rate at which rollouts are paid, p~ = p (1-nu) + (1-p) phi.

    Args:
        pass_rate: p in [0, 1].
        false_positive: phi in [0, 1].
        false_negative: nu in [0, 1].

    Raises:
        InvalidArgument: a probability lies outside [0, 1] (so do all functions of this file).
    """
    p = probability("pass_rate", pass_rate)
    phi, nu = _flips(false_positive, false_negative)
    return np.clip(p * (1 - nu) + (1 - p) * phi, 0.0, 1.0)


def drift_scale(
    pass_rate: ArrayLike, false_positive: ArrayLike, false_negative: ArrayLike
) -> NDArray[np.float64]:
    """(1 - nu - phi) sigma / sigma~: the drift in an infinite group over that without flips.

    Where sigma~ vanishes the limit in p is returned: sqrt(1-nu) or -sqrt(nu) at p = 0 (phi = 0 or 1),
    sqrt(1-phi) or -sqrt(phi) at p = 1 (nu = 0 or 1); with nu + phi = 1 the scale is 0.
    """
    p = probability("pass_rate", pass_rate)
    phi, nu = _flips(false_positive, false_negative)
    p, phi, nu = np.broadcast_arrays(p, phi, nu)
    rate = noisy_pass_rate(p, phi, nu)
    noisy = rate * (1 - rate)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = _informedness(phi, nu) * np.sqrt(p * (1 - p) / noisy)
    limits = [
        (p == 0) & (phi == 0),
        (p == 0) & (phi == 1),
        (p == 1) & (nu == 0),
        (p == 1) & (nu == 1),
        noisy == 0,
    ]
    values = [np.sqrt(1 - nu), -np.sqrt(nu), np.sqrt(1 - phi), -np.sqrt(phi), np.zeros_like(p)]
    return np.asarray(np.select(limits, values, scale))


def _gap_scale(
    pass_rate: ArrayLike, false_positive: ArrayLike, false_negative: ArrayLike
) -> NDArray[np.float64]:
    """Noisy gap over clean gap, sigma^2 (1 - nu - phi) / sigma~^2; 0 where nobody or everybody is paid."""
    p = probability("pass_rate", pass_rate)
    phi, nu = _flips(false_positive, false_negative)
    rate = noisy_pass_rate(p, phi, nu)
    numerator = np.asarray(p * (1 - p) * _informedness(phi, nu))
    noisy = np.broadcast_to(rate * (1 - rate), numerator.shape)
    return np.divide(numerator, noisy, out=np.zeros_like(numerator), where=noisy > 0)


def group_coefficient_with_flips(
    pass_rate: ArrayLike,
    false_positive: ArrayLike,
    false_negative: ArrayLike,
    rollouts: ArrayLike,
    scaling: GroupScaling,
    epsilon: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """What multiplies the clean gap v_R - v_W in the drift of a group of G rollouts with fresh flips.

    Args:
        pass_rate: p of the true rewards; at 0 and 1 the coefficient is 0.
        false_positive: phi.
        false_negative: nu.
        rollouts: G, at least 2.
        scaling: `std`, `unbiased_std` or `none`; see `theory.finite_group`.
        epsilon: added to the scale.

    Returns:
        float64, the broadcast shape.
    """
    rate = noisy_pass_rate(pass_rate, false_positive, false_negative)
    noisy = group_coefficient(rate, rollouts, scaling, epsilon)
    return np.asarray(_gap_scale(pass_rate, false_positive, false_negative) * noisy)


def std_coefficient(
    pass_rate: ArrayLike,
    false_positive: ArrayLike,
    false_negative: ArrayLike,
    rollouts: ArrayLike,
    epsilon: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """`group_coefficient_with_flips` for `std`."""
    return group_coefficient_with_flips(pass_rate, false_positive, false_negative, rollouts, "std", epsilon)


def unbiased_std_coefficient(
    pass_rate: ArrayLike,
    false_positive: ArrayLike,
    false_negative: ArrayLike,
    rollouts: ArrayLike,
    epsilon: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """`group_coefficient_with_flips` for `unbiased_std`."""
    return group_coefficient_with_flips(
        pass_rate, false_positive, false_negative, rollouts, "unbiased_std", epsilon
    )


def none_coefficient(
    pass_rate: ArrayLike, false_positive: ArrayLike, false_negative: ArrayLike, rollouts: ArrayLike
) -> NDArray[np.float64]:
    """(1 - nu - phi) p (1-p) (G-1)/G: unscaled, flips shrink every prompt alike and rotate nothing."""
    p = probability("pass_rate", pass_rate)
    phi, nu = _flips(false_positive, false_negative)
    group = whole_number("rollouts", rollouts, 2)
    return np.asarray(_informedness(phi, nu) * p * (1 - p) * (group - 1) / group)


def batch_std_coefficient_with_flips(
    pass_rate: ArrayLike,
    other_pass_rate: ArrayLike,
    false_positive: ArrayLike,
    false_negative: ArrayLike,
    prompts: ArrayLike,
    rollouts: ArrayLike,
    epsilon: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """The same, scaled by the standard deviation of the batch's noisy rewards.

    Args:
        pass_rate: p of the prompt.
        other_pass_rate: true pass rate of each of the other B - 1 prompts.
        false_positive: phi, for all prompts.
        false_negative: nu, for all prompts.
        prompts: B, at least 1.
        rollouts: G, at least 2.
        epsilon: added to the scale.
    """
    other = probability("other_pass_rate", other_pass_rate)
    noisy = batch_std_coefficient(
        noisy_pass_rate(pass_rate, false_positive, false_negative),
        noisy_pass_rate(other, false_positive, false_negative),
        prompts,
        rollouts,
        epsilon,
    )
    return np.asarray(_gap_scale(pass_rate, false_positive, false_negative) * noisy)


def rotation_cosine(
    pass_rate_1: ArrayLike,
    pass_rate_2: ArrayLike,
    gap_ratio: ArrayLike,
    false_positive: ArrayLike,
    false_negative: ArrayLike,
) -> NDArray[np.float64]:
    """Cosine between the clean and the noisy sum of two prompts whose gaps are orthogonal.

    Args:
        pass_rate_1: p of the first prompt.
        pass_rate_2: p of the second.
        gap_ratio: |v_R - v_W| of the second over the first, not negative.
        false_positive: phi.
        false_negative: nu.

    Returns:
        float64 in [-1, 1]; NaN where either sum is zero.
    """
    first = probability("pass_rate_1", pass_rate_1)
    second = probability("pass_rate_2", pass_rate_2)
    ratio = non_negative("gap_ratio", gap_ratio)
    clean_1, clean_2 = np.sqrt(first * (1 - first)), ratio * np.sqrt(second * (1 - second))
    noisy_1 = drift_scale(first, false_positive, false_negative) * clean_1
    noisy_2 = drift_scale(second, false_positive, false_negative) * clean_2
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (clean_1 * noisy_1 + clean_2 * noisy_2) / (
            np.hypot(clean_1, clean_2) * np.hypot(noisy_1, noisy_2)
        )
    return np.clip(cosine, -1.0, 1.0)


def fixed_mean_scale(false_positive: ArrayLike, false_negative: ArrayLike) -> NDArray[np.float64]:
    """1 - nu - phi: the mean over prompts of the scale of the drift, whatever p."""
    phi, nu = _flips(false_positive, false_negative)
    return _informedness(phi, nu)


def fixed_scale_spread(false_positive: ArrayLike, false_negative: ArrayLike) -> NDArray[np.float64]:
    """Standard deviation over prompts of the scale of the drift: a bias that no averaging over steps removes."""
    phi, nu = _flips(false_positive, false_negative)
    return np.sqrt(np.maximum(1 - np.abs(nu - phi) - (1 - nu - phi) ** 2, 0.0))


def fixed_cosine(false_positive: ArrayLike, false_negative: ArrayLike) -> NDArray[np.float64]:
    """Cosine of clean and noisy sums over many prompts of equal, orthogonal drifts; NaN if no prompt drifts."""
    phi, nu = _flips(false_positive, false_negative)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(_informedness(phi, nu) / np.sqrt(1 - np.abs(nu - phi)))


_FRESH = (
    "binary rewards, independent given the prompt; each is flipped afresh and independently",
    "a flip depends on the true reward alone",
    "one on-policy update: no clipping, no KL, no entropy term",
)
_FIXED = (
    "one uniform number of a prompt decides both errors (false negative if below nu, false positive if below phi)",
    "groups of any size, advantages scaled by any function of their own standard deviation",
)
_FLIPS = (
    (0.5, 0.2, 0.2),
    (0.05, 0.2, 0.2),
    (0.3, 0.0, 0.4),
    (0.9, 0.3, 0.1),
    (0.5, 0.6, 0.7),
    (0.2, 0.3, 0.7),
    (0.3, 0.0, 0.0),
    (0.7, 1.0, 1.0),
    (0.0, 0.2, 0.2),
    (1.0, 0.2, 0.2),
)


def _group_points(**fixed: float) -> tuple[Point, ...]:
    groups = (2, 16, 8, 4, 8, 8, 16, 4, 8, 8)
    return tuple(
        Point({"pass_rate": p, "false_positive": phi, "false_negative": nu, "rollouts": group, **fixed})
        for (p, phi, nu), group in zip(_FLIPS, groups, strict=True)
    )


_PAIRS = tuple(
    Point({"false_positive": phi, "false_negative": nu})
    for phi, nu in ((0.0, 0.0), (0.2, 0.2), (0.0, 0.4), (0.3, 0.1), (0.7, 0.6), (0.3, 0.7), (1.0, 1.0))
)

PREDICTION = Prediction(
    number=3,
    name="reward_flips",
    title="Flipped rewards",
    laws=(
        Law(
            "noisy_pass_rate",
            "Rollouts are paid at the rate p~ = p (1-nu) + (1-p) phi.",
            _FRESH[:2],
            _derive_rate,
            noisy_pass_rate,
            tuple(
                Point({"pass_rate": p, "false_positive": phi, "false_negative": nu}) for p, phi, nu in _FLIPS
            ),
        ),
        Law(
            "drift_scale",
            "In an infinite group flips keep a prompt's direction and scale its drift by (1-nu-phi) sigma/sigma~.",
            (*_FRESH, "infinite group scaled by its own standard deviation"),
            _derive_scale,
            drift_scale,
            tuple(
                # near p = 0 and 1 only: at them nothing drifts that could be scaled
                Point({"pass_rate": p, "false_positive": phi, "false_negative": nu})
                for p, phi, nu in (
                    *(flips for flips in _FLIPS if 0 < flips[0] < 1),
                    (0.02, 0.2, 0.2),
                    (0.98, 0.2, 0.2),
                    (0.02, 0.0, 0.3),
                    (0.98, 0.4, 1.0),
                )
            ),
        ),
        Law(
            "std_coefficient",
            "Flips and a finite group together, scaled by the group's standard deviation.",
            _FRESH,
            lambda: _derive_group("std"),
            std_coefficient,
            (*_group_points(epsilon=0.0), *_group_points(epsilon=1e-2)[:3]),
        ),
        Law(
            "unbiased_std_coefficient",
            "Flips and a finite group together, scaled by the unbiased standard deviation.",
            _FRESH,
            lambda: _derive_group("unbiased_std"),
            unbiased_std_coefficient,
            _group_points(epsilon=1e-4),
        ),
        Law(
            "none_coefficient",
            "Flips and a finite group together, unscaled: (1-nu-phi) p (1-p) (G-1)/G.",
            _FRESH,
            lambda: _derive_group("none"),
            none_coefficient,
            _group_points(),
        ),
        Law(
            "batch_std_coefficient",
            "Flips and a finite group together, scaled by the standard deviation of the batch.",
            (*_FRESH, "the other prompts of the batch share one pass rate"),
            lambda: _derive_group(None),
            batch_std_coefficient_with_flips,
            tuple(
                Point(
                    {
                        "pass_rate": p,
                        "other_pass_rate": other,
                        "false_positive": phi,
                        "false_negative": nu,
                        "prompts": batch,
                        "rollouts": group,
                        "epsilon": epsilon,
                    }
                )
                for p, other, phi, nu, batch, group, epsilon in (
                    (0.5, 0.2, 0.2, 0.2, 3, 4, 0.0),
                    (0.1, 0.6, 0.3, 0.0, 2, 8, 1e-4),
                    (0.3, 0.3, 0.7, 0.6, 2, 4, 0.0),
                    (0.3, 0.3, 0.1, 0.2, 1, 8, 0.0),
                    (0.0, 0.5, 0.2, 0.2, 2, 4, 0.0),
                )
            ),
        ),
        Law(
            "rotation_cosine",
            "Over prompts of different pass rates flips rotate the summed drift (not with unscaled advantages).",
            (*_FRESH, "infinite groups scaled by their own standard deviation", "orthogonal gaps"),
            _derive_rotation,
            rotation_cosine,
            tuple(
                Point(
                    {
                        "pass_rate_1": first,
                        "pass_rate_2": second,
                        "gap_ratio": ratio,
                        "false_positive": phi,
                        "false_negative": nu,
                    }
                )
                for first, second, ratio, phi, nu in (
                    (0.05, 0.5, 1.0, 0.2, 0.2),
                    (0.05, 0.9, 3.0, 0.4, 0.0),
                    (0.05, 0.3, 2.0, 0.2, 0.1),
                    (0.1, 0.9, 1.0, 0.4, 0.0),
                    (0.1, 0.9, 1.0, 1.0, 0.4),
                    (0.1, 0.9, 0.0, 0.4, 0.1),
                )
            ),
        ),
        Law(
            "fixed_mean_scale",
            "Flips fixed per prompt: the mean scale over prompts is 1 - nu - phi, whatever the pass rate.",
            _FIXED,
            _derive_fixed_mean,
            fixed_mean_scale,
            _PAIRS,
        ),
        Law(
            "fixed_scale_spread",
            "Flips fixed per prompt: prompts are untouched, silenced or inverted; the spread of their scales.",
            _FIXED,
            _derive_fixed_spread,
            fixed_scale_spread,
            _PAIRS,
        ),
        Law(
            "fixed_cosine",
            "Flips fixed per prompt rotate even a sum of equal prompts: cosine (1-nu-phi)/sqrt(1-|nu-phi|).",
            (*_FIXED, "many prompts of equal and orthogonal drifts"),
            _derive_fixed_cosine,
            fixed_cosine,
            _PAIRS,
        ),
    ),
)
