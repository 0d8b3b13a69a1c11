"""Noise of a policy gradient against the number of prompts B and of rollouts a prompt G.

The gradient of an update is the mean over B prompts of (1/G) sum of advantage times score. Given its prompt the
expected gradient is coefficient times gap (theory.finite_group), so that the trace of the covariance of one
prompt's contribution has two parts:

    between   the spread over prompts of their expected gradients: falls as 1/B, and as nothing else
    within    the spread over the rollouts of a prompt: falls as 1/(B G), with exact factors in G

With prompts drawn without replacement the between part cancels over an epoch. Per-prompt gap v_R - v_W, traces T_R
and T_W of the covariance of the scores of right and of wrong rollouts, p the pass rate, sigma^2 = p (1-p).
The gradient noise scale is tr(Sigma)/|g|^2 (McCandlish et al. 2018, arXiv 1812.06162), Sigma the covariance
for a batch of one prompt.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

from theory.finite_group import (
    GroupScaling,
    binomial_mean,
    central_moment,
    count_mean,
    group_coefficient,
    group_scale,
    group_signal,
)
from theory.prediction import (
    Derivation,
    InvalidArgument,
    Law,
    Point,
    Prediction,
    Step,
    finite,
    non_negative,
    positive,
    probability,
    whole_number,
)

_P = sympy.Symbol("pass_rate", positive=True)
_G, _B, _N = sympy.symbols("rollouts prompts population", integer=True, positive=True)
_T = sympy.Symbol("updates", integer=True, positive=True)
_GAP = sympy.Symbol("gap", nonnegative=True)
_RIGHT_TRACE, _WRONG_TRACE, _EPS = sympy.symbols("right_trace wrong_trace epsilon", nonnegative=True)
_BETWEEN, _WITHIN = sympy.symbols("between within", nonnegative=True)
_SIGNAL, _TRACE = sympy.symbols("signal_power noise_trace", nonnegative=True)
_COUNT = sympy.Symbol("k", integer=True, nonnegative=True)


@cache
def _derive_within_none() -> Derivation:
    """By moments: a quadratic form in centred rewards and scores."""
    size = _G
    diagonal, off = (1 - 1 / size) / size, -1 / size**2  # (1/G)(delta_ij - 1/G)
    fourth, cross, reward, score = sympy.symbols("mu_22 mu_11 mu_20 mu_02")
    pairs = size * (size - 1)
    second_moment = (
        size * diagonal**2 * fourth  # i = j = k = l
        + pairs * diagonal**2 * cross**2  # i = j, k = l
        + pairs * off**2 * reward * score  # i = k, j = l
        + pairs * off**2 * cross**2  # i = l, j = k
    )
    mean = size * diagonal * cross
    variance = sympy.expand(sympy.factor(second_moment - mean**2))
    failure = 1 - _P
    values = {
        reward: _P * failure,
        cross: _P * failure * _GAP,
        score: _P * _RIGHT_TRACE + failure * _WRONG_TRACE + _P * failure * _GAP**2,
        fourth: _P * failure**2 * (_RIGHT_TRACE + failure**2 * _GAP**2)
        + failure * _P**2 * (_WRONG_TRACE + _P**2 * _GAP**2),
    }
    substituted = variance.subs(values, simultaneous=True)
    bracket = sympy.collect(
        sympy.expand(sympy.simplify(substituted / (_P * failure))),
        (_GAP, _RIGHT_TRACE, _WRONG_TRACE),
        sympy.factor,
    )
    result = _P * failure * bracket
    return Derivation(
        (
            Step(
                "mean square of sum_ij (1/G)(delta_ij - 1/G) x_i y_j, rewards x and scores y centred",
                second_moment,
            ),
            Step("less the squared mean", variance),
            Step("moments of binary rewards, by truth", result),
        ),
        result,
    )


@cache
def _given_count() -> tuple[tuple[Step, ...], sympy.Expr, sympy.Expr]:
    """Steps, squared mean over gap^2 and trace of the group's gradient given k right, scale c."""
    scale = sympy.Symbol("c")
    right, wrong = (1 - _COUNT / _G) * scale, -(_COUNT / _G) * scale
    trace = sympy.factor((_COUNT * right**2 * _RIGHT_TRACE + (_G - _COUNT) * wrong**2 * _WRONG_TRACE) / _G**2)
    # the scores of the k right have mean v_R, the others v_W; only their difference remains
    mean = sympy.factor(_COUNT * right / _G)
    return (
        (
            Step("coefficient of the gap given k right, scale c", mean),
            Step("trace of the covariance given k", trace),
        ),
        mean,
        trace,
    )


