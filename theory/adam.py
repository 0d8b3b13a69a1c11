"""Adam under noise: what a coordinate's drift, its diffusion and its descent into a bowl become.

One coordinate has the gradient mu + s xi, xi standard normal and independent in time; q = mu/s is its gradient
signal-to-noise ratio. Adam (Kingma & Ba 2015, arXiv 1412.6980) keeps m, a mean of the gradient with memory
1/(1-beta1), and v, a mean of its square with memory 1/(1-beta2), and moves by -lr m/sqrt(v). Its epsilon, weight
decay and clipping are taken as zero. The laws linearise m/sqrt(v) about the stationary means (delta method),
mu and V = mu^2 + s^2; v fluctuates by a relative variance of order 1-beta2, which is the order of what is left out.

In a bowl of curvature h the mean gradient is h x at distance x from its bottom, so the rate at which the
distance shrinks, lr h/sqrt(h^2 x^2 + s^2), falls with the noise: the *effective* step is shorter, less of the
curvature is traversed, and R^2 first rises with noise before it falls to that of a walk.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray
from scipy import special

from theory.adam_bowl import (
    MOST_UPDATES,
    bowl_mean_r_squared,
    bowl_path_covariance,
    bowl_path_mean,
    decay,
    derive_mean_r_squared,
    derive_path_covariance,
    derive_path_mean,
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
    whole_number,
)

_Q = sympy.Symbol("gradient_snr", real=True)
_LR = sympy.Symbol("learning_rate", positive=True)
_BETA1, _BETA2 = sympy.symbols("beta1 beta2", positive=True)
_WINDOW, _UPDATES = sympy.symbols("window updates", integer=True, positive=True)
_MU = sympy.Symbol("mu", real=True)
_S, _H = sympy.symbols("noise curvature", positive=True)
_DISTANCE = sympy.Symbol("distance", positive=True)


@cache
def _moments() -> tuple[tuple[Step, ...], dict[str, sympy.Expr]]:
    """Stationary second moments of m and v, in units of the gradient's own mean mu and noise s."""
    t, ratio = sympy.symbols("t r")
    lag = sympy.Symbol("j", integer=True, nonnegative=True)
    generating = sympy.exp(_MU * t + _S**2 * t**2 / 2)
    raw = [sympy.expand(sympy.diff(generating, t, power).subs(t, 0)) for power in range(5)]
    variance = sympy.factor(raw[2] - raw[1] ** 2)
    square_variance = sympy.factor(raw[4] - raw[2] ** 2)
    covariance = sympy.factor(raw[3] - raw[1] * raw[2])
    geometric = sympy.summation(ratio**lag, (lag, 0, sympy.oo)).args[0][0]  # |r| < 1

    def weighted(first: sympy.Symbol, second: sympy.Symbol) -> sympy.Expr:
        return sympy.factor((1 - first) * (1 - second) * geometric.subs(ratio, first * second))

    moments = {
        "V": raw[2],
        "mm": variance * weighted(_BETA1, _BETA1),
        "vv": square_variance * weighted(_BETA2, _BETA2),
        "mv": covariance * weighted(_BETA1, _BETA2),
    }
    steps = (
        Step("mean of the squared gradient", raw[2]),
        Step("variance of m: a geometric sum of squared weights", moments["mm"]),
        Step("variance of v", moments["vv"]),
        Step("covariance of m and v", moments["mv"]),
    )
    return steps, moments


def _relative(expression: sympy.Expr) -> sympy.Expr:
    """In terms of q = mu/s."""
    return sympy.simplify(expression.subs(_MU, _Q * _S))


@cache
def _derive_drift() -> Derivation:
    steps, moments = _moments()
    ratio = _MU / sympy.sqrt(moments["V"])
    result = _LR * _relative(ratio)
    return Derivation(
        (*steps[:1], Step("m/sqrt(v) at the means", ratio), Step("times lr, in q = mu/s", result)), result
    )


@cache
def _derive_corrected_drift() -> Derivation:
    steps, moments = _moments()
    m, v = sympy.symbols("m v", positive=True)
    ratio = m / sympy.sqrt(v)
    second = (
        sympy.diff(ratio, v, 2) * moments["vv"] / 2
        + sympy.diff(ratio, m, v) * moments["mv"]
        + sympy.diff(ratio, m, 2) * moments["mm"] / 2
    )
    expanded = (ratio + second).subs({m: _MU, v: moments["V"]})
    result = _LR * _relative(expanded)
    return Derivation(
        (*steps, Step("mean of m/sqrt(v) to second order", expanded), Step("times lr, in q = mu/s", result)),
        result,
    )


@cache
def _linear_window() -> tuple[tuple[Step, ...], dict[str, sympy.Expr], sympy.Symbol, sympy.Symbol]:
    """Steps, the variance of a window's sum, and what stands in it for the sums of autocorrelations."""
    steps, moments = _moments()
    m, v = sympy.symbols("m v", positive=True)
    sum1, sum2 = sympy.symbols("S_1 S_2")
    ratio = m / sympy.sqrt(v)
    at_mean = {m: _MU, v: moments["V"]}
    slope_m, slope_v = (sympy.diff(ratio, x).subs(at_mean) for x in (m, v))
    # after a lag, m remembers by beta1 and v by beta2; of a cross term one order of times follows each
    variance = (
        slope_m**2 * moments["mm"] * sum1
        + slope_v**2 * moments["vv"] * sum2
        + 2 * slope_m * slope_v * moments["mv"] * (sum1 + sum2) / 2
    )
    lag, beta = sympy.Symbol("j", integer=True), sympy.Symbol("beta", positive=True)
    # the sum over all pairs of times of beta^|lag|: a geometric series and its derivative
    geometric = (1 - beta**_WINDOW) / (1 - beta)
    pairs = sympy.simplify(2 * (_WINDOW * geometric - beta * sympy.diff(geometric, beta)) - _WINDOW)
    all_steps = (
        *steps,
        Step("slope of m/sqrt(v) in m", slope_m),
        Step("slope in v", slope_v),
        Step(
            "sum over pairs of times in the window of beta^|lag|",
            sympy.Eq(
                sympy.Sum(
                    (_WINDOW - sympy.Abs(lag)) * beta ** sympy.Abs(lag), (lag, 1 - _WINDOW, _WINDOW - 1)
                ),
                pairs,
            ),
        ),
        Step("variance of the window's sum, S_1 and S_2 that sum for beta1 and beta2", variance),
    )
    parts = {"variance": variance, "pairs": pairs, "beta": beta}
    return all_steps, parts, sum1, sum2


