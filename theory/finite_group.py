"""Groups of finite size: what G rollouts leave of the drift of an infinite group.

k of the G rewards of a prompt are one, s_k = sqrt((k/G)(1-k/G)) is the population standard deviation of
the group. A rollout's advantage is (r - k/G) c_k, with c_k one over the scale of the group (Shao et al. 2024,
arXiv 2402.03300, and relatives):

    std            c_k = 1 / (s_k + epsilon)
    unbiased_std   c_k = 1 / (s_k sqrt(G/(G-1)) + epsilon)
    batch          c   = 1 / (s_K + epsilon), K the right answers among all B G of the batch
    none           c   = 1

A group of equal rewards has no advantage at all. The expected gradient of the prompt is the **coefficient**
E[s_k^2 c_k] times the gap v_R - v_W of the mean scores of right and wrong rollouts; in an infinite group with
`std` the coefficient is sigma = sqrt(p (1-p)), and the **factor** is the coefficient over sigma.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from theory.prediction import (
    Derivation,
    InvalidArgument,
    Law,
    Point,
    Prediction,
    Step,
    non_negative,
    probability,
    whole_number,
)

GroupScaling = Literal["std", "unbiased_std", "none"]

_P, _O = sympy.symbols("pass_rate other_pass_rate", positive=True)
_G, _B = sympy.symbols("rollouts prompts", integer=True, positive=True)
_EPS = sympy.Symbol("epsilon", nonnegative=True)
_RIGHT = sympy.Symbol("k", integer=True, nonnegative=True)
_LARGEST_TABLE = 20_000_000  # numbers held at once: 160 MB


def group_scale(scaling: GroupScaling, spread: sympy.Expr) -> sympy.Expr:
    """One over the scale of a group, c_k, as an expression in its standard deviation `spread`."""
    if scaling == "none":
        return sympy.Integer(1)
    if scaling == "unbiased_std":
        return 1 / (spread * sympy.sqrt(_G / (_G - 1)) + _EPS)
    return 1 / (spread + _EPS)


def group_gradient() -> tuple[Step, ...]:
    """Derive the gradient of a group given k; the last expression is the coefficient of the gap, s_k^2 c."""
    right_score, wrong_score, scale = sympy.symbols("v_R v_W c")
    advantage_right = (1 - _RIGHT / _G) * scale
    advantage_wrong = (0 - _RIGHT / _G) * scale
    total = (_RIGHT * advantage_right * right_score + (_G - _RIGHT) * advantage_wrong * wrong_score) / _G
    factored = sympy.factor(total)
    coefficient = sympy.cancel(factored / (right_score - wrong_score))
    return (
        Step("advantage of a right rollout, times its scale c", advantage_right),
        Step("advantage of a wrong rollout", advantage_wrong),
        Step("mean of advantage times score over the group, given k right", total),
        Step("factored: a multiple of the gap, whatever the mean score", factored),
        Step("coefficient of the gap given k", coefficient),
    )


def binomial_mean(of_count: sympy.Expr, pass_rate: sympy.Expr = _P) -> sympy.Sum:
    """The mean over k ~ Binomial(G, p) of an expression in k that vanishes at k = 0 and k = G."""
    weight = sympy.binomial(_G, _RIGHT) * pass_rate**_RIGHT * (1 - pass_rate) ** (_G - _RIGHT)
    return sympy.Sum(weight * of_count, (_RIGHT, 1, _G - 1))


def central_moment(order: int) -> sympy.Expr:
    """E[(k - G p)^order] of a binomial count, from its moment generating function."""
    t = sympy.Symbol("t")
    generating = sympy.exp(-t * _G * _P) * (1 - _P + _P * sympy.exp(t)) ** _G
    return sympy.factor(sympy.diff(generating, t, order).subs(t, 0))


@cache
def derive_coefficient(scaling: GroupScaling, *, relative: bool = False) -> Derivation:
    """Derive E[s_k^2 c_k], or with `relative` and no epsilon its ratio to sigma."""
    steps = group_gradient()
    spread = sympy.sqrt(steps[-1].expression.subs(sympy.Symbol("c"), 1))
    scaled = steps[-1].expression.subs(sympy.Symbol("c"), group_scale(scaling, spread))
    if relative:
        scaled = sympy.simplify(scaled.subs(_EPS, 0))
    mean = binomial_mean(scaled)
    steps += (
        Step("with the scale of the group", scaled),
        Step("mean over k; k = 0 and k = G add nothing", mean),
    )
    if scaling == "none":
        deviation = sympy.Symbol("delta")
        polynomial = sympy.Poly(sympy.expand(scaled.subs(_RIGHT, _G * _P + deviation)), deviation)
        closed = sympy.factor(sum(c * central_moment(power) for (power,), c in polynomial.terms()))
        return Derivation((*steps, Step("by the central moments of k", closed)), closed)
    if relative:
        mean = mean / sympy.sqrt(_P * (1 - _P))
        steps += (Step("relative to the infinite group, sigma", mean),)
    return Derivation(steps, mean)


@cache
def _derive_large_group() -> Derivation:
    deviation = sympy.Symbol("delta")
    spread = sympy.sqrt(_P * (1 - _P))
    share = sympy.Symbol("x", positive=True)
    taylor = sum(
        sympy.diff(sympy.sqrt(share * (1 - share)), share, power).subs(share, _P)
        * deviation**power
        / sympy.factorial(power)
        for power in range(5)
    )
    replaced = sum(taylor.coeff(deviation, power) * central_moment(power) / _G**power for power in range(5))
    inverse = sympy.Symbol("y", positive=True)
    relative = sympy.expand((replaced / spread).subs(_G, 1 / inverse))
    kept = sum(sympy.factor(relative.coeff(inverse, power)) * inverse**power for power in range(3))
    result = kept.subs(inverse, 1 / _G)
    return Derivation(
        (
            Step("Taylor series of sqrt(x (1-x)) about p, x = k/G = p + delta", taylor),
            Step("powers of delta replaced by central moments of k/G", replaced),
            Step("over sigma, terms beyond 1/G^2 dropped (later Taylor terms start at 1/G^3)", result),
        ),
        result,
    )


@cache
def derive_batch() -> Derivation:
    """Derive the coefficient under the scale of the batch."""
    steps = group_gradient()
    rest = sympy.Symbol("j", integer=True, nonnegative=True)
    size = _B * _G
    share = (_RIGHT + rest) / size
    scaled = steps[-1].expression.subs(sympy.Symbol("c"), 1 / (sympy.sqrt(share * (1 - share)) + _EPS))
    others = size - _G
    weight = sympy.binomial(others, rest) * _O**rest * (1 - _O) ** (others - rest)
    over_rest = sympy.Sum(weight * scaled, (rest, 0, others))
    result = binomial_mean(over_rest)
    return Derivation(
        (
            *steps,
            Step("with the scale of the batch, j right among the other prompts", scaled),
            Step("mean over j, a binomial of the other prompts' rollouts", over_rest),
            Step("mean over k", result),
        ),
        result,
    )


@cache
def _derive_large_batch() -> Derivation:
    share, own, other = sympy.symbols("x delta_k delta_j")
    inverse = 1 / (sympy.sqrt(share * (1 - share)) + _EPS)
    derivatives = sympy.symbols("f_0:3")
    series = sum(
        derivative * ((own + other) / (_B * _G)) ** power / sympy.factorial(power)
        for power, derivative in enumerate(derivatives)
    )
    signal = sympy.expand((_RIGHT * (_G - _RIGHT) / _G**2).subs(_RIGHT, _G * _P + own))
    polynomial = sympy.Poly(sympy.expand(signal * series), own, other)
    moments = [central_moment(power) for power in range(5)]
    other_moments = (sympy.Integer(1), sympy.Integer(0), (_B - 1) * _G * _P * (1 - _P))
    mean = sum(c * moments[i] * other_moments[j] for (i, j), c in polynomial.terms())
    small = sympy.Symbol("y", positive=True)
    expanded = sympy.expand(mean.subs(_B, 1 / small))
    kept = sum(sympy.factor(expanded.coeff(small, power)) * small**power for power in range(2))
    values = {f: sympy.diff(inverse, share, n).subs(share, _P) for n, f in enumerate(derivatives)}
    result = kept.subs(small, 1 / _B).subs(values)
    return Derivation(
        (
            *group_gradient(),
            Step("one over the scale of the batch, as a function of the share x of right answers", inverse),
            Step("its Taylor series about p, with derivatives f_0, f_1, f_2", series),
            Step("times the signal of the group, in deviations of k and of the rest", signal * series),
            Step("by central moments; terms beyond 1/B dropped (the third order starts at 1/B^2)", result),
        ),
        result,
    )


@cache
def _derive_zero_signal() -> Derivation:
    weight = sympy.binomial(_G, _RIGHT) * _P**_RIGHT * (1 - _P) ** (_G - _RIGHT)
    none_right, all_right = weight.subs(_RIGHT, 0), weight.subs(_RIGHT, _G)
    result = sympy.simplify(none_right) + sympy.simplify(all_right)
    return Derivation(
        (Step("probability of k right", weight), Step("k = 0", none_right), Step("k = 0 or k = G", result)),
        result,
    )


def count_mean(
    pass_rate: NDArray[np.float64],
    rollouts: NDArray[np.int64],
    statistic: Callable[..., NDArray[np.float64]],
    *extra: NDArray[np.float64],
) -> NDArray[np.float64]:
    """E[statistic(k, G)] over k ~ Binomial(G, p), by summing over k.

    Args:
        pass_rate: p, any shape.
        rollouts: G, broadcast against it.
        statistic: called with k and G (float64, one axis more than the broadcast shape, k along the last),
            and each of `extra` with an axis added.
        extra: further arrays to broadcast.

    Raises:
        InvalidArgument: `rollouts` is so large that the table of k would exceed 20 million numbers.
    """
    pass_rate, rollouts, *rest = np.broadcast_arrays(pass_rate, rollouts, *extra)
    most = int(rollouts.max(initial=2))
    if pass_rate.size * (most + 1) > _LARGEST_TABLE:
        raise InvalidArgument(
            "rollouts", f"{pass_rate.size} cells of {most} rollouts are too many to sum over"
        )
    count = np.arange(most + 1, dtype=np.float64)
    size = rollouts[..., None].astype(np.float64)
    weight = stats.binom.pmf(count, size, pass_rate[..., None])
    inside = np.minimum(count, size)  # beyond G the weight is zero
    values = statistic(inside, size, *(array[..., None] for array in rest))
    return np.asarray((weight * values).sum(-1))


def group_signal(
    right: NDArray[np.float64],
    rollouts: NDArray[np.float64],
    scaling: GroupScaling,
    epsilon: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The coefficient s_k^2 c_k of the gap given k, and c_k itself; both zero for a group of equal rewards."""
    share = right / rollouts
    power = share * (1 - share)
    spread = np.sqrt(power)
    if scaling == "none":
        divisor = np.ones_like(spread)
    elif scaling == "unbiased_std":
        divisor = spread * np.sqrt(rollouts / (rollouts - 1)) + epsilon
    elif scaling == "std":
        divisor = spread + epsilon
    else:
        raise InvalidArgument("scaling", f"must be std, unbiased_std or none, got {scaling!r}")
    mixed = (right > 0) & (right < rollouts)
    scale = np.where(mixed, 1 / np.where(mixed, divisor, 1.0), 0.0)
    return power * scale, scale