@cache
def _derive_within(scaling: GroupScaling) -> Derivation:
    steps, coefficient, trace = _given_count()
    scale_symbol = sympy.Symbol("c")
    spread = sympy.sqrt(coefficient.subs(scale_symbol, 1))
    scale = group_scale(scaling, spread)
    mean = binomial_mean(coefficient.subs(scale_symbol, scale))
    square = binomial_mean(coefficient.subs(scale_symbol, scale) ** 2)
    noise = binomial_mean(trace.subs(scale_symbol, scale))
    result = _GAP**2 * (square - mean**2) + noise
    return Derivation(
        (
            *steps,
            Step("scale", scale),
            Step("mean over k of the trace given k", noise),
            Step("and the variance over k of the mean given k", result),
        ),
        result,
    )


@cache
def _derive_within_large_group() -> Derivation:
    steps, coefficient, trace = _given_count()
    scale_symbol, share, deviation = (
        sympy.Symbol("c"),
        sympy.Symbol("x", positive=True),
        sympy.Symbol("delta"),
    )
    spread = sympy.sqrt(share * (1 - share))
    # the leading order: the trace at k = G p, and the slope of s(x) times the variance of x
    noise = sympy.simplify(trace.subs({scale_symbol: 1 / sympy.sqrt(coefficient / scale_symbol)}))
    noise = sympy.simplify(noise.subs(_COUNT, _G * _P))
    linear = sympy.diff(spread, share).subs(share, _P) * deviation
    variance = (linear**2).subs(deviation**2, central_moment(2) / _G**2)
    result = sympy.expand(sympy.simplify(noise * _G)) / _G + sympy.factor(sympy.simplify(variance)) * _GAP**2
    return Derivation(
        (
            *steps,
            Step("trace at k = G p with c = 1/s_k", noise),
            Step("s_k to first order in delta = k/G - p", linear),
            Step("its variance", variance),
            Step("together, to order 1/G", result),
        ),
        result,
    )


@cache
def _derive_total() -> Derivation:
    conditional = _BETWEEN + _WITHIN
    result = conditional / _B
    return Derivation(
        (
            Step("law of total covariance for one prompt's contribution", conditional),
            Step("mean of B independent prompts", result),
        ),
        result,
    )


@cache
def _derive_two_kinds() -> Derivation:
    within = _derive_within("std")
    kinds = []
    for kind in (1, 2):
        names = {symbol: sympy.Symbol(f"{symbol.name}_{kind}", real=True) for symbol in (_P, _GAP)}
        names[_RIGHT_TRACE] = names[_WRONG_TRACE] = sympy.Symbol("score_trace", nonnegative=True)
        _, coefficient, _ = _given_count()
        scale = sympy.Symbol("c")
        mean = binomial_mean(sympy.sqrt(coefficient.subs(scale, 1)))
        kinds.append(
            (
                (mean * _GAP).subs(names, simultaneous=True),
                within.result.subs(_EPS, 0).subs(names, simultaneous=True),
            )
        )
    (mean_1, within_1), (mean_2, within_2) = kinds
    average = (mean_1 + mean_2) / 2
    between = (mean_1**2 + mean_2**2) / 2 - average**2
    total = _derive_total()
    result = total.result.subs({_BETWEEN: between, _WITHIN: (within_1 + within_2) / 2})
    return Derivation(
        (
            *within.steps,
            *total.steps,
            Step("between two kinds of prompt, equally frequent", between),
            Step("the sum over B", result),
        ),
        result,
    )