@cache
def _derive_window() -> Derivation:
    steps, parts, sum1, sum2 = _linear_window()
    pairs = {
        total: parts["pairs"].subs(parts["beta"], beta) for total, beta in ((sum1, _BETA1), (sum2, _BETA2))
    }
    in_q = sympy.simplify(parts["variance"].subs(_MU, _Q * _S))
    result = _LR**2 * in_q.subs(pairs)
    return Derivation((*steps, Step("in q = mu/s", in_q), Step("with both sums", result)), result)


@cache
def _derive_long() -> Derivation:
    steps, parts, sum1, sum2 = _linear_window()
    beta = parts["beta"]
    forgotten = sympy.expand(sympy.apart(parts["pairs"].subs(beta**_WINDOW, 0), _WINDOW))
    rate = sympy.factor(forgotten.coeff(_WINDOW, 1))
    per_update = parts["variance"].subs({sum1: rate.subs(beta, _BETA1), sum2: rate.subs(beta, _BETA2)})
    result = _LR**2 * _relative(per_update)
    return Derivation(
        (
            *steps,
            Step("per update in a long window the sum is", rate),
            Step("variance per update", per_update),
            Step("in q = mu/s: the betas have gone", result),
        ),
        result,
    )


@cache
def _derive_short() -> Derivation:
    steps, parts, sum1, _ = _linear_window()
    beta = parts["beta"]
    frozen = sympy.simplify(parts["variance"].subs(_BETA2, 1))
    forgotten = sympy.expand(sympy.apart(parts["pairs"].subs(beta**_WINDOW, 0), _WINDOW))
    rate = sympy.factor(forgotten.coeff(_WINDOW, 1))
    per_update = frozen.subs(sum1, rate.subs(beta, _BETA1))
    result = _LR**2 * _relative(per_update)
    return Derivation(
        (
            *steps,
            Step("v does not move in the window: beta2 to 1 first", frozen),
            Step("per update in a window long against beta1", per_update),
            Step("in q = mu/s", result),
        ),
        result,
    )


@cache
def _derive_step_power() -> Derivation:
    x, z, b = sympy.symbols("x z b", positive=True)
    j = sympy.Symbol("j", integer=True, nonnegative=True)
    normal = sympy.exp(-(x**2) / 2) / sympy.sqrt(2 * sympy.pi)
    plain = sympy.simplify(sympy.integrate(normal * sympy.exp(-b * z * x**2), (x, -sympy.oo, sympy.oo)))
    squared = sympy.simplify(
        sympy.integrate(x**2 * normal * sympy.exp(-b * z * x**2), (x, -sympy.oo, sympy.oo))
    )
    first = (1 - _BETA1) * _BETA1**j / (1 - _BETA1**_UPDATES)
    second = (1 - _BETA2) * _BETA2**j / (1 - _BETA2**_UPDATES)
    share = sympy.simplify(squared / plain).subs(b, second)
    others = sympy.Product(plain.subs(b, second), (j, 0, _UPDATES - 1))
    integrand = sympy.Sum(first**2 * share, (j, 0, _UPDATES - 1)) * others
    result = _LR**2 * sympy.Integral(integrand, (z, 0, sympy.oo))
    return Derivation(
        (
            Step("E[exp(-b z xi^2)]", plain),
            Step("E[xi^2 exp(-b z xi^2)]", squared),
            Step("bias-corrected weight of a gradient j updates old in m", first),
            Step("and of its square in v", second),
            Step("E[m^2 exp(-z v)]: of m^2 only the squares survive the signs", integrand),
            Step("1/v is the integral of exp(-z v)", result),
        ),
        result,
    )


@cache
def _derive_sign(moment: int) -> Derivation:
    x = sympy.Symbol("x", real=True)
    density = sympy.exp(-((x - _Q) ** 2) / 2) / sympy.sqrt(2 * sympy.pi)
    # without memory m/sqrt(v) is the gradient over its own absolute value
    above = sympy.integrate(density, (x, 0, sympy.oo))
    below = sympy.integrate(density, (x, -sympy.oo, 0))
    mean = sympy.simplify((above - below).rewrite(sympy.erf))
    steps = (
        Step("probability of a positive gradient", above),
        Step("mean sign", mean),
    )
    if moment == 1:
        return Derivation(steps, _LR * mean)
    variance = _LR**2 * sympy.simplify(above + below - mean**2)
    return Derivation((*steps, Step("variance of a sign", variance)), variance)


@cache
def _derive_contraction() -> Derivation:
    drift = _derive_drift()
    move = drift.result.subs(_Q, _H * _DISTANCE / _S)
    result = sympy.simplify((_DISTANCE - move) / _DISTANCE)
    return Derivation(
        (
            *drift.steps,
            Step("in a bowl the mean gradient is h x, so q = h x/s", move),
            Step("distance after the update over the distance before", result),
        ),
        result,
    )


