"""The drift of GRPO on one prompt: what the mean scores of right and wrong rollouts make of it.

A rollout has a binary reward r (pass rate p, sigma = sqrt(p (1-p))) and a score u: the gradient it contributes for
an advantage of one. v_R and v_W are the means of u given right and wrong. With an infinite on-policy group the
advantage is (r - p)/sigma and the drift is sigma (v_R - v_W), however tokens are weighted inside a rollout.
The paper on linear dynamics (arXiv 2601.04537) states (p/sigma) v_R. The two agree when the mean score
m = p v_R + (1-p) v_W vanishes, as it does for summed token scores; for length-averaged ones
m = E[S/L] = grad E[1/L], S the summed score and L the length, and the two differ by -(p/sigma) m.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray
from scipy import special

from theory.prediction import (
    Derivation,
    InvalidArgument,
    Law,
    Point,
    Prediction,
    Step,
    finite,
    non_negative,
    probability,
    whole_number,
)

_P = sympy.Symbol("pass_rate", positive=True)
_RIGHT, _WRONG = sympy.symbols("right_score wrong_score", real=True)
_MEAN = sympy.Symbol("mean_score", real=True)
_SIGMA = sympy.sqrt(_P * (1 - _P))
_STOP = sympy.Symbol("stop_probability", positive=True)


@cache
def _derive_drift() -> Derivation:
    chance = {1: _P, 0: 1 - _P}
    score = {1: _RIGHT, 0: _WRONG}
    mean = sum(chance[r] * r for r in chance)
    variance = sympy.factor(sum(chance[r] * (r - mean) ** 2 for r in chance))
    advantage = {r: (r - mean) / sympy.sqrt(variance) for r in chance}
    expected = sum(chance[r] * advantage[r] * score[r] for r in chance)
    result = sympy.factor(sympy.simplify(expected))
    return Derivation(
        (
            Step("variance of the reward", variance),
            Step("advantage of a right rollout", advantage[1]),
            Step("advantage of a wrong rollout", advantage[0]),
            Step("mean of advantage times score", expected),
            Step("factored", result),
        ),
        result,
    )


@cache
def _derive_discrepancy() -> Derivation:
    drift = _derive_drift()
    wrong = sympy.solve(sympy.Eq(_P * _RIGHT + (1 - _P) * _WRONG, _MEAN), _WRONG)[0]
    substituted = drift.result.subs(_WRONG, wrong)
    result = sympy.simplify(substituted - _P / _SIGMA * _RIGHT)
    return Derivation(
        (
            *drift.steps,
            Step("wrong score from the mean score p v_R + (1-p) v_W = m", wrong),
            Step("drift in terms of v_R and m", substituted),
            Step("less (p/sigma) v_R", result),
        ),
        result,
    )


@cache
def _derive_paper() -> Derivation:
    discrepancy = _derive_discrepancy()
    drift = discrepancy.steps[-2].expression.subs(_MEAN, 0)
    result = sympy.simplify(drift)
    return Derivation(
        (*discrepancy.steps[:-1], Step("mean score zero", drift), Step("simplified: (p/sigma) v_R", result)),
        result,
    )


@cache
def _geometric_means() -> tuple[tuple[Step, ...], dict[str, sympy.Expr]]:
    """Mean scores on the stop logit of a geometric length, averaged over the tokens."""
    length = sympy.Symbol("L", integer=True, positive=True)
    logit = sympy.Symbol("theta", real=True)
    sigmoid = 1 / (1 + sympy.exp(-logit))
    undo = {logit: sympy.log(_STOP / (1 - _STOP))}
    stopping = sympy.simplify(sympy.diff(sympy.log(sigmoid), logit).subs(undo))
    going_on = sympy.simplify(sympy.diff(sympy.log(1 - sigmoid), logit).subs(undo))
    summed = sympy.expand(stopping + (length - 1) * going_on)
    averaged = sympy.expand(summed / length)
    going = sympy.Symbol("x", positive=True)  # 1 - stop probability
    # sum of x^(L-1)/L from the integral of the geometric series, sum of x^(L-1)
    geometric = 1 / (1 - going)
    inverse_sum = sympy.integrate(geometric, going)
    inverse_sum = sympy.simplify((inverse_sum - inverse_sum.subs(going, 0)) / going)
    inverse_length = (_STOP * inverse_sum).subs(going, 1 - _STOP)
    mean = averaged.coeff(length, -1) * inverse_length + averaged.coeff(length, 0)
    single = averaged.subs(length, 1)
    longer = sympy.simplify((mean - _STOP * single) / (1 - _STOP))
    steps = (
        Step("summed score on the stop logit of L tokens", summed),
        Step("averaged over the tokens", averaged),
        Step("E[1/L], from the integrated geometric series", inverse_length),
        Step("mean of the averaged score", mean),
    )
    return steps, {"mean": mean, "inverse_length": inverse_length, "single": single, "longer": longer}


@cache
def _derive_mean_score() -> Derivation:
    steps, means = _geometric_means()
    slope = sympy.simplify(_STOP * (1 - _STOP) * sympy.diff(means["inverse_length"], _STOP))
    if sympy.simplify(slope - means["mean"]) != 0:
        raise ArithmeticError("the mean averaged score is not the gradient of E[1/L]")
    return Derivation((*steps, Step("the same as the gradient of E[1/L] in the stop logit", slope)), slope)


@cache
def _derive_length_share() -> Derivation:
    steps, means = _geometric_means()
    drift, rates = _derive_drift(), {_P: 1 - _STOP, _RIGHT: means["longer"], _WRONG: means["single"]}
    true = drift.result.subs(rates, simultaneous=True)
    stated = (_P / _SIGMA * _RIGHT).subs(rates, simultaneous=True)
    result = sympy.simplify(stated / true)
    return Derivation(
        (
            *steps,
            Step("mean score of a right rollout, more than one token", means["longer"]),
            Step("mean score of a wrong rollout, one token", means["single"]),
            *drift.steps,
            Step("drift", true),
            Step("(p/sigma) v_R", stated),
            Step("their ratio", result),
        ),
        result,
    )


@cache
def _derive_slope(constant: str) -> Derivation:
    """Slope of log |v_R|^2 (gap constant) or of log |gap|^2 (v_R constant) on log(1 - p)."""
    along, across, mean_norm, cosine = sympy.symbols("g_1 g_2 mean_share cosine", real=True)
    failure = sympy.Symbol("y", positive=True)
    if constant == "gap":
        # first axis along the gap, of length one; the mean score in the plane of the two
        mean = (mean_norm * cosine, mean_norm * sympy.sqrt(1 - cosine**2))
        right = sympy.Matrix([mean[0] + failure, mean[1]])  # v_R = m + (1-p) gap
        squared = sympy.expand((right.T * right)[0])
        text = "|v_R|^2 with v_R = m + (1-p) gap, the gap of length one"
    else:
        right_and_mean = sympy.Matrix([along, across])  # v_R - m, constant
        gap = right_and_mean / failure
        squared = sympy.factor((gap.T * gap)[0])
        text = "|gap|^2 with gap = (v_R - m)/(1-p)"
    logarithm = sympy.Symbol("z", real=True)
    slope = sympy.diff(sympy.log(squared.subs(failure, sympy.exp(logarithm))), logarithm)
    result = sympy.simplify(slope.subs(logarithm, sympy.log(failure))).subs(failure, 1 - _P)
    return Derivation(
        (
            Step(text, squared),
            Step("derivative of its logarithm in log(1-p)", slope),
            Step("simplified", result),
        ),
        result,
    )


@cache
def _derive_right_slope() -> Derivation:
    gap = _derive_slope("right")
    failure, logarithm = sympy.symbols("y z", positive=True)
    factor = sympy.diff(sympy.log((failure**2).subs(failure, sympy.exp(logarithm))), logarithm)
    result = sympy.simplify(factor) + gap.result
    return Derivation(
        (*gap.steps, Step("|v_R - m|^2 is (1-p)^2 times that: its slope is larger by two", result)), result
    )


@cache
def _derive_square(independent: bool) -> Derivation:
    signal, trace = sympy.symbols("signal_power noise_trace", nonnegative=True)
    count = sympy.Symbol("rollouts", integer=True, positive=True)
    true, first, second = sympy.symbols("v e_1 e_2")  # errors of the two batch means, mean zero
    other = second if independent else first
    product = sympy.Poly(sympy.expand((true + first) * (true + other)), true, first, second)
    moments = {(2, 0, 0): signal, (0, 2, 0): trace / count}
    result = sum(c * moments.get(powers, sympy.Integer(0)) for powers, c in product.terms())
    return Derivation(
        (
            Step("inner product of two batch means, true mean plus error", product.as_expr()),
            Step("errors have mean zero, variance trace/n, and independent batches no covariance", result),
        ),
        result,
    )


@cache
def _derive_split_error() -> Derivation:
    signal, trace = sympy.symbols("signal_power noise_trace", nonnegative=True)
    count, dimension = sympy.symbols("rollouts dimension", integer=True, positive=True)
    true, first, second = sympy.symbols("v_i e_1 e_2")
    each = trace / (dimension * count)
    squared = sympy.Poly(sympy.expand(((true + first) * (true + second)) ** 2 - true**4), first, second)
    moments = {0: sympy.Integer(1), 1: sympy.Integer(0), 2: each}
    own = sympy.Poly(sum(c * moments[i] * moments[j] for (i, j), c in squared.terms()), true)
    # summed over coordinates v_i^2 gives the signal power and a constant the number of dimensions
    variance = sum(c * {0: dimension, 2: signal}[power] for (power,), c in own.terms())
    result = sympy.sqrt(sympy.factor(variance))
    return Derivation(
        (
            Step("square of one coordinate's product, less v_i^4", squared.as_expr()),
            Step("mean: errors uncorrelated, variance trace/(d n) each", own.as_expr()),
            Step("summed over coordinates, whose products are uncorrelated", variance),
            Step("square root", result),
        ),
        result,
    )


@cache
def _derive_cosine() -> Derivation:
    power = sympy.Symbol("power_ratio", nonnegative=True)
    dimension = sympy.Symbol("dimension", integer=True, positive=True)
    z, x, t = sympy.symbols("z x t", positive=True)
    length = sympy.Symbol("mu", positive=True)
    normal = sympy.exp(-((x - length) ** 2) / 2) / sympy.sqrt(2 * sympy.pi)
    tilted = normal * sympy.exp(-z * x**2)
    along = sympy.simplify(sympy.integrate(x * tilted, (x, -sympy.oo, sympy.oo)))
    across = sympy.simplify(sympy.integrate(tilted.subs(length, 0), (x, -sympy.oo, sympy.oo)))
    weight = along * across ** (dimension - 1) / sympy.sqrt(sympy.pi * z)
    substitution = t / (2 * (1 - t))  # t = 2 z/(1 + 2 z)
    integrand = sympy.powsimp(
        sympy.simplify(weight.subs(z, substitution) * sympy.diff(substitution, t)), force=True
    )
    mean = sympy.Integral(integrand, (t, 0, 1)).subs(length, sympy.sqrt(power * dimension))
    result = mean**2  # of independent directions the mean inner product is that of the means
    return Derivation(
        (
            Step("E[x exp(-z x^2)] along the true direction, unit noise", along),
            Step("E[exp(-z x^2)] across it", across),
            Step("times 1/sqrt(pi z): integrated over z this is E[x/|a|]", weight),
            Step("with t = 2z/(1+2z)", mean),
            Step("two independent directions: the square", result),
        ),
        result,
    )


@cache
def _derive_cosine_limit() -> Derivation:
    split, naive = _derive_square(True), _derive_square(False)
    signal, trace = sympy.symbols("signal_power noise_trace", nonnegative=True)
    count = sympy.Symbol("rollouts", integer=True, positive=True)
    power = sympy.Symbol("power_ratio", nonnegative=True)
    ratio = split.result / naive.result
    result = sympy.simplify(ratio.subs(trace, signal * count / power))
    return Derivation(
        (
            *split.steps,
            *naive.steps,
            Step("in many dimensions both squared norms and the inner product are at their means", ratio),
            Step("with power ratio |v|^2 n/trace", result),
        ),
        result,
    )


def drift(pass_rate: ArrayLike, right_score: ArrayLike, wrong_score: ArrayLike) -> NDArray[np.float64]:
    """sigma (v_R - v_W), the drift in an infinite group; 0 at p = 0 and 1.

    Args:
        pass_rate: p in [0, 1].
        right_score: v_R, any coordinate or array of coordinates.
        wrong_score: v_W, likewise.

    Raises:
        InvalidArgument: outside the domain (so do all functions of this file).
    """
    p = probability("pass_rate", pass_rate)
    gap = finite("right_score", right_score) - finite("wrong_score", wrong_score)
    return np.asarray(np.sqrt(p * (1 - p)) * gap)


def paper_drift(pass_rate: ArrayLike, right_score: ArrayLike) -> NDArray[np.float64]:
    """(p/sigma) v_R = sqrt(p/(1-p)) v_R, the drift if the mean score is zero.

    At p = 1 the limit at fixed v_R is infinite (0 for v_R = 0); a zero mean score forces v_R = 0 there.
    """
    p, right = np.broadcast_arrays(probability("pass_rate", pass_rate), finite("right_score", right_score))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.sqrt(p / (1 - p)) * right
    return np.where(right == 0, 0.0, value)


def discrepancy(pass_rate: ArrayLike, mean_score: ArrayLike) -> NDArray[np.float64]:
    """Drift less (p/sigma) v_R, which is -(p/sigma) m; infinite at p = 1 unless m = 0.

    Args:
        pass_rate: p in [0, 1].
        mean_score: m = p v_R + (1-p) v_W.
    """
    return -paper_drift(pass_rate, finite("mean_score", mean_score))


def length_averaged_mean_score(stop_probability: ArrayLike) -> NDArray[np.float64]:
    """Mean length-averaged score on the stop logit when each token ends the response with probability h.

    -h log(h)/(1-h) - h: zero only at h = 0 and 1, at most .22 in between.
    """
    stop = probability("stop_probability", stop_probability)
    with np.errstate(invalid="ignore"):
        value = stop * (1 - stop) * _length_curve(stop)
    return np.where(stop == 0, 0.0, value)


def length_averaged_share(stop_probability: ArrayLike) -> NDArray[np.float64]:
    """(p/sigma) v_R over the true drift, for length-averaged scores of responses of geometric length.

    Right are the responses of more than one token (p = 1 - h); the score is that of the stop logit. The share is 1
    at h = 1, .37 at h = 1/2, and turns negative for long responses (as 2 + log h; -infinity at h = 0): there
    (p/sigma) v_R has the wrong sign.
    """
    stop = probability("stop_probability", stop_probability)
    curve = _length_curve(stop)
    with np.errstate(invalid="ignore"):
        value = (curve - 1) / (stop * (curve - 1) - (1 - stop))
    return np.where(stop == 0, -np.inf, value)


def _length_curve(stop: NDArray[np.float64]) -> NDArray[np.float64]:
    """(-log(h)/(1-h) - 1)/(1-h), by its power series near h = 1, where it is 1/2."""
    going = 1 - stop
    near = sum(going**power / (power + 2) for power in range(9))
    with np.errstate(divide="ignore", invalid="ignore"):
        far = (-np.log1p(-going) / going - 1) / going
    return np.where(going < 0.01, near, far)


def slope_gap_constant(
    pass_rate: ArrayLike, mean_share: ArrayLike = 0.0, cosine: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """Local slope of log |v_R|^2 on log(1-p) if the gap v_R - v_W stays constant: 2 when the mean score is 0.

    Args:
        pass_rate: p in [0, 1].
        mean_share: |m| / |gap|, not negative, the mean score held constant.
        cosine: between mean score and gap, in [-1, 1].

    Returns:
        The slope; NaN where v_R vanishes with a mean score that is not zero; 2 at p = 1 if it is.
    """
    failure = 1 - probability("pass_rate", pass_rate)
    share = non_negative("mean_share", mean_share)
    angle = _cosine("cosine", cosine)
    inner = share * angle
    failure, inner, share = np.broadcast_arrays(failure, inner, share)
    squared = failure**2 + 2 * failure * inner + share**2
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = 2 * failure * (failure + inner) / squared
    return np.where((share == 0) & (failure == 0), 2.0, slope)


def slope_right_constant(pass_rate: ArrayLike) -> NDArray[np.float64]:
    """Slope of log |v_R|^2 on log(1-p) if v_R stays constant: 0 at every p."""
    return np.zeros_like(probability("pass_rate", pass_rate))


def gap_slope_right_constant(pass_rate: ArrayLike) -> NDArray[np.float64]:
    """Slope of log |v_R - v_W|^2 on log(1-p) if v_R and the mean score stay constant: -2 at every p."""
    return np.full_like(probability("pass_rate", pass_rate), -2.0)


def _cosine(argument: str, value: ArrayLike) -> NDArray[np.float64]:
    array = finite(argument, value)
    if np.any(np.abs(array) > 1):
        raise InvalidArgument(argument, f"must lie in [-1, 1], got {value!r}")
    return array


def split_batch_square(
    signal_power: ArrayLike, noise_trace: ArrayLike, rollouts: ArrayLike
) -> NDArray[np.float64]:
    """Expected inner product of the means of two independent batches: |v|^2, without bias.

    Args:
        signal_power: |v|^2 of the true mean.
        noise_trace: trace of the covariance of one rollout's score.
        rollouts: n in each batch, at least 1.
    """
    signal, trace, count = _square_arguments(signal_power, noise_trace, rollouts)
    return np.asarray(signal + 0 * trace / count)


def naive_square(signal_power: ArrayLike, noise_trace: ArrayLike, rollouts: ArrayLike) -> NDArray[np.float64]:
    """Expected squared norm of one batch mean: |v|^2 + trace/n; arguments as for `split_batch_square`."""
    signal, trace, count = _square_arguments(signal_power, noise_trace, rollouts)
    return np.asarray(signal + trace / count)


def split_batch_error(
    signal_power: ArrayLike, noise_trace: ArrayLike, rollouts: ArrayLike, dimension: ArrayLike
) -> NDArray[np.float64]:
    """Standard deviation of the inner product of two independent batch means, isotropic noise.

    In general it is sqrt(2 v' Sigma v/n + tr(Sigma^2)/n^2) for any distribution of the scores.

    Args:
        signal_power: |v|^2.
        noise_trace: trace of the covariance of one score, spread evenly over the dimensions.
        rollouts: n in each batch.
        dimension: number of coordinates, at least 1.
    """
    signal, trace, count = _square_arguments(signal_power, noise_trace, rollouts)
    each = trace / (whole_number("dimension", dimension, 1) * count)
    return np.sqrt(2 * signal * each + trace / count * each)


def _square_arguments(
    signal_power: ArrayLike, noise_trace: ArrayLike, rollouts: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    return (
        non_negative("signal_power", signal_power),
        non_negative("noise_trace", noise_trace),
        whole_number("rollouts", rollouts, 1),
    )


def naive_cosine(power_ratio: ArrayLike, dimension: ArrayLike) -> NDArray[np.float64]:
    """Expected cosine of two independent estimates of one and the same direction, Gaussian noise.

    In many dimensions r/(1 + r); below that in few (r = .1: .062 in one, .075 in two, .091 in many).

    Args:
        power_ratio: r = |v|^2 / (trace/n), signal over noise power of one estimate.
        dimension: coordinates over which the noise is spread evenly (the effective rank of the noise).
    """
    ratio = non_negative("power_ratio", power_ratio)
    size = whole_number("dimension", dimension, 1).astype(np.float64)
    energy = ratio * size / 2
    log_gamma = special.gammaln((size + 1) / 2) - special.gammaln(size / 2 + 1)
    series = special.hyp1f1(0.5, size / 2 + 1, -energy)
    return np.asarray((np.exp(log_gamma) * np.sqrt(energy) * series) ** 2)


def naive_cosine_many_dimensions(power_ratio: ArrayLike, dimension: ArrayLike = 1) -> NDArray[np.float64]:
    """r/(1+r), the limit of `naive_cosine` in many dimensions; 1 for an infinite ratio.

    Args:
        power_ratio: as for `naive_cosine`.
        dimension: has no influence; it is there so that both laws take the same arguments.
    """
    whole_number("dimension", dimension, 1)
    ratio = non_negative("power_ratio", power_ratio, infinite=True)
    with np.errstate(divide="ignore"):
        return np.asarray(1 / (1 + 1 / ratio))


_ONE_PROMPT = (
    "binary reward, one prompt, on-policy",
    "infinite group, advantages over its standard deviation",
    "no clipping, no KL, no entropy term",
)
_GEOMETRIC = (
    *_ONE_PROMPT,
    "each token ends the response with one probability, by one logit, whose score is averaged over the tokens",
)
_TWO_BATCHES = ("two batches of n independent rollouts each", "the policy is the same in both")

PREDICTION = Prediction(
    number=1,
    name="grpo_drift",
    title="Drift of GRPO",
    laws=(
        Law(
            "drift",
            "The drift of a prompt is sigma (v_R - v_W), for any weighting of tokens in the score.",
            _ONE_PROMPT,
            _derive_drift,
            drift,
            tuple(
                Point({"pass_rate": p, "right_score": right, "wrong_score": wrong})
                for p, right, wrong in (
                    (0.5, 1.0, -1.0),
                    (0.1, 0.3, 0.5),
                    (0.95, -0.2, 1.5),
                    (0.0, 1.0, -1.0),
                    (1.0, 1.0, 2.0),
                )
            ),
        ),
        Law(
            "discrepancy",
            "The drift is (p/sigma) (v_R - m): it differs from (p/sigma) v_R by the mean score m.",
            _ONE_PROMPT,
            _derive_discrepancy,
            discrepancy,
            tuple(
                Point({"pass_rate": p, "mean_score": mean})
                for p, mean in ((0.5, 0.4), (0.1, -1.0), (0.95, 0.2), (0.0, 1.0), (0.5, 0.0))
            ),
        ),
        Law(
            "paper_drift",
            "With a mean score of zero (summed token scores) the drift is (p/sigma) v_R.",
            (*_ONE_PROMPT, "p v_R + (1-p) v_W = 0"),
            _derive_paper,
            paper_drift,
            tuple(
                Point({"pass_rate": p, "right_score": right})
                for p, right in ((0.5, 0.4), (0.1, -1.0), (0.95, 0.2), (0.0, 1.0), (1.0, 0.0))
            ),
        ),
        Law(
            "length_averaged_mean_score",
            "Length-averaged scores have the mean grad E[1/L]: for geometric lengths -h log(h)/(1-h) - h.",
            _GEOMETRIC,
            _derive_mean_score,
            length_averaged_mean_score,
            tuple(Point({"stop_probability": stop}) for stop in (0.0, 0.01, 0.1, 0.5, 0.9, 0.999, 1.0)),
        ),
        Law(
            "length_averaged_share",
            "With length-averaged scores (p/sigma) v_R is a share of the true drift that may be negative.",
            (*_GEOMETRIC, "right are the responses of more than one token"),
            _derive_length_share,
            length_averaged_share,
            tuple(Point({"stop_probability": stop}) for stop in (0.01, 0.1, 0.2, 0.5, 0.9, 0.98)),
        ),
        Law(
            "slope_gap_constant",
            "Along a run of constant gap log|v_R|^2 falls with slope 2 on log(1-p), less under a mean score.",
            ("v_R = m + (1-p) gap", "gap and mean score m constant along the run"),
            lambda: _derive_slope("gap"),
            slope_gap_constant,
            tuple(
                Point({"pass_rate": p, "mean_share": share, "cosine": cosine})
                for p, share, cosine in (
                    (0.2, 0.0, 0.0),
                    (0.9, 0.0, 0.0),
                    (0.5, 0.2, 1.0),
                    (0.5, 0.2, -1.0),
                    (0.9, 0.5, 0.3),
                    (0.0, 0.1, 0.0),
                    (1.0, 0.1, 0.5),
                )
            ),
        ),
        Law(
            "slope_right_constant",
            "Along a run of constant v_R the slope of log|v_R|^2 on log(1-p) is 0.",
            ("v_R and mean score constant along the run",),
            _derive_right_slope,
            slope_right_constant,
            tuple(Point({"pass_rate": p}) for p in (0.0, 0.3, 0.9)),
        ),
        Law(
            "gap_slope_right_constant",
            "Along a run of constant v_R the slope of log|v_R - v_W|^2 on log(1-p) is -2.",
            ("v_R and mean score constant along the run",),
            lambda: _derive_slope("right"),
            gap_slope_right_constant,
            tuple(Point({"pass_rate": p}) for p in (0.0, 0.3, 0.9)),
        ),
        Law(
            "split_batch_square",
            "The inner product of two independent batch means is unbiased for |v|^2.",
            _TWO_BATCHES,
            lambda: _derive_square(True),
            split_batch_square,
            tuple(
                Point({"signal_power": signal, "noise_trace": trace, "rollouts": count})
                for signal, trace, count in ((1.0, 10.0, 1), (0.1, 4.0, 8), (0.0, 1.0, 2), (2.0, 0.0, 4))
            ),
        ),
        Law(
            "naive_square",
            "The squared norm of one batch mean is too large by trace/n.",
            _TWO_BATCHES[:1],
            lambda: _derive_square(False),
            naive_square,
            tuple(
                Point({"signal_power": signal, "noise_trace": trace, "rollouts": count})
                for signal, trace, count in ((1.0, 10.0, 1), (0.1, 4.0, 8), (0.0, 1.0, 2), (2.0, 0.0, 4))
            ),
        ),
        Law(
            "split_batch_error",
            "The inner product of two independent batch means has variance 2 v'Sigma v/n + tr(Sigma^2)/n^2.",
            (*_TWO_BATCHES, "isotropic noise (any distribution)"),
            _derive_split_error,
            split_batch_error,
            tuple(
                Point({"signal_power": signal, "noise_trace": trace, "rollouts": count, "dimension": size})
                for signal, trace, count, size in (
                    (1.0, 10.0, 1, 10),
                    (0.1, 4.0, 8, 100),
                    (0.0, 1.0, 2, 1),
                    (2.0, 0.0, 4, 3),
                )
            ),
        ),
        Law(
            "naive_cosine",
            "Two noisy estimates of one direction have a mean cosine below 1, set by the power ratio.",
            ("independent Gaussian errors, equal in every direction",),
            _derive_cosine,
            naive_cosine,
            tuple(
                Point({"power_ratio": ratio, "dimension": size})
                for ratio, size in ((0.1, 1), (0.1, 2), (0.1, 50), (1.0, 3), (4.0, 20), (0.0, 5))
            ),
        ),
        Law(
            "naive_cosine_many_dimensions",
            "In many dimensions that cosine is r/(1 + r) for power ratio r.",
            ("independent errors spread over many directions",),
            _derive_cosine_limit,
            naive_cosine_many_dimensions,
            (
                Point({"power_ratio": 0.1, "dimension": 1000}, 2e-4),
                Point({"power_ratio": 1.0, "dimension": 1000}, 1e-3),
                Point({"power_ratio": 4.0, "dimension": 200}, 2e-3),
                Point({"power_ratio": 0.1, "dimension": 1}, 0.03),
            ),
            order="error of order 1/dimension; a third of the value in one dimension",
        ),
    ),
)