@cache
def _derive_without_replacement() -> tuple[tuple[Step, ...], sympy.Expr, sympy.Expr]:
    """Steps, variance of the mean of a batch and covariance of two batches of one epoch (between part)."""
    covariance = sympy.Symbol("C")
    everything = _N * _BETWEEN + _N * (_N - 1) * covariance  # variance of the sum over the epoch
    pair = sympy.solve(sympy.Eq(everything, 0), covariance)[0]
    variance = sympy.factor((_B * _BETWEEN + _B * (_B - 1) * pair) / _B**2)
    steps = (
        Step(
            "variance of the sum over all N prompts, C the covariance of two draws: it is certain", everything
        ),
        Step("so two draws have the covariance", pair),
        Step("variance of the mean of B of them", variance),
    )
    return steps, variance, pair


@cache
def _derive_batch_variance() -> Derivation:
    steps, variance, _ = _derive_without_replacement()
    return Derivation(steps, variance)


@cache
def _derive_batch_correlation() -> Derivation:
    steps, variance, pair = _derive_without_replacement()
    result = sympy.factor(sympy.simplify(pair / variance))
    return Derivation(
        (*steps, Step("covariance of two batches, the same, over their variance", result)), result
    )


@cache
def _derive_window() -> Derivation:
    steps, variance, pair = _derive_without_replacement()
    part = sympy.Mod(_T, _N / _B)
    j = sympy.Symbol("j", integer=True, nonnegative=True)
    between = sympy.factor(j * variance + j * (j - 1) * pair)
    within = _T * _WITHIN / _B
    result = between.subs(j, part) + within
    return Derivation(
        (
            *steps,
            Step("variance of the sum of j batches of one epoch, zero at j = N/B", between),
            Step("rollouts are independent throughout", within),
            Step("whole epochs drop out: j is the remainder of T by N/B", result),
        ),
        result,
    )


@cache
def _derive_window_with_replacement() -> Derivation:
    total = _derive_total()
    result = _T * total.result
    return Derivation((*total.steps, Step("sum of T independent updates", result)), result)


@cache
def _derive_noise_scale() -> Derivation:
    total = _derive_total()
    batch = sympy.solve(sympy.Eq(total.result, _SIGNAL), _B)[0]
    return Derivation(
        (
            *total.steps,
            Step("batch at which the noise of an update equals the squared gradient", batch),
        ),
        batch,
    )


@cache
def _derive_squared_norm() -> Derivation:
    true, error = sympy.symbols("g e")
    product = sympy.Poly(sympy.expand((true + error) ** 2), true, error)
    moments = {(2, 0): _SIGNAL, (0, 2): _TRACE / _B}
    result = sum(c * moments.get(powers, sympy.Integer(0)) for powers, c in product.terms())
    return Derivation(
        (Step("squared norm of gradient plus error", product.as_expr()), Step("its mean", result)), result
    )


@cache
def _derive_two_batch(wanted: sympy.Symbol) -> Derivation:
    norm = _derive_squared_norm()
    squared_small, squared_big = sympy.symbols("squared_small squared_big", real=True)
    small, big = sympy.symbols("batch_small batch_big", positive=True)
    equations = [
        sympy.Eq(squared_small, norm.result.subs(_B, small)),
        sympy.Eq(squared_big, norm.result.subs(_B, big)),
    ]
    solution = sympy.solve(equations, (_SIGNAL, _TRACE), dict=True)[0]
    result = sympy.factor(solution[wanted])
    return Derivation(
        (
            *norm.steps,
            *(Step("observed in its place", equation) for equation in equations),
            Step("solved: linear in what is observed, so unbiased", result),
        ),
        result,
    )


@cache
def _derive_signal_ratio() -> Derivation:
    scale = sympy.Symbol("noise_scale", positive=True)
    drift = _T**2 * _SIGNAL
    noise = _T * _TRACE / _B
    ratio = drift / noise
    result = sympy.simplify(ratio.subs(_TRACE, scale * _SIGNAL))
    return Derivation(
        (
            Step("squared drift over T updates of a constant gradient", drift),
            Step("accumulated noise", noise),
            Step("pooled S^2", ratio),
            Step("in terms of the noise scale", result),
        ),
        result,
    )