@cache
def _derive_descent() -> Derivation:
    contraction = _derive_contraction()
    remaining = sympy.Symbol("remaining", positive=True)
    q = sympy.Symbol("q", positive=True)
    rate = sympy.simplify((1 - contraction.result) * _DISTANCE)  # -dx/dt
    in_q = sympy.simplify((_S / _H) / rate.subs(_DISTANCE, q * _S / _H))  # dt / -dq
    root = sympy.Symbol("r", positive=True)  # sqrt(1 + q^2): dq = r dr/q
    rational = sympy.simplify((in_q * root / q).subs(q, sympy.sqrt(root**2 - 1)))
    primitive = sympy.integrate(sympy.simplify(rational), root)
    at = {
        name: primitive.subs(root, sympy.sqrt(1 + (_H * name / _S) ** 2)) for name in (_DISTANCE, remaining)
    }
    result = at[_DISTANCE] - at[remaining]
    return Derivation(
        (
            *contraction.steps,
            Step("speed at distance x", rate),
            Step("time spent per unit of q = h x/s", in_q),
            Step("per unit of r = sqrt(1 + q^2)", rational),
            Step("its integral", primitive),
            Step("between the two distances", result),
        ),
        result,
    )


@cache
def _derive_noisy_bowl(moment: int) -> Derivation:
    contraction = _derive_contraction()
    far = contraction.result.subs(_DISTANCE, 0)
    k = sympy.Symbol("k", integer=True)
    rho, kick = sympy.symbols("rho c", positive=True)
    y = sympy.Function("y")
    if moment == 1:
        path = sympy.rsolve(y(k + 1) - rho * y(k), y(k), {y(0): _DISTANCE})
        steps: tuple[Step, ...] = (Step("x <- rho x", path),)
        result = path.subs({k: _UPDATES}).subs(rho, far)
    else:
        step = _derive_short().result.subs(_Q, 0)
        path = sympy.rsolve(y(k + 1) - rho**2 * y(k) - kick, y(k), {y(0): 0})
        result = sympy.simplify(path.subs(k, _UPDATES)).subs({rho: far, kick: step})
        steps = (Step("variance of an update", step), Step("variance <- rho^2 variance + c", path))
    return Derivation(
        (*contraction.steps, Step("noise dominates: h x << s", far), *steps, Step("with both", result)),
        result,
    )


@cache
def _derive_noiseless() -> Derivation:
    ratio = sympy.Symbol("path_ratio", positive=True)
    time, arrival = sympy.symbols("t t_a", positive=True)

    def mean(before: sympy.Expr, after: sympy.Expr) -> sympy.Expr:
        return sympy.integrate(before, (time, 0, arrival)) + sympy.integrate(after, (time, arrival, 1))

    one = sympy.Integer(1)
    centre = mean(time / arrival, one)
    covariance = sympy.factor(mean(time**2 / arrival, time) - centre / 2)
    variance = sympy.factor(mean((time / arrival) ** 2, one) - centre**2)
    squared = sympy.factor(covariance**2 / (variance * sympy.Rational(1, 12)))
    result = sympy.factor(squared.subs(arrival, 1 / ratio))
    return Derivation(
        (
            Step("covariance of time and the path min(t/t_a, 1) over a unit window", covariance),
            Step("variance of the path", variance),
            Step("squared correlation", squared),
            Step("arrival after distance/lr of the updates, t_a = 1/path_ratio", result),
        ),
        sympy.Piecewise((1, ratio <= 1), (result, True)),
    )


@cache
def _derive_token_snr() -> Derivation:
    a, b, sign, mean, deviation = sympy.symbols("a b epsilon gamma d")
    tau, clustering = sympy.symbols("tau clustering", positive=True)
    tokens = sympy.Symbol("tokens", integer=True, positive=True)
    decibels = sympy.Symbol("decibels", real=True)
    native = sympy.Symbol("native_snr", nonnegative=True)
    product = sympy.Poly(sympy.expand((a + b * sign) * (mean + deviation)), sign, deviation)
    spread = {(0, 0): 0, (1, 0): 1, (0, 1): tau**2, (1, 1): tau**2}  # eps^2 = 1, E d^2 = tau^2
    parts = {powers: c**2 * spread[powers] for powers, c in product.terms()}
    signal = product.coeff_monomial(1)
    # eps is fresh for each token; what is not multiplied by it is as clustered as the native gradient
    noise = parts[(0, 1)] * clustering / tokens + (parts[(1, 0)] + parts[(1, 1)]) / tokens
    squared = sympy.factor(signal**2 / noise)
    own = sympy.solve(sympy.Eq(squared.subs({a: 1, b: 0}), native**2), mean)
    positive_root = next(root for root in own if root.could_extract_minus_sign() is False)
    in_native = sympy.simplify(squared.subs(mean, positive_root))
    result = sympy.sqrt(sympy.simplify(in_native.subs(b, a * 10 ** (-decibels / 20))))
    return Derivation(
        (
            Step("weighted token gradient (a + b eps)(gamma + d)", product.as_expr()),
            Step("variance of the mean of the batch", noise),
            Step("squared SNR of the batch", squared),
            Step("in terms of the native SNR", in_native),
            Step("decibels are 20 log10(a/b)", result),
        ),
        result,
    )


@cache
def _derive_amplitude() -> Derivation:
    a, b = sympy.symbols("a b", positive=True)
    decibels = sympy.Symbol("decibels", real=True)
    ratio = sympy.solve(sympy.Eq(decibels, 20 * sympy.log(a / b, 10)), b)[0]
    root = next(x for x in sympy.solve(sympy.Eq(a**2 + (a * sympy.Symbol("r", positive=True)) ** 2, 1), a))
    result = root.subs(sympy.Symbol("r", positive=True), sympy.simplify(ratio / a))
    return Derivation(
        (
            Step("b from the decibels", ratio),
            Step("a with b = r a and a^2 + b^2 = 1", root),
            Step("with r", result),
        ),
        result,
    )


