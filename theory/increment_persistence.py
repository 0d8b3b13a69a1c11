"""Persistence of increments: the lag cosine that each kind of motion shows.

The displacement over a window of L updates is compared with the one `lag` windows later (lag 1: the next). The
cosine here is the ratio of expectations E[D_0 . D_lag]/E[D_0 . D_0], pooled over coordinates by energy and not
centred: a constant drift counts as persistence. It is what the cosine of two displacement vectors tends to when the
coordinates are many.

Families: drift in white noise (rises with L), fractional motion (Mandelbrot and Van Ness 1968: independent of L),
Ornstein-Uhlenbeck (negative), a slowly turning drift in noise, and white gradients through momentum, which fakes
persistence at short spacing (.53, .21, .05 for beta1 = .9 at spacing 10, 30, 100).
`signal_to_noise` is always |mean|/standard deviation of one update, pooled: the d of science's d² L/(1 + d² L).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

from theory.prediction import (
    Derivation,
    InvalidArgument,
    Law,
    Point,
    Prediction,
    Step,
    finite,
    identity,
    non_negative,
    positive,
    whole_number,
)

Array = NDArray[np.float64]


def drift_cosine(signal_to_noise: ArrayLike, window: ArrayLike) -> Array:
    """Constant drift in white noise: q² L/(1 + q² L) at every lag.

    Args:
        signal_to_noise: q per update, 0 or more; inf gives 1.
        window: L, updates, 1 or more.

    Raises:
        InvalidArgument: an argument out of range.
    """
    q = non_negative("signal_to_noise", signal_to_noise, infinite=True)
    power = q**2 * whole_number("window", window, 1)
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(power), 1.0, power / (1 + power))


def fractional_cosine(hurst: ArrayLike, lag: ArrayLike) -> Array:
    """Fractional Brownian motion: (|k+1|^2H - 2|k|^2H + |k-1|^2H)/2, 2^(2H-1) - 1 at lag 1, whatever the window.

    Args:
        hurst: H in (0, 1]; 1/2 is the walk, 1 a straight line.
        lag: k, windows, 1 or more.

    Raises:
        InvalidArgument: an argument out of range.
    """
    exponent = 2 * positive("hurst", hurst)
    if np.any(exponent > 2):
        raise InvalidArgument("hurst", f"must lie in (0, 1], got {hurst!r}")
    k = whole_number("lag", lag, 1).astype(np.float64)
    return np.asarray(((k + 1) ** exponent - 2 * k**exponent + (k - 1) ** exponent) / 2)


def restoring_cosine(curvature_window: ArrayLike, lag: ArrayLike) -> Array:
    """Stationary Ornstein-Uhlenbeck (jitter in a bowl): -exp(-(k-1) a)(1 - exp(-a))/2, never positive.

    Args:
        curvature_window: a = -log(rho) x updates in a window, 0 or more; 0 is the walk, inf white positions.
        lag: k, windows, 1 or more.

    Raises:
        InvalidArgument: an argument out of range.
    """
    a = non_negative("curvature_window", curvature_window, infinite=True)
    k = whole_number("lag", lag, 1)
    with np.errstate(invalid="ignore"):
        older = np.where(k == 1, 1.0, np.exp(-np.where(k == 1, 0.0, a * (k - 1))))
    return np.asarray(older * np.expm1(-a) / 2)


def turning_cosine(signal_to_noise: ArrayLike, memory: ArrayLike, window: ArrayLike, lag: ArrayLike) -> Array:
    """A drift of steady size whose direction decorrelates as memory^updates, in white noise.

    Args:
        signal_to_noise: q per update, 0 or more; inf is no noise.
        memory: cosine of the drift with itself one update later, in [0, 1]; 1 is a constant drift.
        window: L, updates, 1 or more.
        lag: k, windows, 1 or more.

    Raises:
        InvalidArgument: an argument out of range.
    """
    q = non_negative("signal_to_noise", signal_to_noise, infinite=True)
    size, k, c = whole_number("window", window, 1), whole_number("lag", lag, 1), _unit("memory", memory)
    within, between = correlation_sums(c, size, k)
    share = _share(q)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(share * between / (share * within + (1 - share) * size))


def rotating_cosine(signal_to_noise: ArrayLike, angle: ArrayLike, window: ArrayLike, lag: ArrayLike) -> Array:
    """A drift of steady size that rotates in a plane at a steady rate, in white noise.

    Args:
        signal_to_noise: q per update, 0 or more; inf is no noise.
        angle: radians per update; 0 is a constant drift.
        window: L, updates, 1 or more.
        lag: k, windows, 1 or more.

    Raises:
        InvalidArgument: an argument out of range.
    """
    q, turn = non_negative("signal_to_noise", signal_to_noise, infinite=True), finite("angle", angle)
    size, k = whole_number("window", window, 1), whole_number("lag", lag, 1)
    half = np.remainder(turn, 2 * np.pi) / 2
    whole = np.isclose(np.sin(half), 0.0, atol=1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        length = np.where(whole, size, np.sin(size * half) / np.sin(half)) ** 2
        share = _share(q)
        energy = share * length + (1 - share) * size
        return np.asarray(share * length * np.cos(turn * size * k) / energy)


def momentum_cosine(
    beta: ArrayLike, window: ArrayLike, lag: ArrayLike = 1, signal_to_noise: ArrayLike = 0.0
) -> Array:
    """White gradients (and a constant one) through an exponential moving average: persistence that momentum fakes.

    Args:
        beta: momentum, in [0, 1); 0 is no momentum.
        window: L, updates between checkpoints, 1 or more.
        lag: k, windows, 1 or more.
        signal_to_noise: q = |mean|/std of one update's gradient, before the average; 0 or more.

    Raises:
        InvalidArgument: an argument out of range.
    """
    c = _unit("beta", beta)
    if np.any(c == 1):
        raise InvalidArgument("beta", "must be below 1")
    q = non_negative("signal_to_noise", signal_to_noise, infinite=True)
    size, k = whole_number("window", window, 1), whole_number("lag", lag, 1)
    within, between = correlation_sums(c, size, k)
    gain = (1 - c) / (1 + c)  # variance left of a white gradient
    share = _share(q)
    drift = share * size.astype(np.float64) ** 2
    return np.asarray((drift + (1 - share) * gain * between) / (drift + (1 - share) * gain * within))


def momentum_split_half(beta: ArrayLike, window: ArrayLike, n: ArrayLike) -> Array:
    """Cosine of the summed odd with the summed even displacements of pure noise under momentum: alike by accident.

    Args:
        beta: momentum, in [0, 1).
        window: updates between checkpoints, 1 or more.
        n: checkpoints, 3 or more (n - 1 displacements, split into odd and even).

    Raises:
        InvalidArgument: an argument out of range.
    """
    c, size, count = np.broadcast_arrays(
        _unit("beta", beta), whole_number("window", window, 1), whole_number("n", n, 3)
    )
    if np.any(c == 1):
        raise InvalidArgument("beta", "must be below 1")
    result = np.empty(c.shape)
    for index in np.ndindex(c.shape):
        displacements = int(count[index]) - 1
        gaps = np.arange(1, displacements)
        within, between = correlation_sums(c[index], size[index], gaps)
        by_gap = np.concatenate([within[:1], between])
        odd = np.arange(displacements) % 2 == 1
        covariance = by_gap[np.abs(np.subtract.outer(np.arange(displacements), np.arange(displacements)))]
        cross = covariance[odd][:, ~odd].sum()
        result[index] = cross / np.sqrt(covariance[odd][:, odd].sum() * covariance[~odd][:, ~odd].sum())
    return result


def correlation_sums(correlation: ArrayLike, window: ArrayLike, lag: ArrayLike) -> tuple[Array, Array]:
    """Sums of c^|i-j| over pairs of updates within a window, and between windows `lag` apart.

    Args:
        correlation: c per update, in [0, 1].
        window: L, updates, 1 or more.
        lag: k, windows, 1 or more.

    Returns:
        both sums, unchecked arguments broadcast.
    """
    ratio, size, gap = np.broadcast_arrays(
        np.asarray(correlation, dtype=np.float64),
        np.asarray(window, dtype=np.float64),
        np.asarray(lag, dtype=np.float64),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = -np.expm1(size * np.log(ratio))  # 1 - c^L
        side = np.where(ratio == 1, size, reach / (1 - ratio))
        within = (size * (1 - ratio**2) - 2 * ratio * reach) / (1 - ratio) ** 2
    between = ratio ** ((gap - 1) * size + 1) * side**2
    # the closed form cancels as c nears 1: there the sum itself
    within = np.array(within)
    for index in np.argwhere((1 - ratio) * size < 0.01):
        cell = tuple(index)
        apart = np.arange(1, int(size[cell]))
        within[cell] = size[cell] + 2 * ((size[cell] - apart) * ratio[cell] ** apart).sum()
    return within, between


def _share(signal_to_noise: Array) -> Array:
    with np.errstate(invalid="ignore"):
        ratio = signal_to_noise**2 / (1 + signal_to_noise**2)
    return np.where(np.isinf(signal_to_noise), 1.0, ratio)


def _unit(argument: str, value: ArrayLike) -> Array:
    array = finite(argument, value)
    if np.any((array < 0) | (array > 1)):
        raise InvalidArgument(argument, f"must lie in [0, 1], got {value!r}")
    return array


# ----------------------------------------------------------------------------------------------------------------
# Derivations
# ----------------------------------------------------------------------------------------------------------------

_L = sympy.Symbol("window", integer=True, positive=True)
_k = sympy.Symbol("lag", integer=True, positive=True)
_q = sympy.Symbol("signal_to_noise", nonnegative=True)
_i = sympy.Symbol("i", integer=True, nonnegative=True)
_j = sympy.Symbol("j", integer=True, nonnegative=True)


@cache
def _drift_derivation() -> Derivation:
    drift = sympy.summation(sympy.summation(_q**2, (_j, 0, _L - 1)), (_i, 0, _L - 1))
    noise = sympy.summation(1, (_i, 0, _L - 1))
    result = sympy.cancel(drift / (drift + noise))
    return Derivation(
        (
            Step("E[D_0 . D_k], noise of unit variance an update", drift),
            Step("noise of one window", noise),
            Step("cosine", result),
        ),
        result,
    )


@cache
def _fractional_derivation() -> Derivation:
    hurst = sympy.Symbol("hurst", positive=True)
    s, t = sympy.symbols("s t", positive=True)

    def covariance(a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
        exponent = 2 * hurst
        return (a**exponent + b**exponent - sympy.Abs(sympy.factor(a - b)) ** exponent) / 2

    start, end = _L * _k, _L * (_k + 1)
    cross = covariance(_L, end) - covariance(_L, start)  # the process starts at 0
    energy = covariance(_L, _L)
    result = sympy.simplify(sympy.expand(sympy.expand_power_base(cross / energy, force=True)))
    first = identity("at lag 1", sympy.simplify(result.subs(_k, 1)), 2 ** (2 * hurst - 1) - 1)
    return Derivation(
        (
            Step("covariance of fractional motion", covariance(s, t)),
            Step("E[D_0 D_k]", cross),
            first,
            Step("over E[D_0²]: the window cancels", result),
        ),
        result,
    )


@cache
def _restoring_derivation() -> Derivation:
    a = sympy.Symbol("curvature_window", positive=True)

    def covariance(gap: sympy.Expr) -> sympy.Expr:
        return sympy.exp(-a * gap)

    cross = 2 * covariance(_k) - covariance(_k - 1) - covariance(_k + 1)
    energy = 2 * covariance(sympy.Integer(0)) - 2 * covariance(sympy.Integer(1))
    result = sympy.simplify(sympy.expand(cross) / energy)
    return Derivation(
        (
            Step("E[D_0 D_k] from the covariance exp(-a |k|) of positions", cross),
            Step("E[D_0²]", energy),
            Step("cosine", result),
        ),
        result,
    )


@cache
def _geometric_sums(name: str) -> tuple[sympy.Expr, sympy.Expr, tuple[Step, ...]]:
    c = sympy.Symbol(name, positive=True)

    def series(first: sympy.Expr, last: sympy.Expr) -> sympy.Expr:
        total = sympy.summation(c**_j, (_j, first, last))
        return total.args[-1][0] if isinstance(total, sympy.Piecewise) else total

    one = series(sympy.Integer(0), _L - 1)
    # i in the first window, j in the later: c^(k L + j - i) factorises
    between = c ** (_k * _L - _L + 1) * one**2
    # within a window: L diagonal terms and (L - r) pairs r apart, twice
    r = sympy.Symbol("r", integer=True, positive=True)
    pairs = one.subs(_L, r)
    within = sympy.simplify(_L + 2 * c * sympy.factor(_generic_sum(pairs, c, r)))
    checks = []
    for size in (1, 2, 4):
        direct = sum(c ** abs(a - b) for a in range(size) for b in range(size))
        checks.append(identity(f"within, L = {size}", sympy.cancel(within.subs(_L, size)), direct))
    direct = sum(c ** (2 * 3 + b - a) for a in range(3) for b in range(3))
    checks.append(identity("between, L = 3, lag 2", sympy.cancel(between.subs({_L: 3, _k: 2})), direct))
    return (
        within,
        between,
        (
            Step("sum of c^j over a window", one),
            Step("sum of c^|i-j| within a window", within),
            Step("sum of c^|i-j| between windows k apart", between),
            *checks,
        ),
    )


def _generic_sum(pairs: sympy.Expr, c: sympy.Symbol, r: sympy.Symbol) -> sympy.Expr:
    """Sum over r = 1..L-1 of the partial sums, away from c = 1."""
    whole = sympy.summation(1 / (1 - c), (r, 1, _L - 1))
    geometric = sympy.summation(c**r, (r, 1, _L - 1))
    if isinstance(geometric, sympy.Piecewise):
        geometric = geometric.args[-1][0]
    identity("partial sum", pairs, (1 - c**r) / (1 - c))
    return whole - geometric / (1 - c)


@cache
def _turning_derivation() -> Derivation:
    within, between, steps = _geometric_sums("memory")
    result = _q**2 * between / (_q**2 * within + _L)
    return Derivation((*steps, Step("with white noise in each window", result)), result)


@cache
def _rotating_derivation() -> Derivation:
    angle = sympy.Symbol("angle", positive=True)
    rotor = sympy.Symbol("u")
    total = sympy.summation(rotor**_j, (_j, 0, _L - 1))
    series = total.args[-1][0] if isinstance(total, sympy.Piecewise) else total
    # sum over i, j of exp(i angle (k L + j - i)) = exp(i angle k L) |series|²
    half = sympy.sin(_L * angle / 2) / sympy.sin(angle / 2)
    unit = sympy.exp(sympy.I * angle)
    squared = series.subs(rotor, unit) * series.subs(rotor, 1 / unit)
    check = identity("squared length of the sum of unit vectors", squared, half**2)
    result = _q**2 * half**2 * sympy.cos(angle * _L * _k) / (_q**2 * half**2 + _L)
    return Derivation(
        (
            Step("sum of u^j over a window, u = exp(i angle)", series),
            check,
            Step("rotated by k windows, over the energy with white noise", result),
        ),
        result,
    )


@cache
def _momentum_derivation() -> Derivation:
    beta = sympy.Symbol("beta", positive=True)
    gap = sympy.Symbol("gap", integer=True, nonnegative=True)
    # E[u_0 u_gap] of u = (1-beta) sum beta^j g_{t-j}: shared gradients, an infinite geometric series
    ratio = sympy.Symbol("x", positive=True)
    series = sympy.summation(ratio**_j, (_j, 0, sympy.oo))
    closed = series.args[0][0] if isinstance(series, sympy.Piecewise) else series
    autocovariance = sympy.factor((1 - beta) ** 2 * beta**gap * closed.subs(ratio, beta**2))
    variance = autocovariance.subs(gap, 0)
    within, between, steps = _geometric_sums("beta")
    drift = _q**2 * _L**2
    result = (drift + variance * between) / (drift + variance * within)
    return Derivation(
        (
            Step("autocovariance of averaged white gradients", autocovariance),
            *steps,
            Step("with the drift, which the average passes whole", result),
        ),
        result,
    )


@cache
def _split_half_derivation() -> Derivation:
    within, between, steps = _geometric_sums("beta")
    n = sympy.Symbol("n", integer=True, positive=True)
    branches = []
    for size in (3, 4, 5, 14):
        count = size - 1

        def entry(a: int, b: int) -> sympy.Expr:
            return within if a == b else between.subs(_k, abs(a - b))

        odd, even = range(1, count, 2), range(0, count, 2)
        cross = sum(entry(a, b) for a in odd for b in even)
        energy = sum(entry(a, b) for a in odd for b in odd) * sum(entry(a, b) for a in even for b in even)
        branches.append((cross / sympy.sqrt(energy), sympy.Eq(n, size)))
    result = sympy.Piecewise(*branches, (sympy.nan, True))
    return Derivation((*steps, Step("odd with even displacements, n = 3, 4, 5, 14", result)), result)


_WHITE = "noise of each update white, equal variance"
_POOLED = "ratio of expectations pooled over many coordinates"

PREDICTION = Prediction(
    10,
    "increment_persistence",
    "Persistence of increments",
    (
        Law(
            "drift_cosine",
            "Constant drift in white noise: q² L/(1 + q² L), rising with the window, equal at all lags.",
            (_WHITE, _POOLED),
            _drift_derivation,
            drift_cosine,
            tuple(
                Point({"signal_to_noise": q, "window": w})
                for q, w in ((0.0, 10), (0.1, 10), (0.1, 100), (0.5, 8), (2.0, 1))
            ),
        ),
        Law(
            "fractional_cosine",
            "Fractional motion: 2^(2H-1) - 1 at lag 1, whatever the window.",
            ("fractional Brownian motion", _POOLED),
            _fractional_derivation,
            fractional_cosine,
            tuple(
                Point({"hurst": h, "lag": k})
                for h, k in ((0.5, 2), (0.6, 1), (0.6, 6), (0.05, 1), (0.3, 2), (0.9, 3), (0.99, 1))
            ),
        ),
        Law(
            "restoring_cosine",
            "Stationary jitter in a bowl: -exp(-(k-1) a)(1 - exp(-a))/2, never positive.",
            ("stationary Ornstein-Uhlenbeck", _POOLED),
            _restoring_derivation,
            restoring_cosine,
            tuple(
                Point({"curvature_window": a, "lag": k})
                for a, k in ((0.02, 1), (0.2, 1), (1.0, 2), (5.0, 1), (30.0, 2))
            ),
        ),
        Law(
            "turning_cosine",
            "Drift of steady size whose direction forgets itself as memory^updates, in white noise.",
            (_WHITE, _POOLED),
            _turning_derivation,
            turning_cosine,
            tuple(
                Point({"signal_to_noise": q, "memory": c, "window": w, "lag": k})
                for q, c, w, k in (
                    (0.1, 0.99, 20, 1),
                    (0.1, 0.99, 20, 4),
                    (1.0, 0.9, 5, 2),
                    (0.0, 0.9, 5, 1),
                    (0.5, 0.0, 4, 1),
                    (3.0, 0.999, 10, 1),
                )
            ),
        ),
        Law(
            "rotating_cosine",
            "Drift of steady size that rotates at a steady rate, in white noise: turns negative.",
            (_WHITE, _POOLED),
            _rotating_derivation,
            rotating_cosine,
            tuple(
                Point({"signal_to_noise": q, "angle": a, "window": w, "lag": k})
                for q, a, w, k in (
                    (0.2, 0.01, 20, 1),
                    (0.5, 0.05, 10, 6),
                    (0.5, 0.001, 10, 2),
                    (1.0, 3.0, 5, 1),
                    (0.0, 0.1, 5, 1),
                )
            ),
        ),
        Law(
            "momentum_cosine",
            "White gradients through momentum look persistent: .53, .21, .05 at spacing 10, 30, 100 for .9.",
            ("gradients white, plain or bias-corrected moving average in its steady state", _POOLED),
            _momentum_derivation,
            momentum_cosine,
            tuple(
                Point({"beta": b, "window": w, "lag": k, "signal_to_noise": q})
                for b, w, k, q in (
                    (0.9, 10, 1, 0.0),
                    (0.9, 30, 1, 0.0),
                    (0.9, 100, 1, 0.0),
                    (0.9, 1, 1, 0.0),
                    (0.9, 10, 3, 0.0),
                    (0.9, 10, 1, 0.3),
                    (0.5, 2, 2, 0.5),
                    (0.99, 20, 1, 0.0),
                )
            ),
        ),
        Law(
            "momentum_split_half",
            "Odd against even displacements of pure noise under momentum agree by accident.",
            ("gradients white, moving average in its steady state", _POOLED),
            _split_half_derivation,
            momentum_split_half,
            tuple(
                Point({"beta": b, "window": w, "n": n})
                for b, w, n in (
                    (0.9, 10, 14),
                    (0.9, 30, 14),
                    (0.9, 100, 14),
                    (0.9, 10, 4),
                    (0.9, 1, 3),
                    (0.5, 3, 5),
                )
            ),
        ),
    ),
)