def within_trace(
    pass_rate: ArrayLike,
    rollouts: ArrayLike,
    gap: ArrayLike,
    right_trace: ArrayLike,
    wrong_trace: ArrayLike,
    scaling: GroupScaling,
    epsilon: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """Trace of the covariance of one group's gradient given its prompt: exact for any distribution of scores.

    Args:
        pass_rate: p in [0, 1]; at 0 and 1 the gradient is always zero and so is this.
        rollouts: G, at least 2.
        gap: |v_R - v_W|.
        right_trace: T_R, trace of the covariance of the score of a right rollout.
        wrong_trace: T_W.
        scaling: `std`, `unbiased_std` or `none` (theory.finite_group).
        epsilon: added to the scale.

    Returns:
        float64, the broadcast shape, in squared units of the score.

    Raises:
        InvalidArgument: outside the domain (so do all functions of this file).
    """
    p, group, distance, right, wrong = _prompt_arguments(pass_rate, rollouts, gap, right_trace, wrong_trace)
    small = non_negative("epsilon", epsilon)

    def square(k: NDArray, size: NDArray, eps: NDArray) -> NDArray[np.float64]:
        return group_signal(k, size, scaling, eps)[0] ** 2

    def noise(k: NDArray, size: NDArray, eps: NDArray, right: NDArray, wrong: NDArray) -> NDArray[np.float64]:
        coefficient, scale = group_signal(k, size, scaling, eps)
        return coefficient * scale / size * ((1 - k / size) * right + k / size * wrong)

    mean = group_coefficient(p, group, scaling, small)
    spread = count_mean(p, group, square, small) - mean**2
    return distance**2 * np.maximum(spread, 0.0) + count_mean(p, group, noise, small, right, wrong)


def _prompt_arguments(
    pass_rate: ArrayLike, rollouts: ArrayLike, gap: ArrayLike, right_trace: ArrayLike, wrong_trace: ArrayLike
) -> tuple[
    NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]
]:
    return (
        probability("pass_rate", pass_rate),
        whole_number("rollouts", rollouts, 2),
        non_negative("gap", gap),
        non_negative("right_trace", right_trace),
        non_negative("wrong_trace", wrong_trace),
    )


def within_trace_none(
    pass_rate: ArrayLike, rollouts: ArrayLike, gap: ArrayLike, right_trace: ArrayLike, wrong_trace: ArrayLike
) -> NDArray[np.float64]:
    """`within_trace` of unscaled advantages in closed form; arguments as there."""
    p, group, distance, right, wrong = _prompt_arguments(pass_rate, rollouts, gap, right_trace, wrong_trace)
    variance = p * (1 - p)
    fourth = variance * (
        (1 - p) * right + p * wrong + (1 - 3 * variance) * distance**2
    )  # (1-p)^3 + p^3 = 1 - 3 sigma^2
    score = p * right + (1 - p) * wrong + variance * distance**2
    cross = (variance * distance) ** 2
    value = (group - 1) / group**3 * ((group - 1) * fourth - (group - 2) * cross + variance * score)
    return np.asarray(value)