def _snr_arguments(
    gradient_snr: ArrayLike, learning_rate: ArrayLike, beta1: ArrayLike, beta2: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Checked arguments, the SNR with its infinities allowed (a coordinate without noise)."""
    try:
        snr = np.asarray(gradient_snr, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument("gradient_snr", f"must be numeric, got {gradient_snr!r}") from error
    if np.any(np.isnan(snr)):
        raise InvalidArgument("gradient_snr", "must not be NaN")
    return (
        snr,
        non_negative("learning_rate", learning_rate),
        decay("beta1", beta1),
        decay("beta2", beta2),
    )


def _angle(snr: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """q/sqrt(1+q^2) and 1/(1+q^2), infinite q included."""
    share = 1 / (1 + snr**2)
    with np.errstate(invalid="ignore"):
        sine = snr * np.sqrt(share)
    return np.where(np.isinf(snr), np.sign(snr), sine), share


def drift(
    gradient_snr: ArrayLike, learning_rate: ArrayLike = 1.0, beta1: ArrayLike = 0.9, beta2: ArrayLike = 0.999
) -> NDArray[np.float64]:
    """Mean step against the gradient, lr q/sqrt(1+q^2).

    Args:
        gradient_snr: q, mean over standard deviation of the gradient; infinite without noise.
        learning_rate: lr, the unit of the result.
        beta1: has no influence at this order (nor has beta2); taken so that the laws share their arguments.
        beta2: as above.

    Raises:
        InvalidArgument: outside the domain (so do all functions of this file).
    """
    snr, rate, _, _ = _snr_arguments(gradient_snr, learning_rate, beta1, beta2)
    return np.asarray(rate * _angle(snr)[0])


def drift_corrected(
    gradient_snr: ArrayLike, learning_rate: ArrayLike = 1.0, beta1: ArrayLike = 0.9, beta2: ArrayLike = 0.999
) -> NDArray[np.float64]:
    """The drift with its first correction, of order 1-beta2; arguments as for `drift`."""
    snr, rate, first, second = _snr_arguments(gradient_snr, learning_rate, beta1, beta2)
    sine, share = _angle(snr)
    spread = 3 / 8 * (1 - second) / (1 + second) * (4 * share - 2 * share**2)  # (4 q^2 + 2)/(1 + q^2)^2
    common = (1 - first) * (1 - second) / (1 - first * second) * share
    return np.asarray(rate * sine * (1 + spread - common))


def diffusion_short(
    gradient_snr: ArrayLike,
    learning_rate: ArrayLike = 1.0,
    beta1: ArrayLike = 0.9,
    beta2: ArrayLike = 0.999,
    window: ArrayLike = 100,
) -> NDArray[np.float64]:
    """Variance gained per update, lr^2/(1+q^2), in windows between 1/(1-beta1) and 1/(1-beta2).

    Args:
        gradient_snr: q.
        learning_rate: lr.
        beta1: it and the following only say where the law is used; they have no influence.
        beta2: as above.
        window: updates in the window; see `window_variance` for the dependence on it.
    """
    whole_number("window", window, 1)
    snr, rate, _, _ = _snr_arguments(gradient_snr, learning_rate, beta1, beta2)
    return np.asarray(rate**2 * _angle(snr)[1])


def diffusion_long(
    gradient_snr: ArrayLike,
    learning_rate: ArrayLike = 1.0,
    beta1: ArrayLike = 0.9,
    beta2: ArrayLike = 0.999,
    window: ArrayLike = 100,
) -> NDArray[np.float64]:
    """Variance gained per update, lr^2 (1+q^2/2)/(1+q^2)^3, in windows beyond 1/(1-beta2); see `diffusion_short`."""
    whole_number("window", window, 1)
    snr, rate, _, _ = _snr_arguments(gradient_snr, learning_rate, beta1, beta2)
    share = _angle(snr)[1]
    return np.asarray(rate**2 * share**2 * (1 + share) / 2)


def window_variance(
    gradient_snr: ArrayLike,
    window: ArrayLike,
    learning_rate: ArrayLike = 1.0,
    beta1: ArrayLike = 0.9,
    beta2: ArrayLike = 0.999,
) -> NDArray[np.float64]:
    """Variance of the displacement over any number of updates, moments stationary, linearised.

    Args:
        gradient_snr: q.
        window: updates in the window, at least 1.
        learning_rate: lr.
        beta1: decay of m, in [0, 1).
        beta2: decay of v, in [0, 1).
    """
    snr, rate, first, second = _snr_arguments(gradient_snr, learning_rate, beta1, beta2)
    count = whole_number("window", window, 1)
    sum1, sum2 = _pair_sum(first, count), _pair_sum(second, count)
    share = _angle(snr)[1]
    drifting = 1 - share  # q^2/(1+q^2)
    own = (1 - first) / (1 + first) * sum1
    squares = drifting * (1 - second) / (1 + second) * (4 * share - 2 * share**2) / 4 * sum2
    common = 2 * drifting * share * (1 - first) * (1 - second) / (1 - first * second) * (sum1 + sum2) / 2
    return np.asarray(rate**2 * (share * own + squares - common))


def _pair_sum(beta: NDArray[np.float64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum over all pairs of times in a window of beta^|lag|."""
    forgotten = 1 - beta**count
    return np.asarray((count * (1 - beta**2) - 2 * beta * forgotten) / (1 - beta) ** 2)


def pure_noise_step_power(
    updates: ArrayLike, learning_rate: ArrayLike = 1.0, beta1: ArrayLike = 0.9, beta2: ArrayLike = 0.999
) -> NDArray[np.float64]:
    """Mean square of the update number `updates` (bias-corrected) under pure Gaussian noise: exact.

    Args:
        updates: number of the update, from 1 to 200,000.
        learning_rate: lr.
        beta1: decay of m.
        beta2: decay of v; at 0 the mean square is infinite unless m has no memory either.
    """
    number = whole_number("updates", updates, 1)
    if np.any(number > MOST_UPDATES):
        raise InvalidArgument("updates", f"at most {MOST_UPDATES}, got {updates!r}")
    rate, first, second = (
        non_negative("learning_rate", learning_rate),
        decay("beta1", beta1),
        decay("beta2", beta2),
    )
    number, rate, first, second = np.broadcast_arrays(number, rate, first, second)
    value = np.empty(number.shape)
    for cell in np.ndindex(value.shape):
        power = _step_power(int(number[cell]), float(first[cell]), float(second[cell]))
        value[cell] = rate[cell] ** 2 * power
    return value


def _step_power(updates: int, beta1: float, beta2: float) -> float:
    if updates == 1 or (beta1 == 0 and beta2 == 0):
        return 1.0
    if beta2 == 0:
        return float("inf")
    age = np.arange(updates)
    first = (1 - beta1) * beta1**age / (1 - beta1**updates)
    log_second = np.log1p(-beta2) + age * np.log(beta2) - np.log1p(-(beta2**updates))
    kept = log_second > -300
    # the integrand is analytic in log z in a strip of half-width pi: the trapezoid rule errs by exp(-2 pi^2/h)
    step = 0.25
    logs = np.arange(-40.0, 90.0 - log_second[kept].min(), step)
    total = np.empty_like(logs)
    for start in range(0, len(logs), 64):
        z = logs[start : start + 64, None]
        growth = np.logaddexp(0.0, np.log(2.0) + z + log_second[kept])
        total[start : start + 64] = (
            ((first[kept] ** 2) * np.exp(-growth)).sum(1) + (first[~kept] ** 2).sum()
        ) * np.exp(z[:, 0] - growth.sum(1) / 2)
    return float(step * total.sum())


def sign_step_mean(gradient_snr: ArrayLike, learning_rate: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Mean step without any memory (beta1 = beta2 = 0), lr erf(q/sqrt(2)): Adam is then sign descent."""
    snr, rate, _, _ = _snr_arguments(gradient_snr, learning_rate, 0.0, 0.0)
    return np.asarray(rate * special.erf(snr / np.sqrt(2)))


def sign_step_variance(gradient_snr: ArrayLike, learning_rate: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Variance of that step, lr^2 (1 - erf(q/sqrt(2))^2); steps are independent, so also the diffusion."""
    snr, rate, _, _ = _snr_arguments(gradient_snr, learning_rate, 0.0, 0.0)
    return np.asarray(rate**2 * (1 - special.erf(snr / np.sqrt(2)) ** 2))


def contraction(
    distance: ArrayLike, curvature: ArrayLike, noise: ArrayLike, learning_rate: ArrayLike
) -> NDArray[np.float64]:
    """Factor on the mean distance in one update, 1 - lr h/sqrt(h^2 x^2 + s^2).

    Args:
        distance: x, from the bottom of the bowl, in units of the weight; only its size matters.
        curvature: h, not negative: gradient = h x + noise.
        noise: s, standard deviation of the gradient of an update.
        learning_rate: lr; lr/sqrt(h^2 x^2 + s^2) is the effective rate.

    Returns:
        The factor; negative when an update overshoots; 1 where the gradient is always zero.
    """
    x, slope = finite("distance", distance), non_negative("curvature", curvature)
    deviation, rate = non_negative("noise", noise), non_negative("learning_rate", learning_rate)
    size = np.hypot(slope * x, deviation)
    rate_h, size = np.broadcast_arrays(rate * slope, size)
    return 1 - np.divide(rate_h, size, out=np.zeros(size.shape), where=size > 0)


def descent_time(
    distance: ArrayLike,
    remaining: ArrayLike,
    curvature: ArrayLike,
    noise: ArrayLike,
    learning_rate: ArrayLike,
) -> NDArray[np.float64]:
    """Updates until the mean distance has fallen from `distance` to `remaining`, v keeping pace.

    s/(lr h) [F(h x_0/s) - F(h x_1/s)], F(q) = sqrt(1+q^2) - arsinh(1/q). Without noise (distance - remaining)/lr.

    Args:
        distance: x_0, positive.
        remaining: x_1, positive, at most x_0.
        curvature: h, positive.
        noise: s, not negative.
        learning_rate: lr, positive.
    """
    start, end = positive("distance", distance), positive("remaining", remaining)
    if np.any(end > start):
        raise InvalidArgument("remaining", f"must not exceed the distance, got {remaining!r}")
    slope, deviation = positive("curvature", curvature), non_negative("noise", noise)
    rate = positive("learning_rate", learning_rate)
    unit = deviation / slope  # the distance at which q = 1
    travelled = np.hypot(start, unit) - np.hypot(end, unit)
    waited = unit * (np.arcsinh(unit / end) - np.arcsinh(unit / start))
    return np.asarray((travelled + waited) / rate)


def noisy_bowl_mean(
    updates: ArrayLike, distance: ArrayLike, curvature: ArrayLike, noise: ArrayLike, learning_rate: ArrayLike
) -> NDArray[np.float64]:
    """Mean distance when noise dominates (h x << s): x_0 (1 - lr h/s)^T.

    Args:
        updates: T, at least 0.
        distance: x_0.
        curvature: h, not negative.
        noise: s, positive.
        learning_rate: lr.
    """
    count, _, rho = _noisy_bowl(updates, curvature, noise, learning_rate)
    return np.asarray(finite("distance", distance) * rho**count)


def noisy_bowl_variance(
    updates: ArrayLike, curvature: ArrayLike, noise: ArrayLike, learning_rate: ArrayLike
) -> NDArray[np.float64]:
    """Variance of the distance when noise dominates: lr^2 (1 - rho^2T)/(1 - rho^2), rho = 1 - lr h/s.

    Without curvature it is lr^2 T. Arguments as for `noisy_bowl_mean`.
    """
    count, rate, rho = _noisy_bowl(updates, curvature, noise, learning_rate)
    count, rate, rho = np.broadcast_arrays(count, rate, rho)
    square = rho**2
    flat = square == 1
    total = np.divide(1 - square**count, 1 - square, out=count.astype(np.float64), where=~flat)
    return np.asarray(rate**2 * total)


def _noisy_bowl(
    updates: ArrayLike, curvature: ArrayLike, noise: ArrayLike, learning_rate: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    rate = non_negative("learning_rate", learning_rate)
    rho = 1 - rate * non_negative("curvature", curvature) / positive("noise", noise)
    return whole_number("updates", updates, 0), rate, np.asarray(rho)


def noiseless_r_squared(path_ratio: ArrayLike) -> NDArray[np.float64]:
    """R^2 of Adam's noiseless descent: at full speed lr to the bottom, then still.

    With r = lr T/distance, 1 up to r = 1, then (3r - 2)^2/(r^2 (4r - 3)). Checkpoints dense; v keeps pace
    with the gradient (T and the arrival much later than 1/(1-beta2)); without that, v remembers larger gradients,
    the approach is smoother and R^2 higher.

    Args:
        path_ratio: r, positive.
    """
    ratio = positive("path_ratio", path_ratio)
    late = np.maximum(ratio, 1.0)
    return np.asarray((3 * late - 2) ** 2 / (late**2 * (4 * late - 3)))


def token_snr(
    decibels: ArrayLike, native_snr: ArrayLike, tokens: ArrayLike, clustering: ArrayLike = 1.0
) -> NDArray[np.float64]:
    """Gradient SNR q of a batch whose token losses are weighted a + b eps, at a token SNR in decibels.

    q = q_0/sqrt(1 + r^2 (1/D + q_0^2/N)), r = b/a = 10^(-dB/20): a and b enter by their ratio alone, and at
    high SNR q is the native q_0, never more.

    Args:
        decibels: 20 log10(a/b); infinite for no sign noise, minus infinity for no signal.
        native_snr: q_0 of the batch without sign noise, not negative.
        tokens: N in the batch.
        clustering: D, variance of the native batch gradient over that of independent tokens, positive;
            above 1 where tokens of a sequence agree (sign noise is independent per token in any case).
    """
    try:
        level = np.asarray(decibels, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument("decibels", f"must be numeric, got {decibels!r}") from error
    if np.any(np.isnan(level)):
        raise InvalidArgument("decibels", "must not be NaN")
    native = non_negative("native_snr", native_snr)
    injected = 1 / positive("clustering", clustering) + native**2 / whole_number("tokens", tokens, 1)
    with np.errstate(over="ignore"):
        return np.asarray(native / np.sqrt(1 + 10 ** (-level / 10) * injected))


def signal_amplitude(decibels: ArrayLike) -> NDArray[np.float64]:
    """a of a^2 + b^2 = 1 at 20 log10(a/b) decibels: by it the drift of plain gradient descent shrinks."""
    try:
        level = np.asarray(decibels, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument("decibels", f"must be numeric, got {decibels!r}") from error
    if np.any(np.isnan(level)):
        raise InvalidArgument("decibels", "must not be NaN")
    with np.errstate(over="ignore"):
        return np.asarray(1 / np.sqrt(1 + 10 ** (-level / 10)))


_STATIONARY = (
    "gradient Gaussian, independent in time, of constant mean and variance",
    "moments m and v stationary; epsilon, weight decay and clipping zero",
)
_BOWL = (
    "quadratic bowl, one coordinate (or a diagonal one)",
    "Gaussian noise of constant variance, independent in time",
    "epsilon, weight decay and clipping zero",
)


def _points(names: str, *cells: tuple[float, ...], tolerances: tuple[float, ...] = ()) -> tuple[Point, ...]:
    admitted = tolerances or (0.0,) * len(cells)
    return tuple(
        Point(dict(zip(names.split(), cell, strict=True)), tolerance)
        for cell, tolerance in zip(cells, admitted, strict=True)
    )


PREDICTION = Prediction(
    number=7,
    name="adam",
    title="Adam under noise",
    laws=(
        Law(
            "drift",
            "The mean step of a coordinate is lr q/sqrt(1+q^2).",
            _STATIONARY,
            _derive_drift,
            drift,
            _points(
                "gradient_snr learning_rate beta1 beta2",
                (0.0, 1.0, 0.9, 0.999),
                (0.1, 1.0, 0.9, 0.999),
                (1.0, 0.5, 0.9, 0.999),
                (-3.0, 1.0, 0.9, 0.99),
                (0.3, 1.0, 0.0, 0.99),
                (1.0, 1.0, 0.9, 0.5),
                tolerances=(0.0, 1e-4, 2e-4, 1e-3, 3e-3, 0.15),
            ),
            order="relative error of order 1-beta2; breaks at small beta2, where the step nears a sign",
        ),
        Law(
            "drift_corrected",
            "The mean step with its correction of order 1-beta2, from the fluctuations of v and those m shares.",
            _STATIONARY,
            _derive_corrected_drift,
            drift_corrected,
            _points(
                "gradient_snr learning_rate beta1 beta2",
                (0.0, 1.0, 0.9, 0.999),
                (0.3, 1.0, 0.0, 0.99),
                (1.0, 1.0, 0.9, 0.95),
                (2.0, 1.0, 0.5, 0.9),
                (1.0, 1.0, 0.9, 0.5),
                tolerances=(0.0, 1e-4, 2e-3, 3e-3, 0.1),
            ),
            order="relative error of order (1-beta2)^2; breaks at small beta2",
        ),
        Law(
            "window_variance",
            "Variance of the displacement over a window of any length, from the memories of m and v.",
            (*_STATIONARY, "linearised in the fluctuations of m and v"),
            _derive_window,
            window_variance,
            _points(
                "gradient_snr window learning_rate beta1 beta2",
                (0.0, 1, 1.0, 0.9, 0.999),
                (0.0, 100, 1.0, 0.9, 0.99),
                (0.5, 30, 1.0, 0.9, 0.99),
                (1.0, 1000, 1.0, 0.9, 0.99),
                (2.0, 300, 1.0, 0.5, 0.98),
                (1.0, 50, 1.0, 0.0, 0.5),
                tolerances=(5e-5, 1.2, 0.06, 4.0, 0.6, 4.5),
            ),
            order="relative error of order 1-beta2; breaks at small beta2",
        ),
        Law(
            "diffusion_short",
            "In windows that beta1 forgets and beta2 does not, the variance per update is lr^2/(1+q^2).",
            (*_STATIONARY, "1/(1-beta1) << window << 1/(1-beta2)"),
            _derive_short,
            diffusion_short,
            _points(
                "gradient_snr learning_rate beta1 beta2 window",
                (0.0, 1.0, 0.0, 0.999, 30),
                (0.5, 1.0, 0.5, 0.9995, 60),
                (1.0, 1.0, 0.0, 0.999, 30),
                (3.0, 0.1, 0.0, 0.999, 30),
                tolerances=(0.003, 0.03, 0.015, 5e-5),
            ),
            order="relative error of order window (1-beta2) and 1/(window (1-beta1))",
        ),
        Law(
            "diffusion_long",
            "In windows that both betas forget, it is lr^2 (1+q^2/2)/(1+q^2)^3: v covaries with m.",
            (*_STATIONARY, "window >> 1/(1-beta2)"),
            _derive_long,
            diffusion_long,
            _points(
                "gradient_snr learning_rate beta1 beta2 window",
                (0.0, 1.0, 0.9, 0.99, 2000),
                (0.5, 1.0, 0.9, 0.99, 2000),
                (1.0, 1.0, 0.5, 0.98, 1000),
                (2.0, 1.0, 0.9, 0.99, 2000),
                (0.2, 1.0, 0.0, 0.998, 10_000),
                (1.0, 1.0, 0.0, 0.5, 200),
                tolerances=(0.02, 0.015, 0.025, 0.01, 0.004, 0.12),
            ),
            order="relative error of order 1-beta2 and short/long x 1/(window (1-beta2)); breaks at small beta2",
        ),
        Law(
            "pure_noise_step_power",
            "Mean square of an update under pure noise, bias correction included: a one-dimensional integral.",
            (
                "gradient Gaussian of mean zero, independent in time",
                "epsilon, weight decay and clipping zero",
            ),
            _derive_step_power,
            pure_noise_step_power,
            _points(
                "updates learning_rate beta1 beta2",
                (1, 1.0, 0.9, 0.999),
                (2, 1.0, 0.9, 0.999),
                (5, 0.5, 0.9, 0.99),
                (20, 1.0, 0.9, 0.999),
                (10, 1.0, 0.5, 0.3),
                (8, 1.0, 0.0, 0.9),
            ),
        ),
        Law(
            "sign_step_mean",
            "Without memory Adam is sign descent: the mean step is lr erf(q/sqrt(2)), not lr q/sqrt(1+q^2).",
            (_STATIONARY[0], "beta1 = beta2 = 0"),
            lambda: _derive_sign(1),
            sign_step_mean,
            _points("gradient_snr learning_rate", (0.0, 1.0), (0.1, 1.0), (1.0, 0.5), (-3.0, 1.0)),
        ),
        Law(
            "sign_step_variance",
            "Without memory the steps are independent signs of variance lr^2 (1 - erf(q/sqrt(2))^2).",
            (_STATIONARY[0], "beta1 = beta2 = 0"),
            lambda: _derive_sign(2),
            sign_step_variance,
            _points("gradient_snr learning_rate", (0.0, 1.0), (0.1, 1.0), (1.0, 0.5), (-3.0, 1.0)),
        ),
        Law(
            "contraction",
            "In a bowl an update shrinks the mean distance by 1 - lr h/sqrt(h^2 x^2 + s^2): noise slows it.",
            (*_BOWL, "m and v keep pace with the gradient"),
            _derive_contraction,
            contraction,
            _points(
                "distance curvature noise learning_rate",
                (1.0, 1.0, 0.1, 0.01),
                (0.1, 1.0, 1.0, 0.01),
                (0.5, 2.0, 3.0, 0.1),
                (1.0, 0.0, 1.0, 0.1),
                (1.0, 1.0, 0.0, 0.01),
                tolerances=(1e-5, 5e-5, 1e-4, 0.0, 0.0),
            ),
            order="relative error of order 1-beta2 in the step",
        ),
        Law(
            "descent_time",
            "Updates to descend: distance/lr from where the gradient exceeds the noise, then ever longer.",
            (*_BOWL, "v keeps pace with the gradient; fluctuations of the distance small"),
            _derive_descent,
            descent_time,
            _points(
                "distance remaining curvature noise learning_rate",
                (1.0, 0.1, 1.0, 0.3, 1e-3),
                (1.0, 0.5, 1.0, 3.0, 1e-3),
                (1.0, 0.1, 1.0, 1.0, 1e-3),
                (2.0, 2.0, 1.0, 1.0, 1e-3),
                (1.0, 0.5, 1.0, 1.0, 1e-4),
                tolerances=(70.0, 40.0, 40.0, 0.0, 60.0),
            ),
            order="late by order log(distance/remaining)/(1-beta2) updates (betas .9, .98 at the points), as v lags",
        ),
        Law(
            "noisy_bowl_mean",
            "When noise dominates, the mean distance is x_0 (1 - lr h/s)^T: AR(1), as under gradient descent.",
            (*_BOWL, "h x << s"),
            lambda: _derive_noisy_bowl(1),
            noisy_bowl_mean,
            _points(
                "updates distance curvature noise learning_rate",
                (0, 1.0, 1.0, 20.0, 0.05),
                (400, 1.0, 1.0, 20.0, 0.05),
                (1000, 1.0, 1.0, 20.0, 0.05),
                (300, 1.0, 0.0, 1.0, 0.01),
                (400, 1.0, 1.0, 0.5, 2e-3),
                (2000, 1.0, 1.0, 10.0, 2.5e-3),
                tolerances=(0.0, 0.01, 0.006, 0.0, 0.25, 0.003),
            ),
            order="error of order (h x_0/s)^2, 1/(T(1-beta1)) and 1-beta2; breaks at h x_0 near s",
        ),
        Law(
            "noisy_bowl_variance",
            "When noise dominates, the distance has the variance lr^2 (1-rho^2T)/(1-rho^2), whatever s but by rho.",
            (*_BOWL, "h x << s"),
            lambda: _derive_noisy_bowl(2),
            noisy_bowl_variance,
            _points(
                "updates curvature noise learning_rate",
                (0, 1.0, 20.0, 0.05),
                (400, 1.0, 20.0, 0.05),
                (1000, 1.0, 20.0, 0.05),
                (300, 0.0, 1.0, 0.01),
                (20_000, 1.0, 20.0, 1e-3),
                tolerances=(0.0, 0.02, 0.01, 3e-3, 3e-5),
            ),
            order="relative error of order 1/(T(1-beta1)) and 1-beta2",
        ),
        Law(
            "noiseless_r_squared",
            "Noiseless Adam walks at full speed to the bottom and stops: R^2 falls with lr T/distance.",
            (*_BOWL[:1], "no noise; v keeps pace with the gradient; checkpoints dense"),
            _derive_noiseless,
            noiseless_r_squared,
            _points(
                "path_ratio",
                (0.5,),
                (1.0,),
                (2.0,),
                (5.0,),
                (20.0,),
                tolerances=(1e-3, 1e-3, 0.01, 0.015, 0.02),
            ),
            order="error of order 1/(T(1-beta2)) and lr/distance",
        ),
        Law(
            "token_snr",
            "Token sign noise in decibels becomes gradient SNR, the native noise of the batch included.",
            ("sign noise independent per token", "optimiser indifferent to the size of the gradient"),
            _derive_token_snr,
            token_snr,
            _points(
                "decibels native_snr tokens clustering",
                (10.0, 1.0, 64, 1.0),
                (0.0, 0.3, 256, 4.0),
                (-10.0, 2.0, 32, 0.5),
                (-20.0, 0.0, 32, 1.0),
                (3.0, 1.5, 8, 1.0),
            ),
        ),
        Law(
            "signal_amplitude",
            "Where a^2 + b^2 = 1, the amplitude of the signal is a = 1/sqrt(1 + 10^(-dB/10)).",
            ("loss weight a + b eps",),
            _derive_amplitude,
            signal_amplitude,
            _points("decibels", (10.0,), (0.0,), (-20.0,)),
        ),
        Law(
            "bowl_path_mean",
            "Adam's mean path into a bowl, from a point and moments of zero, update by update.",
            (*_BOWL, "linearised in the fluctuations about the mean path"),
            derive_path_mean,
            bowl_path_mean,
            _points(
                "updates distance curvature noise learning_rate beta1 beta2",
                (1, 1.0, 1.0, 0.05, 0.1, 0.9, 0.99),
                (2, 1.0, 1.5, 0.1, 0.1, 0.9, 0.999),
                (1000, 1.0, 1.0, 0.3, 1e-3, 0.9, 0.999),
                (1000, 1.0, 1.0, 3.0, 2e-3, 0.9, 0.999),
                (1000, 1.0, 1.0, 30.0, 0.02, 0.9, 0.999),
                (1000, 1.0, 1.0, 1.0, 1e-3, 0.0, 0.5),
                tolerances=(1e-3, 1e-3, 1e-3, 2e-3, 2e-3, 0.06),
            ),
            order="relative error of order 1-beta2, and of one update at the start; breaks at small beta2",
        ),
        Law(
            "bowl_path_covariance",
            "Covariance of two of Adam's positions on its way into a bowl.",
            (*_BOWL, "linearised in the fluctuations about the mean path"),
            derive_path_covariance,
            bowl_path_covariance,
            _points(
                "first second distance curvature noise learning_rate beta1 beta2",
                (0, 2, 1.0, 1.0, 0.1, 0.1, 0.9, 0.99),
                (2, 2, 1.0, 1.5, 0.05, 0.1, 0.9, 0.999),
                (1, 2, 1.0, 1.0, 0.05, 0.1, 0.9, 0.99),
                (500, 1000, 1.0, 1.0, 0.3, 1e-3, 0.9, 0.999),
                (4000, 4000, 1.0, 1.0, 3.0, 5e-4, 0.9, 0.999),
                (400, 1000, 1.0, 1.0, 30.0, 0.02, 0.9, 0.999),
                (1000, 1000, 1.0, 1.0, 1.0, 1e-3, 0.0, 0.5),
                tolerances=(0.0, 2e-8, 5e-8, 1e-6, 1.5e-6, 2e-3, 3e-5),
            ),
            order="relative error of order 1-beta2, and of one update at the start; breaks at small beta2",
        ),
        Law(
            "bowl_mean_r_squared",
            "E[R^2] of Adam in a bowl at equally spaced checkpoints: the Gaussian one, of this mean and covariance.",
            (*_BOWL, "linearised in the fluctuations about the mean path, which are then Gaussian"),
            derive_mean_r_squared,
            bowl_mean_r_squared,
            _points(
                "path_ratio noise_ratio updates checkpoints beta1 beta2",
                (0.5, 0.05, 2, 3, 0.9, 0.99),
                (0.2, 0.1, 2, 3, 0.5, 0.999),
                (2.0, 0.0, 1300, 14, 0.9, 0.999),
                (2.0, 3.0, 1300, 14, 0.9, 0.999),
                (20.0, 1.0, 1300, 14, 0.9, 0.999),
                (20.0, 10.0, 1300, 14, 0.9, 0.999),
                (0.5, 30.0, 1300, 14, 0.9, 0.999),
                (5.0, 10.0, 1300, 14, 0.9, 0.95),
                (2.0, 3.0, 13, 14, 0.9, 0.999),
                (20.0, 3.0, 1300, 14, 0.0, 0.5),
                tolerances=(1e-4, 1e-4, 1e-4, 5e-4, 2e-3, 6e-3, 6e-3, 5e-3, 0.04, 0.09),
            ),
            order="within .02 from some 60 updates on; breaks at small beta2 and at one update a checkpoint",
        ),
    ),
)