def group_coefficient(
    pass_rate: ArrayLike, rollouts: ArrayLike, scaling: GroupScaling, epsilon: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """E[s_k^2 c_k], what multiplies v_R - v_W in the drift of a prompt.

    Args:
        pass_rate: p in [0, 1]; at 0 and 1 the coefficient is 0.
        rollouts: G, at least 2.
        scaling: how advantages are scaled.
        epsilon: added to the scale (not for `none`), not negative.

    Returns:
        float64, the broadcast shape.

    Raises:
        InvalidArgument: an argument lies outside its domain.
    """
    p = probability("pass_rate", pass_rate)
    group = whole_number("rollouts", rollouts, 2)
    small = non_negative("epsilon", epsilon)
    return count_mean(p, group, lambda k, size, eps: group_signal(k, size, scaling, eps)[0], small)


def std_factor(pass_rate: ArrayLike, rollouts: ArrayLike) -> NDArray[np.float64]:
    """E[s_k] / sigma: the share of the infinite group's drift that G rollouts keep; 0 at p = 0 and 1."""
    p = probability("pass_rate", pass_rate)
    coefficient = group_coefficient(p, rollouts, "std")
    sigma = np.broadcast_to(np.sqrt(p * (1 - p)), coefficient.shape)
    return np.divide(coefficient, sigma, out=np.zeros_like(coefficient), where=sigma > 0)


def std_factor_large_group(pass_rate: ArrayLike, rollouts: ArrayLike) -> NDArray[np.float64]:
    """The factor to second order in 1/G; -inf where sigma = 0 (the series breaks at G sigma^2 near 1)."""
    p = probability("pass_rate", pass_rate)
    group = whole_number("rollouts", rollouts, 2)
    variance = p * (1 - p)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = -1 / (8 * variance)
        second = (16 * variance - 7) / (128 * variance**2)
        value = 1 + first / group + second / group**2
    return np.where(np.broadcast_to(variance, value.shape) > 0, value, -np.inf)


def std_coefficient(
    pass_rate: ArrayLike, rollouts: ArrayLike, epsilon: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """E[s_k^2 / (s_k + epsilon)]; see `group_coefficient`."""
    return group_coefficient(pass_rate, rollouts, "std", epsilon)


def unbiased_std_coefficient(
    pass_rate: ArrayLike, rollouts: ArrayLike, epsilon: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """E[s_k^2 / (s_k sqrt(G/(G-1)) + epsilon)]; see `group_coefficient`."""
    return group_coefficient(pass_rate, rollouts, "unbiased_std", epsilon)


def none_coefficient(pass_rate: ArrayLike, rollouts: ArrayLike) -> NDArray[np.float64]:
    """E[s_k^2] = p (1-p) (G-1)/G."""
    p = probability("pass_rate", pass_rate)
    group = whole_number("rollouts", rollouts, 2)
    return np.asarray(p * (1 - p) * (group - 1) / group)


def batch_std_coefficient(
    pass_rate: ArrayLike,
    other_pass_rate: ArrayLike,
    prompts: ArrayLike,
    rollouts: ArrayLike,
    epsilon: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """E[s_k^2 / (s_K + epsilon)] of one prompt among B - 1 others of one common pass rate.

    Args:
        pass_rate: p of the prompt.
        other_pass_rate: pass rate of each other prompt.
        prompts: B, at least 1; B = 1 gives `std_coefficient`.
        rollouts: G, at least 2.
        epsilon: added to the standard deviation of the batch.

    Raises:
        InvalidArgument: outside the domain, or more than 20 million terms to sum in one cell.
    """
    arrays = np.broadcast_arrays(
        probability("pass_rate", pass_rate),
        probability("other_pass_rate", other_pass_rate),
        whole_number("prompts", prompts, 1),
        whole_number("rollouts", rollouts, 2),
        non_negative("epsilon", epsilon),
    )
    value = np.empty(arrays[0].shape)
    for cell in np.ndindex(value.shape):
        p, other, batch, group, small = (array[cell] for array in arrays)
        others = int((batch - 1) * group)
        if (group - 1) * (others + 1) > _LARGEST_TABLE:
            raise InvalidArgument("prompts", f"{batch} of {group} rollouts are too many counts to sum over")
        rest = stats.binom.pmf(np.arange(others + 1), others, other)
        value[cell] = _batch_cell(float(p), int(group), rest, float(small))
    return value


def _batch_cell(pass_rate: float, rollouts: int, rest: NDArray[np.float64], epsilon: float) -> float:
    """The batch coefficient of a prompt, given the distribution of the count of all other prompts."""
    if (rollouts - 1) * len(rest) > _LARGEST_TABLE:
        raise InvalidArgument(
            "prompts", f"{len(rest)} counts times {rollouts} rollouts are too many to sum over"
        )
    size = len(rest) - 1 + rollouts
    count = np.arange(1, rollouts)
    share = count / rollouts
    signal = stats.binom.pmf(count, rollouts, pass_rate) * share * (1 - share)
    total = (count[:, None] + np.arange(len(rest))) / size
    return float(signal @ (1 / (np.sqrt(total * (1 - total)) + epsilon)) @ rest)


def batch_std_coefficients(pass_rates: ArrayLike, rollouts: int, epsilon: float = 0.0) -> NDArray[np.float64]:
    """The batch coefficient of every prompt of a batch of unequal pass rates.

    The count of all other prompts is convolved exactly, prompt by prompt.

    Args:
        pass_rates: float64 [prompt].
        rollouts: G, at least 2.
        epsilon: added to the standard deviation of the batch.

    Returns:
        float64 [prompt].

    Raises:
        InvalidArgument: outside the domain, or more than 4,096 rollouts in the batch.
    """
    rates = probability("pass_rates", pass_rates)
    group = int(whole_number("rollouts", rollouts, 2))
    small = float(non_negative("epsilon", epsilon))
    if rates.ndim != 1 or rates.size == 0:
        raise InvalidArgument("pass_rates", f"must be one-dimensional and not empty, got shape {rates.shape}")
    if rates.size * group > 4096:
        raise InvalidArgument("pass_rates", f"{rates.size} x {group} rollouts; at most 4,096 are convolved")
    each = stats.binom.pmf(np.arange(group + 1), group, rates[:, None])
    before, after = [np.ones(1)], [np.ones(1)]
    for index in range(rates.size - 1):
        before.append(np.convolve(before[-1], each[index]))
        after.append(np.convolve(after[-1], each[-1 - index]))
    return np.array(
        [
            _batch_cell(float(rate), group, np.convolve(left, right), small)
            for rate, left, right in zip(rates, before, reversed(after), strict=True)
        ]
    )


def batch_std_coefficient_large_batch(
    pass_rate: ArrayLike, prompts: ArrayLike, rollouts: ArrayLike, epsilon: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """The batch coefficient of prompts of one pass rate, to first order in 1/B; 0 at p = 0 and 1."""
    p = probability("pass_rate", pass_rate)
    batch = whole_number("prompts", prompts, 1)
    group = whole_number("rollouts", rollouts, 2)
    small = non_negative("epsilon", epsilon)
    variance = p * (1 - p)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.sqrt(variance)
        scale = sigma + small
        slope = (1 - 2 * p) / (2 * sigma)
        curve = 2 * slope**2 / scale**3 + 1 / (4 * sigma**3 * scale**2)
        correction = (curve * variance / 2 - slope * (1 - 2 * p) / scale**2) / (batch * group)
        value = variance * (group - 1) / group * (1 / scale + correction)
    return np.where(np.broadcast_to(variance, value.shape) > 0, value, 0.0)


def zero_signal_share(pass_rate: ArrayLike, rollouts: ArrayLike) -> NDArray[np.float64]:
    """The share of groups whose rewards are all equal, p^G + (1-p)^G."""
    p = probability("pass_rate", pass_rate)
    group = whole_number("rollouts", rollouts, 2)
    return np.asarray(p**group + (1 - p) ** group)


_ASSUMED = (
    "binary rewards, independent given the prompt",
    "one on-policy update: no clipping, no KL, no entropy term",
    "rollouts of a group weighted equally (any weighting inside a rollout is part of its score)",
)


def _grid(**fixed: float) -> tuple[Point, ...]:
    cells = ((0.5, 2), (0.5, 16), (0.05, 16), (0.95, 8), (0.3, 4), (0.01, 64), (0.0, 16), (1.0, 2))
    return tuple(Point({"pass_rate": p, "rollouts": group, **fixed}) for p, group in cells)


PREDICTION = Prediction(
    number=2,
    name="finite_group",
    title="Drift of a finite group",
    laws=(
        Law(
            "std_factor",
            "Groups of G scaled by their own standard deviation keep E[s_k]/sigma of the drift.",
            _ASSUMED,
            lambda: derive_coefficient("std", relative=True),
            std_factor,
            _grid(),
        ),
        Law(
            "std_factor_large_group",
            "For large G the factor is 1 - 1/(8 G sigma^2) and a term in 1/G^2.",
            _ASSUMED,
            _derive_large_group,
            std_factor_large_group,
            (
                Point({"pass_rate": 0.5, "rollouts": 16}, 3e-4),
                Point({"pass_rate": 0.5, "rollouts": 64}, 5e-6),
                Point({"pass_rate": 0.2, "rollouts": 64}, 5e-5),
                Point({"pass_rate": 0.9, "rollouts": 256}, 2e-5),
                Point({"pass_rate": 0.05, "rollouts": 16}, 0.5),
            ),
            order="error of order 1/(G sigma^2)^3; breaks at G sigma^2 near 1",
        ),
        Law(
            "std_coefficient",
            "With epsilon added to the group's standard deviation: E[s_k^2/(s_k + epsilon)].",
            _ASSUMED,
            lambda: derive_coefficient("std"),
            std_coefficient,
            (*_grid(epsilon=1e-4), *_grid(epsilon=0.0)[:3], *_grid(epsilon=0.5)[:3]),
        ),
        Law(
            "unbiased_std_coefficient",
            "With the unbiased standard deviation: E[s_k^2/(s_k sqrt(G/(G-1)) + epsilon)].",
            _ASSUMED,
            lambda: derive_coefficient("unbiased_std"),
            unbiased_std_coefficient,
            (*_grid(epsilon=1e-4), *_grid(epsilon=0.0)[:3]),
        ),
        Law(
            "none_coefficient",
            "Unscaled advantages with the group mean left in: E[s_k^2] = p (1-p) (G-1)/G.",
            _ASSUMED,
            lambda: derive_coefficient("none"),
            none_coefficient,
            _grid(),
        ),
        Law(
            "batch_std_coefficient",
            "Scaled by the standard deviation of all rewards of the batch: E[s_k^2/(s_K + epsilon)].",
            (*_ASSUMED, "the other prompts of the batch share one pass rate"),
            derive_batch,
            batch_std_coefficient,
            tuple(
                Point(
                    {
                        "pass_rate": p,
                        "other_pass_rate": other,
                        "prompts": batch,
                        "rollouts": group,
                        "epsilon": epsilon,
                    }
                )
                for p, other, batch, group, epsilon in (
                    (0.5, 0.5, 4, 4, 0.0),
                    (0.1, 0.6, 3, 8, 1e-4),
                    (0.3, 0.3, 1, 8, 0.0),
                    (0.3, 0.0, 4, 4, 0.0),
                    (0.9, 1.0, 2, 2, 0.0),
                    (0.0, 0.5, 2, 4, 0.0),
                )
            ),
        ),
        Law(
            "batch_std_coefficient_large_batch",
            "For many prompts of one pass rate the batch's scale settles at sigma + epsilon.",
            (*_ASSUMED, "all prompts of the batch share one pass rate"),
            _derive_large_batch,
            batch_std_coefficient_large_batch,
            (
                Point({"pass_rate": 0.5, "prompts": 16, "rollouts": 16, "epsilon": 0.0}, 2e-5),
                Point({"pass_rate": 0.1, "prompts": 64, "rollouts": 8, "epsilon": 1e-4}, 1e-4),
                Point({"pass_rate": 0.8, "prompts": 32, "rollouts": 4, "epsilon": 0.1}, 1e-4),
                Point({"pass_rate": 0.02, "prompts": 4, "rollouts": 8, "epsilon": 0.0}, 0.1),
            ),
            order="error of order 1/(B G sigma^2)^2; breaks at B G sigma^2 near 1",
        ),
        Law(
            "zero_signal_share",
            "A share p^G + (1-p)^G of groups has equal rewards and so no gradient.",
            _ASSUMED[:1],
            _derive_zero_signal,
            zero_signal_share,
            tuple(
                Point({"pass_rate": p, "rollouts": group})
                for p, group in (
                    (0.5, 2),
                    (0.5, 6),
                    (0.05, 16),
                    (0.95, 8),
                    (0.3, 4),
                    (0.01, 64),
                    (0.0, 16),
                    (1.0, 2),
                )
            ),
        ),
    ),
)