def within_trace_std(
    pass_rate: ArrayLike,
    rollouts: ArrayLike,
    gap: ArrayLike,
    right_trace: ArrayLike,
    wrong_trace: ArrayLike,
    epsilon: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """`within_trace` for `std`."""
    return within_trace(pass_rate, rollouts, gap, right_trace, wrong_trace, "std", epsilon)


def within_trace_unbiased_std(
    pass_rate: ArrayLike,
    rollouts: ArrayLike,
    gap: ArrayLike,
    right_trace: ArrayLike,
    wrong_trace: ArrayLike,
    epsilon: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """`within_trace` for `unbiased_std`."""
    return within_trace(pass_rate, rollouts, gap, right_trace, wrong_trace, "unbiased_std", epsilon)


def within_trace_large_group(
    pass_rate: ArrayLike, rollouts: ArrayLike, gap: ArrayLike, right_trace: ArrayLike, wrong_trace: ArrayLike
) -> NDArray[np.float64]:
    """`within_trace` for `std` to order 1/G: ((1-p) T_R + p T_W + (1-2p)^2 |gap|^2/4)/G; at p = 0 and 1 it is 0."""
    p, group, distance, right, wrong = _prompt_arguments(pass_rate, rollouts, gap, right_trace, wrong_trace)
    value = ((1 - p) * right + p * wrong + (1 - 2 * p) ** 2 / 4 * distance**2) / group
    return np.where(np.broadcast_to((p == 0) | (p == 1), value.shape), 0.0, value)


def noise_trace(between: ArrayLike, within: ArrayLike, prompts: ArrayLike) -> NDArray[np.float64]:
    """Trace of the covariance of an update's gradient, (between + within)/B, prompts drawn with replacement.

    Args:
        between: trace of the covariance over prompts of their expected gradients.
        within: mean over prompts of `within_trace`.
        prompts: B, at least 1.
    """
    total = non_negative("between", between) + non_negative("within", within)
    return np.asarray(total / whole_number("prompts", prompts, 1))


def two_kinds_trace(
    pass_rate_1: ArrayLike,
    pass_rate_2: ArrayLike,
    gap_1: ArrayLike,
    gap_2: ArrayLike,
    score_trace: ArrayLike,
    prompts: ArrayLike,
    rollouts: ArrayLike,
) -> NDArray[np.float64]:
    """The same for a population of two equally frequent kinds of prompt, one dimension, `std` scaling.

    Args:
        pass_rate_1: p of the first kind.
        pass_rate_2: p of the second.
        gap_1: v_R - v_W of the first kind, of either sign.
        gap_2: of the second.
        score_trace: variance of a score given its truth, for all.
        prompts: B.
        rollouts: G.
    """
    distances = finite("gap_1", gap_1), finite("gap_2", gap_2)
    rates = probability("pass_rate_1", pass_rate_1), probability("pass_rate_2", pass_rate_2)
    trace = non_negative("score_trace", score_trace)
    means = [group_coefficient(p, rollouts, "std") * gap for p, gap in zip(rates, distances, strict=True)]
    within = [
        within_trace(p, rollouts, np.abs(gap), trace, trace, "std")
        for p, gap in zip(rates, distances, strict=True)
    ]
    return noise_trace((means[0] - means[1]) ** 2 / 4, (within[0] + within[1]) / 2, prompts)


def batch_variance(between: ArrayLike, prompts: ArrayLike, population: ArrayLike) -> NDArray[np.float64]:
    """Between part of an update's covariance, B of N prompts drawn without replacement.

    Args:
        between: trace of the covariance over the N prompts (divided by N) of their expected gradients.
        prompts: B, from 1 to N; at B = N the result is 0.
        population: N, at least 2.
    """
    spread = non_negative("between", between)
    batch, size = _epoch(prompts, population)
    return np.asarray(spread / batch * (size - batch) / (size - 1))


def batch_correlation(prompts: ArrayLike, population: ArrayLike) -> NDArray[np.float64]:
    """Correlation between two updates of one epoch of the between part: -B/(N-B), or -1/(N-1) at B = 1.

    Args:
        prompts: B; B = N leaves no second update and no variance: NaN.
        population: N, at least 2.
    """
    batch, size = _epoch(prompts, population)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(batch == size, np.nan, -batch / (size - batch))


def _epoch(prompts: ArrayLike, population: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    batch, size = whole_number("prompts", prompts, 1), whole_number("population", population, 2)
    if np.any(batch > size):
        raise InvalidArgument("prompts", f"a batch of {prompts!r} exceeds the population of {population!r}")
    return batch, size


def window_variance(
    between: ArrayLike, within: ArrayLike, prompts: ArrayLike, population: ArrayLike, updates: ArrayLike
) -> NDArray[np.float64]:
    """Trace of the covariance of the sum of T updates from the start of an epoch, prompts without replacement.

    Args:
        between: as for `batch_variance`.
        within: mean over prompts of `within_trace`.
        prompts: B, a divisor of N.
        population: N; each epoch is shuffled anew.
        updates: T, at least 0; at whole epochs only the within part is left.
    """
    spread, noise = non_negative("between", between), non_negative("within", within)
    batch, size = _epoch(prompts, population)
    if np.any(size % batch):
        raise InvalidArgument("prompts", f"{prompts!r} does not divide the population of {population!r}")
    count = whole_number("updates", updates, 0)
    part = count % (size // batch)
    return np.asarray(spread * part * (size - part * batch) / (batch * (size - 1)) + noise * count / batch)


def window_variance_with_replacement(
    between: ArrayLike, within: ArrayLike, prompts: ArrayLike, updates: ArrayLike
) -> NDArray[np.float64]:
    """The same with prompts drawn with replacement: T (between + within)/B."""
    return np.asarray(whole_number("updates", updates, 0) * noise_trace(between, within, prompts))


def noise_scale(between: ArrayLike, within: ArrayLike, signal_power: ArrayLike) -> NDArray[np.float64]:
    """Gradient noise scale (between + within)/|g|^2, in prompts; infinite without signal, NaN without either."""
    total = non_negative("between", between) + non_negative("within", within)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.divide(total, non_negative("signal_power", signal_power)))


def squared_norm(signal_power: ArrayLike, noise_trace: ArrayLike, prompts: ArrayLike) -> NDArray[np.float64]:
    """Expected squared norm of the gradient of a batch, |g|^2 + tr(Sigma)/B."""
    batch = whole_number("prompts", prompts, 1)
    return np.asarray(
        non_negative("signal_power", signal_power) + non_negative("noise_trace", noise_trace) / batch
    )


def signal_power_estimate(
    squared_small: ArrayLike, squared_big: ArrayLike, batch_small: ArrayLike, batch_big: ArrayLike
) -> NDArray[np.float64]:
    """Unbiased estimate of |g|^2 from the squared norms at two batch sizes; it may be negative.

    Args:
        squared_small: squared norm (or a mean of several) at the smaller batch.
        squared_big: at the bigger batch.
        batch_small: number of prompts.
        batch_big: larger than `batch_small`.
    """
    small, big = _batches(batch_small, batch_big)
    value = big * finite("squared_big", squared_big) - small * finite("squared_small", squared_small)
    return np.asarray(value / (big - small))


def noise_trace_estimate(
    squared_small: ArrayLike, squared_big: ArrayLike, batch_small: ArrayLike, batch_big: ArrayLike
) -> NDArray[np.float64]:
    """Unbiased estimate of tr(Sigma) for a batch of one; arguments as for `signal_power_estimate`.

    The ratio of the two is *not* unbiased for the noise scale: average each over updates before dividing.
    """
    small, big = _batches(batch_small, batch_big)
    value = finite("squared_small", squared_small) - finite("squared_big", squared_big)
    return np.asarray(value / (1 / small - 1 / big))


def _batches(batch_small: ArrayLike, batch_big: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    small, big = positive("batch_small", batch_small), positive("batch_big", batch_big)
    if np.any(big <= small):
        raise InvalidArgument("batch_big", f"must exceed batch_small, got {batch_big!r} and {batch_small!r}")
    return small, big


def signal_ratio_squared(
    updates: ArrayLike, prompts: ArrayLike, noise_scale: ArrayLike
) -> NDArray[np.float64]:
    """Pooled S^2 of a window, T B / noise scale.

    Args:
        updates: T of plain stochastic gradient descent.
        prompts: B.
        noise_scale: tr(Sigma)/|g|^2 in prompts; 0 gives infinity, infinity gives 0.
    """
    count, batch = whole_number("updates", updates, 1), whole_number("prompts", prompts, 1)
    with np.errstate(divide="ignore"):
        return np.asarray(np.divide(count * batch, non_negative("noise_scale", noise_scale, infinite=True)))


_GIVEN_PROMPT = (
    "rollouts of a prompt independent, binary rewards",
    "scores of any distribution, independent of everything but the own reward",
    "one on-policy update: no clipping, no KL, no entropy term",
)
_DRAWN = ("prompts drawn with replacement", "scale of a group from the group itself")
_EPOCH = (
    "prompts drawn without replacement, each epoch shuffled anew",
    "the policy does not move over the window",
)
_CELLS = (
    (0.3, 2, 1.0, 0.0, 0.0),
    (0.5, 16, 2.0, 1.0, 3.0),
    (0.05, 16, 1.0, 2.0, 0.5),
    (0.9, 8, 0.0, 1.0, 1.0),
    (0.3, 4, 1.5, 0.2, 0.7),
    (0.0, 8, 1.0, 1.0, 1.0),
    (1.0, 8, 1.0, 1.0, 1.0),
)


def _prompt_points(**fixed: float) -> tuple[Point, ...]:
    names = ("pass_rate", "rollouts", "gap", "right_trace", "wrong_trace")
    return tuple(Point({**dict(zip(names, cell, strict=True)), **fixed}) for cell in _CELLS)


def _points(names: str, *cells: tuple[float, ...]) -> tuple[Point, ...]:
    return tuple(Point(dict(zip(names.split(), cell, strict=True))) for cell in cells)


PREDICTION = Prediction(
    number=4,
    name="gradient_noise",
    title="Gradient noise against prompts and rollouts",
    laws=(
        Law(
            "within_trace_none",
            "Unscaled advantages: the noise of a prompt's rollouts, about 1/G, with exact factors in G.",
            _GIVEN_PROMPT,
            _derive_within_none,
            within_trace_none,
            _prompt_points(),
        ),
        Law(
            "within_trace_std",
            "Advantages over the group's standard deviation: the noise of a prompt's rollouts, exact in G.",
            _GIVEN_PROMPT,
            lambda: _derive_within("std"),
            within_trace_std,
            (*_prompt_points(epsilon=0.0), *_prompt_points(epsilon=0.1)[:3]),
        ),
        Law(
            "within_trace_unbiased_std",
            "Advantages over the unbiased standard deviation: the noise of a prompt's rollouts, exact in G.",
            _GIVEN_PROMPT,
            lambda: _derive_within("unbiased_std"),
            within_trace_unbiased_std,
            _prompt_points(epsilon=1e-4),
        ),
        Law(
            "within_trace_large_group",
            "For large G the within part is ((1-p) T_R + p T_W + (1-2p)^2 |gap|^2/4)/G: it falls as 1/G.",
            (*_GIVEN_PROMPT, "advantages over the group's standard deviation"),
            _derive_within_large_group,
            within_trace_large_group,
            tuple(
                Point(
                    dict(
                        zip(("pass_rate", "rollouts", "gap", "right_trace", "wrong_trace"), cell, strict=True)
                    ),
                    tolerance,
                )
                for cell, tolerance in (
                    ((0.5, 64, 2.0, 1.0, 3.0), 4e-4),
                    ((0.2, 256, 1.0, 2.0, 0.5), 2e-5),
                    ((0.9, 128, 3.0, 0.0, 0.0), 4e-3),
                    ((0.05, 8, 1.0, 2.0, 0.5), 0.2),
                )
            ),
            order="error of order 1/(G sigma^2)^2; breaks at G sigma^2 near 1, where many groups have no signal",
        ),
        Law(
            "noise_trace",
            "The covariance of an update is between/B + within/B, and within falls as 1/G.",
            _DRAWN[:1],
            _derive_total,
            noise_trace,
            _points("between within prompts", (1.0, 0.5, 1), (0.2, 3.0, 64), (0.0, 1.0, 8), (0.0, 0.0, 4)),
        ),
        Law(
            "two_kinds_trace",
            "Two kinds of prompt: raising G removes the within part alone, raising B both.",
            (*_GIVEN_PROMPT, *_DRAWN),
            _derive_two_kinds,
            two_kinds_trace,
            _points(
                "pass_rate_1 pass_rate_2 gap_1 gap_2 score_trace prompts rollouts",
                (0.5, 0.1, 1.0, 1.0, 1.0, 4, 4),
                (0.5, 0.1, 1.0, 1.0, 1.0, 1, 16),
                (0.3, 0.3, 0.0, -2.0, 0.0, 2, 8),
                (0.0, 1.0, 1.0, 1.0, 1.0, 2, 4),
                (0.9, 0.2, 1.0, 0.5, 0.3, 8, 2),
            ),
        ),
        Law(
            "batch_variance",
            "Without replacement the between part is between/B times (N-B)/(N-1).",
            _EPOCH[:1],
            _derive_batch_variance,
            batch_variance,
            _points("between prompts population", (1.0, 1, 8), (2.0, 4, 8), (1.0, 8, 8), (0.0, 2, 6)),
        ),
        Law(
            "batch_correlation",
            "Two updates of one epoch correlate by -B/(N-B), two single prompts by -1/(N-1).",
            _EPOCH[:1],
            _derive_batch_correlation,
            batch_correlation,
            _points("prompts population", (1, 8), (2, 8), (4, 8), (1, 2)),
        ),
        Law(
            "window_variance",
            "Summed over an epoch the between part cancels: only the noise of the rollouts is left.",
            _EPOCH,
            _derive_window,
            window_variance,
            _points(
                "between within prompts population updates",
                (1.0, 0.5, 2, 8, 1),
                (1.0, 0.5, 2, 8, 2),
                (1.0, 0.5, 2, 8, 4),
                (1.0, 0.5, 2, 8, 7),
                (1.0, 0.0, 4, 4, 3),
                (0.0, 2.0, 1, 6, 5),
            ),
        ),
        Law(
            "window_variance_with_replacement",
            "With replacement both parts grow with the number of updates.",
            (_DRAWN[0], _EPOCH[1]),
            _derive_window_with_replacement,
            window_variance_with_replacement,
            _points("between within prompts updates", (1.0, 0.5, 2, 1), (1.0, 0.5, 2, 4), (0.0, 2.0, 1, 5)),
        ),
        Law(
            "noise_scale",
            "The gradient noise scale, in prompts, is (between + within)/|g|^2.",
            _DRAWN[:1],
            _derive_noise_scale,
            noise_scale,
            _points("between within signal_power", (1.0, 0.5, 0.1), (0.0, 3.0, 2.0), (0.0, 0.0, 1.0)),
        ),
        Law(
            "squared_norm",
            "The squared norm of a batch's gradient is too large by tr(Sigma)/B.",
            _DRAWN[:1],
            _derive_squared_norm,
            squared_norm,
            _points("signal_power noise_trace prompts", (1.0, 4.0, 2), (0.0, 4.0, 8), (1.0, 0.0, 1)),
        ),
        Law(
            "signal_power_estimate",
            "Two batch sizes give an unbiased estimate of |g|^2.",
            ("independent draws in each batch",),
            lambda: _derive_two_batch(_SIGNAL),
            signal_power_estimate,
            _points("squared_small squared_big batch_small batch_big", (3.0, 1.5, 2, 8), (1.0, 1.2, 1, 4)),
        ),
        Law(
            "noise_trace_estimate",
            "Two batch sizes give an unbiased estimate of tr(Sigma).",
            ("independent draws in each batch",),
            lambda: _derive_two_batch(_TRACE),
            noise_trace_estimate,
            _points("squared_small squared_big batch_small batch_big", (3.0, 1.5, 2, 8), (1.0, 1.2, 1, 4)),
        ),
        Law(
            "signal_ratio_squared",
            "Under plain gradient descent the pooled S^2 of T updates is T B over the noise scale.",
            (*_DRAWN[:1], "gradient and noise constant over the window"),
            _derive_signal_ratio,
            signal_ratio_squared,
            _points("updates prompts noise_scale", (1, 1, 1.0), (100, 16, 400.0), (10, 8, 1e4)),
        ),
    ),
)
