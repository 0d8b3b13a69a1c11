"""Noisy descent in a curved bowl: SGD on a quadratic is an AR(1) process, so its R² is known exactly.

SGD with step lr on a loss of curvature c, gradient noise of standard deviation s: the distance to the optimum obeys
w_{k+1} = rho w_k + noise, rho = 1 - lr c, noise of standard deviation lr s. Seen at checkpoints this is a discrete
Ornstein-Uhlenbeck process (Uhlenbeck and Ornstein 1930; for SGD, Mandt, Hoffman and Blei 2017). With
curvature x horizon a = -log(rho) x (updates in the window), a small is a walk with drift, a large is a run that has
arrived and only jitters, with less R² than a walk.

Conventions: `signal` S is the mean displacement over the window in units of the noise accumulated over it
(standard deviation of the displacement of a run started at a known point).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import sympy
from numpy.typing import ArrayLike

from theory.gaussian_r_squared import (
    Array,
    contrast_mean,
    decompose,
    mean_r_squared,
    over_checkpoint_counts,
    ratio_moments,
)
from theory.prediction import (
    Derivation,
    InvalidArgument,
    Law,
    Point,
    Prediction,
    Step,
    checkpoint_steps,
    finite,
    identity,
    non_negative,
    whole_number,
)


def path_mean(step: ArrayLike, rho: ArrayLike, offset: ArrayLike) -> Array:
    """Expected distance to the optimum after `step` updates: offset rho^step.

    Args:
        step: number of updates, whole, 0 or more.
        rho: factor per update, in (-1, 1]; 1 is a flat loss.
        offset: distance to the optimum at step 0.

    Raises:
        InvalidArgument: rho outside (-1, 1], a step that is negative or not whole.
    """
    return np.asarray(finite("offset", offset) * _factor(rho) ** whole_number("step", step, 0))


def point_covariance(first: ArrayLike, second: ArrayLike, rho: ArrayLike, noise: ArrayLike = 1.0) -> Array:
    """Covariance of the positions after `first` and `second` updates, started at a point.

    Args:
        first: updates, whole, 0 or more.
        second: updates, whole, 0 or more.
        rho: factor per update, in (-1, 1]; 1 gives the walk, noise² min(first, second).
        noise: standard deviation of one update's noise (learning rate x gradient noise).

    Raises:
        InvalidArgument: rho outside (-1, 1], a step that is negative or not whole, noise negative.
    """
    k, l = whole_number("first", first, 0), whole_number("second", second, 0)  # noqa: E741
    factor, power = _factor(rho), non_negative("noise", noise) ** 2
    near, gap = np.minimum(k, l), np.abs(k - l)
    flat = factor == 1
    with np.errstate(invalid="ignore", divide="ignore"):
        summed = np.where(flat, near, -np.expm1(near * np.log(factor**2)) / (1 - factor**2))
    summed = np.where(factor == 0, np.minimum(near, 1), summed)
    return np.asarray(power * factor**gap * summed)


def stationary_covariance(gap: ArrayLike, rho: ArrayLike, noise: ArrayLike = 1.0) -> Array:
    """Covariance of two positions `gap` updates apart, long after the start.

    Args:
        gap: updates, whole, 0 or more.
        rho: factor per update, in (-1, 1).
        noise: standard deviation of one update's noise.

    Raises:
        InvalidArgument: rho outside (-1, 1) (a flat loss has no stationary state), a bad gap, noise negative.
    """
    factor = _factor(rho)
    if np.any(factor == 1):
        raise InvalidArgument("rho", "must be below 1: a flat loss has no stationary state")
    return np.asarray(
        non_negative("noise", noise) ** 2 * factor ** whole_number("gap", gap, 0) / (1 - factor**2)
    )


def bowl_r_squared(
    steps: ArrayLike, rho: float, offset: float, noise: float, *, stationary: bool = False
) -> Array:
    """Exact E[R²] of noisy descent on a quadratic, at any checkpoints.

    Args:
        steps: updates at the checkpoints, shape [checkpoint], whole, 0 or more, increasing, any spacing.
        rho: factor per update, in (-1, 1].
        offset: distance to the optimum at update 0.
        noise: standard deviation of one update's noise.
        stationary: the noise has run since long before update 0, instead of from there.

    Returns:
        a scalar array; NaN when nothing moves.

    Raises:
        InvalidArgument: as `path_mean`, `point_covariance`, `stationary_covariance`.
    """
    updates = whole_number("steps", checkpoint_steps("steps", steps), 0)
    if stationary:
        covariance = stationary_covariance(np.abs(np.subtract.outer(updates, updates)), rho, noise)
    else:
        covariance = point_covariance(updates[:, None], updates[None, :], rho, noise)
    return mean_r_squared(path_mean(updates, rho, offset), covariance, updates)


def noiseless_r_squared(n: ArrayLike, curvature_horizon: ArrayLike) -> Array:
    """R² of noiseless descent 1 - rho^k at n equally spaced checkpoints: below 1 whatever the data.

    Args:
        n: number of checkpoints, 3 or more.
        curvature_horizon: a = -log(rho) x updates in the window, 0 or more; 0 gives 1; inf one jump, 3/(n+1).

    Raises:
        InvalidArgument: n below 3, a negative.
    """
    counts, (horizon,) = over_checkpoint_counts(
        n, non_negative("curvature_horizon", curvature_horizon, infinite=True)
    )
    result = np.empty(counts.shape)
    for count in np.unique(counts):
        cells = counts == count
        time = np.linspace(0.0, 1.0, count)
        path = _descent(horizon[cells][:, None], time)
        path = path - path.mean(-1, keepdims=True)
        centred = time - 0.5
        result[cells] = (path @ centred) ** 2 / ((path**2).sum(-1) * (centred**2).sum())
    return result


def noiseless_limit(curvature_horizon: ArrayLike) -> Array:
    """R² of noiseless descent recorded without gaps; 1 - a²/60 for small a.

    Args:
        curvature_horizon: a, 0 or more; inf gives 0.

    Raises:
        InvalidArgument: a negative.
    """
    a = non_negative("curvature_horizon", curvature_horizon, infinite=True)
    safe = np.where((a < 0.05) | np.isinf(a), 1.0, a)
    first = -np.expm1(-safe) / safe
    slope = (first - np.exp(-safe)) / safe - first / 2
    spread = -np.expm1(-2 * safe) / (2 * safe) - first**2
    small = np.minimum(a, 0.05)
    series = 1 - small**2 / 60 + small**4 / 2520
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(a), 0.0, np.where(a < 0.05, series, 12 * slope**2 / spread))


def floor_mean(n: ArrayLike, curvature_horizon: ArrayLike) -> Array:
    """Exact E[R²] of a stationary run that only jitters about its optimum: below the walk's .44.

    Args:
        n: number of checkpoints, 3 or more, equally spaced.
        curvature_horizon: a, 0 or more; 0 gives the walk, inf white noise, 1/(n-1).

    Raises:
        InvalidArgument: n below 3, a negative.
    """
    return _bowl(n, curvature_horizon, np.array(0.0), stationary=True)


def bowl_mean(n: ArrayLike, curvature_horizon: ArrayLike, signal: ArrayLike) -> Array:
    """Exact E[R²] of noisy descent started at a point, n equally spaced checkpoints.

    Args:
        n: number of checkpoints, 3 or more.
        curvature_horizon: a, 0 or more; 0 gives the walk with drift; inf one jump, then white noise.
        signal: S, mean displacement over the window / standard deviation of its noise; inf is noiseless.

    Returns:
        E[R²] in the broadcast shape; one eigen-decomposition per distinct (n, a).

    Raises:
        InvalidArgument: n below 3, a or S negative.
    """
    return _bowl(n, curvature_horizon, non_negative("signal", signal, infinite=True), stationary=False)


def _bowl(n: ArrayLike, curvature_horizon: ArrayLike, signal: Array, *, stationary: bool) -> Array:
    counts, (horizon, size) = over_checkpoint_counts(
        n, non_negative("curvature_horizon", curvature_horizon, infinite=True), signal
    )
    result = np.empty(counts.shape)
    for count in np.unique(counts):
        cells = counts == count
        values, which = np.unique(horizon[cells], return_inverse=True)
        time = np.linspace(0.0, 1.0, count)
        kernel = (_stationary_kernel if stationary else point_kernel)(values, time)
        eigenvalues, loading, centre = decompose(_descent(values[:, None], time), kernel, time)
        strength = size[cells]
        silent = np.isinf(strength)
        strength = np.where(silent, 1.0, strength)
        result[cells] = ratio_moments(
            np.where(silent[:, None], 0.0, eigenvalues[which]),
            loading[which],
            strength[:, None] * centre[which],
        )[0]
    return result


def _descent(horizon: Array, time: Array) -> Array:
    """Path from 0 to 1 over the window; horizon broadcasts against time."""
    flat, jump = horizon == 0, np.isinf(horizon)
    safe = np.where(flat | jump, 1.0, horizon)
    curved = np.expm1(-safe * time) / np.expm1(-safe)
    return np.where(flat, time, np.where(jump, np.sign(time), curved))


def point_kernel(horizon: Array, time: Array) -> Array:
    """Covariance [horizon, time, time] of a run started at a point, unit variance at the end of the window."""
    safe = np.where((horizon == 0) | np.isinf(horizon), 1.0, horizon)[:, None, None]
    near = np.minimum.outer(time, time)
    gap = np.abs(np.subtract.outer(time, time))
    curved = np.exp(-safe * gap) * np.expm1(-2 * safe * near) / np.expm1(-2 * safe)
    flat, jump = (horizon == 0)[:, None, None], np.isinf(horizon)[:, None, None]
    return np.where(flat, near, np.where(jump, (gap == 0) & (near > 0), curved))


def _stationary_kernel(horizon: Array, time: Array) -> Array:
    """Minus the variogram [horizon, time, time] of a stationary run: its covariance up to a constant."""
    safe = np.where((horizon == 0) | np.isinf(horizon), 1.0, horizon)[:, None, None]
    gap = np.abs(np.subtract.outer(time, time))
    curved = np.expm1(-safe * gap) / -np.expm1(-safe)
    flat, jump = (horizon == 0)[:, None, None], np.isinf(horizon)[:, None, None]
    return np.where(flat, -gap, np.where(jump, -np.sign(gap), curved))


def _factor(rho: ArrayLike) -> Array:
    factor = finite("rho", rho)
    if np.any((factor <= -1) | (factor > 1)):
        raise InvalidArgument("rho", f"must lie in (-1, 1], got {rho!r}")
    return factor


# ----------------------------------------------------------------------------------------------------------------
# Derivations
# ----------------------------------------------------------------------------------------------------------------

_n = sympy.Symbol("n", integer=True, positive=True)
_a = sympy.Symbol("curvature_horizon", positive=True)
_rho = sympy.Symbol("rho")
_noise = sympy.Symbol("noise", nonnegative=True)


def _generic(sum_of: sympy.Expr, limits: tuple[sympy.Symbol, sympy.Expr, sympy.Expr]) -> sympy.Expr:
    """A finite geometric sum away from ratio 1 (sympy gives a Piecewise)."""
    total = sympy.summation(sum_of, limits)
    return total.args[-1][0] if isinstance(total, sympy.Piecewise) else total


@cache
def _mean_derivation() -> Derivation:
    offset = sympy.Symbol("offset", real=True)
    step = sympy.Symbol("step", integer=True, nonnegative=True)
    curvature, rate, position = sympy.symbols("c lr w")
    path = sympy.Function("w")
    loss = curvature * position**2 / 2
    update = sympy.expand(position - rate * sympy.diff(loss, position))
    factor = sympy.factor(update) / position
    recursion = path(step + 1) - _rho * path(step)
    result = sympy.rsolve(recursion, path(step), {path(0): offset})
    return Derivation(
        (
            Step("one update on the quadratic, noise averaged away", update),
            Step("factor rho per update", factor),
            Step("recursion, = 0", recursion),
            Step("its solution", result),
        ),
        result,
    )


@cache
def _point_derivation() -> Derivation:
    first, second, j = sympy.symbols("first second j", integer=True, nonnegative=True)
    near, gap = sympy.symbols("near gap", integer=True, nonnegative=True)
    term = _rho ** (near + gap - j) * _rho ** (near - j)
    total = _noise**2 * _rho**gap * _generic(_rho ** (2 * j), (j, 0, near - 1))
    checks = tuple(
        identity(
            f"sum of shared noise at near = {size}",
            _noise**2 * sum(term.subs({near: size, j: i}) for i in range(1, size + 1)),
            sympy.cancel(total.subs(near, size)),
        )
        for size in (1, 2, 5)
    )
    result = total.subs({near: sympy.Min(first, second), gap: sympy.Abs(first - second)})
    return Derivation(
        (
            Step("noise of update j reaches both positions, shrunk by", term),
            Step("summed over the updates they share (geometric series)", total),
            *checks,
            Step("near = the earlier, gap = their distance", result),
        ),
        result,
    )


@cache
def _stationary_derivation() -> Derivation:
    gap = sympy.Symbol("gap", integer=True, nonnegative=True)
    r = sympy.Symbol("rho", positive=True)
    j = sympy.Symbol("j", integer=True, nonnegative=True)
    series = sympy.summation(r ** (2 * j), (j, 0, sympy.oo))
    closed = series.args[0][0] if isinstance(series, sympy.Piecewise) else series
    variance = sympy.Symbol("V")
    fixed = sympy.solve(sympy.Eq(variance, _rho**2 * variance + _noise**2), variance)[0]
    result = _rho**gap * fixed
    return Derivation(
        (
            Step("all the noise since long ago, per unit noise² (geometric series)", closed),
            identity(
                "the same as the fixed point V = rho² V + noise²", fixed.subs(_rho, r), _noise**2 * closed
            ),
            Step("and rho per update of distance", result),
        ),
        result,
    )


@cache
def _noiseless_derivation() -> Derivation:
    j = sympy.Symbol("j", integer=True, nonnegative=True)
    r = sympy.Symbol("r")
    zeroth = _generic(r**j, (j, 0, _n - 1))
    square = zeroth.subs(r, r**2)
    # sum j r^j = r d/dr sum r^j
    first = r * sympy.diff(zeroth, r)
    time_mean = sympy.summation(j, (j, 0, _n - 1)) / _n
    time_spread = sympy.factor(sympy.summation(j**2, (j, 0, _n - 1)) - _n * time_mean**2)
    covariance = first - time_mean * zeroth
    spread = square - zeroth**2 / _n
    ratio = covariance**2 / (time_spread * spread)
    result = ratio.subs(r, sympy.exp(-_a / (_n - 1)))
    return Derivation(
        (
            Step("sum of r^j, r = rho^spacing", zeroth),
            Step("sum of j r^j", first),
            Step("spread of time", time_spread),
            Step("squared correlation of r^j with j (that of 1 - r^j is the same)", ratio),
            Step("r = exp(-a/(n-1))", result),
        ),
        result,
    )


@cache
def _noiseless_limit_derivation() -> Derivation:
    time = sympy.Symbol("tau", positive=True)
    path = sympy.exp(-_a * time)

    def average(expression: sympy.Expr) -> sympy.Expr:
        return sympy.simplify(sympy.integrate(expression, (time, 0, 1)))

    covariance = average(path * time) - average(path) / 2
    spread = average(path**2) - average(path) ** 2
    time_spread = average(time**2) - average(time) ** 2
    result = sympy.simplify(covariance**2 / (spread * time_spread))
    series = sympy.series(result, _a, 0, 5).removeO()
    return Derivation(
        (
            Step("covariance of exp(-a tau) with tau", covariance),
            Step("variance of exp(-a tau)", spread),
            Step("for small a", series),
            Step("squared correlation", result),
        ),
        result,
    )


def _branches(values: list[tuple[sympy.Expr, int]]) -> sympy.Expr:
    return sympy.Piecewise(*((value, sympy.Eq(_n, size)) for value, size in values), (sympy.nan, True))


@cache
def _floor_derivation() -> Derivation:
    values, steps = [], []
    r = sympy.Symbol("r", positive=True)  # rho to the power of the spacing
    for size in (3, 4):
        covariance = sympy.Matrix(size, size, lambda i, j: r ** abs(i - j))
        value, more = contrast_mean(covariance, sympy.zeros(size, 1), list(range(size)))
        values.append((value.subs(r, sympy.exp(-_a / (size - 1))), size))
        steps += [Step(f"n = {size}: {step.text}", step.expression) for step in more]
    result = _branches(values)
    return Derivation(
        (*steps, Step("derived for n = 3 and 4; `predict` diagonalises for any n", result)), result
    )


@cache
def _bowl_derivation() -> Derivation:
    signal = sympy.Symbol("signal", nonnegative=True)
    point = _point_derivation()
    symbols = {symbol.name: symbol for symbol in point.result.free_symbols}
    values, steps = [], list(point.steps)
    r = sympy.Symbol("r", positive=True)  # rho to the power of the spacing
    for size in (3,):
        scale = point.result.subs({symbols["first"]: size - 1, symbols["second"]: size - 1})
        covariance = sympy.Matrix(
            size,
            size,
            lambda i, j, scale=scale, r=r: sympy.cancel(
                point.result.subs({symbols["first"]: i, symbols["second"]: j}) / scale
            ).subs(symbols["rho"], r),
        )
        mean = sympy.Matrix([signal * (1 - r**i) / (1 - r ** (size - 1)) for i in range(size)])
        value, more = contrast_mean(covariance, mean, list(range(size)))
        values.append((value.subs(r, sympy.exp(-_a / (size - 1))), size))
        steps += [Step(f"n = {size}: {step.text}", step.expression) for step in more]
    result = _branches(values)
    return Derivation((*steps, Step("derived for n = 3; `predict` diagonalises for any n", result)), result)


_ASSUMPTIONS = ("quadratic loss", "plain SGD, constant learning rate", "white Gaussian gradient noise")

PREDICTION = Prediction(
    6,
    "curved_bowl",
    "Noisy descent in a curved bowl",
    (
        Law(
            "path_mean",
            "The expected distance to the optimum shrinks by rho = 1 - lr x curvature an update.",
            _ASSUMPTIONS[:2],
            _mean_derivation,
            path_mean,
            (
                Point({"step": 7, "rho": 0.9, "offset": 2.0}),
                Point({"step": 3, "rho": -0.5, "offset": 1.0}),
                Point({"step": 9, "rho": 1, "offset": 1.5}),
                Point({"step": 4, "rho": 0.0, "offset": 1.0}),
            ),
        ),
        Law(
            "point_covariance",
            "noise² rho^|k-l| (1 - rho^(2 min(k,l)))/(1 - rho²), started at a point.",
            _ASSUMPTIONS,
            _point_derivation,
            point_covariance,
            (
                Point({"first": 4, "second": 9, "rho": 0.8, "noise": 0.5}),
                Point({"first": 6, "second": 6, "rho": 0.99, "noise": 1.0}),
                Point({"first": 3, "second": 2, "rho": -0.7, "noise": 1.0}),
                Point({"first": 3, "second": 5, "rho": 0.999999, "noise": 1.0}),
                Point({"first": 2, "second": 3, "rho": 0.9, "noise": 0.0}),
            ),
        ),
        Law(
            "stationary_covariance",
            "noise² rho^gap/(1 - rho²), long after the start.",
            (*_ASSUMPTIONS, "|rho| < 1"),
            _stationary_derivation,
            stationary_covariance,
            (
                Point({"gap": 5, "rho": 0.8, "noise": 0.5}),
                Point({"gap": 1, "rho": -0.3, "noise": 1.0}),
                Point({"gap": 0, "rho": 0.5, "noise": 2.0}),
                Point({"gap": 3, "rho": 0.0, "noise": 1.0}),
            ),
        ),
        Law(
            "noiseless_r_squared",
            "R² of noiseless descent 1 - rho^k at n checkpoints: curvature alone keeps it below 1.",
            _ASSUMPTIONS[:2] + ("no noise", "checkpoints equally spaced"),
            _noiseless_derivation,
            noiseless_r_squared,
            tuple(
                Point({"n": n, "curvature_horizon": a})
                for n, a in ((14, 0.5), (14, 3.0), (5, 10.0), (14, np.inf))
            ),
        ),
        Law(
            "noiseless_limit",
            "R² of noiseless descent recorded without gaps, 1 - a²/60 for small a.",
            _ASSUMPTIONS[:2] + ("no noise", "n to infinity"),
            _noiseless_limit_derivation,
            noiseless_limit,
            tuple(Point({"curvature_horizon": a}) for a in (0.01, 1.0, 5.0)),
        ),
        Law(
            "floor_mean",
            "E[R²] of stationary jitter about the optimum: the driftless floor, below the walk's.",
            (*_ASSUMPTIONS, "stationary", "checkpoints equally spaced"),
            _floor_derivation,
            floor_mean,
            tuple(
                Point({"n": n, "curvature_horizon": a})
                for n, a in ((3, 1.0), (4, 10.0), (14, 10.0), (4, 0.5), (14, np.inf))
            ),
        ),
        Law(
            "bowl_mean",
            "E[R²] of noisy descent started at a point, a = curvature x horizon, S the signal ratio of the window.",
            (*_ASSUMPTIONS, "started at a point", "checkpoints equally spaced"),
            _bowl_derivation,
            bowl_mean,
            tuple(
                Point({"n": n, "curvature_horizon": a, "signal": s})
                for n, a, s in (
                    (3, 1.0, 2.0),
                    (3, 4.0, 0.5),
                    (14, 2.0, 3.0),
                    (14, 10.0, 0.0),
                    (14, 1e-6, 1.0),
                    (14, np.inf, 2.0),
                    (14, 2.0, np.inf),
                )
            ),
        ),
    ),
)
