"""Adam in a bowl, update by update: mean and covariance of its checkpoints, and so E[R^2].

The mean path runs through Adam's own recursions; about it distance, m and v fluctuate, to first order as a
time-varying AR(1) of three components. Laws of it, with their points, stand in `theory.adam`, whose symbols these are.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

from theory.gaussian_r_squared import contrast_mean, mean_r_squared
from theory.prediction import (
    Derivation,
    InvalidArgument,
    Step,
    checkpoint_steps,
    finite,
    non_negative,
    positive,
    whole_number,
)

Array = NDArray[np.float64]

MOST_UPDATES = 200_000


def decay(argument: str, value: ArrayLike) -> Array:
    """The decay of a moment as a float array, refused unless every entry lies in [0, 1)."""
    array = non_negative(argument, value)
    if np.any(array >= 1):
        raise InvalidArgument(argument, f"must lie in [0, 1), got {value!r}")
    return array


def checkpoint_moments(
    steps: ArrayLike,
    distance: ArrayLike,
    curvature: ArrayLike,
    noise: ArrayLike,
    learning_rate: ArrayLike,
    beta1: ArrayLike = 0.9,
    beta2: ArrayLike = 0.999,
) -> tuple[Array, Array]:
    """Mean and covariance of the checkpoints of Adam in a bowl, moments from zero and bias-corrected.

    The mean path runs through Adam's own recursions with the mean squared gradient h^2 E[x^2] + s^2 in v; about it
    distance, m and v fluctuate linearly: a time-varying AR(1) of three components, whose contraction is that of
    `theory.adam.contraction` once v keeps pace and m is short. Left out: terms of order 1-beta2, and of order one
    update.

    Args:
        steps: updates at which checkpoints are taken, whole numbers from 0, increasing, at most 200,000,
            shape [checkpoint].
        distance: x_0, the start, in units of the weight; shape [...] (all parameters broadcast).
        curvature: h, not negative.
        noise: s, standard deviation of the gradient, not negative (h x_0 or s positive).
        learning_rate: lr.
        beta1: decay of m, in [0, 1).
        beta2: decay of v, in [0, 1).

    Returns:
        Mean, shape [..., checkpoint], and covariance, shape [..., checkpoint, checkpoint].

    Raises:
        InvalidArgument: outside the domain (so do all functions of this file).
    """
    marks = whole_number("steps", checkpoint_steps("steps", steps), 0)
    return _moments("steps", marks, (distance, curvature, noise, learning_rate, beta1, beta2))


def bowl_path_mean(
    updates: ArrayLike,
    distance: ArrayLike,
    curvature: ArrayLike,
    noise: ArrayLike,
    learning_rate: ArrayLike,
    beta1: ArrayLike = 0.9,
    beta2: ArrayLike = 0.999,
) -> Array:
    """Mean distance from the bottom after so many updates; one column of `checkpoint_moments`, whose arguments it has.

    Args:
        updates: T, whole, from 0; broadcast against the rest, at the cost of the largest.
        distance: x_0.
        curvature: h.
        noise: s.
        learning_rate: lr.
        beta1: decay of m.
        beta2: decay of v.
    """
    counts = whole_number("updates", updates, 0)
    marks, which = np.unique(counts, return_inverse=True)
    mean, _ = _moments("updates", marks, (distance, curvature, noise, learning_rate, beta1, beta2))
    return _picked(mean, which.reshape(counts.shape))


def bowl_path_covariance(
    first: ArrayLike,
    second: ArrayLike,
    distance: ArrayLike,
    curvature: ArrayLike,
    noise: ArrayLike,
    learning_rate: ArrayLike,
    beta1: ArrayLike = 0.9,
    beta2: ArrayLike = 0.999,
) -> Array:
    """Covariance of the positions after `first` and after `second` updates; else as `bowl_path_mean`."""
    early, late = np.broadcast_arrays(whole_number("first", first, 0), whole_number("second", second, 0))
    marks, which = np.unique(np.stack([early, late]), return_inverse=True)
    _, covariance = _moments("second", marks, (distance, curvature, noise, learning_rate, beta1, beta2))
    row, column = which.reshape(2, *early.shape)
    flat = covariance.reshape(*covariance.shape[:-2], -1)
    return _picked(flat, row * len(marks) + column)


def bowl_mean_r_squared(
    path_ratio: ArrayLike,
    noise_ratio: ArrayLike,
    updates: int,
    checkpoints: int = 14,
    beta1: ArrayLike = 0.9,
    beta2: ArrayLike = 0.999,
) -> Array:
    """E[R^2] of Adam in a bowl at equally spaced checkpoints, the first at the start.

    Args:
        path_ratio: lr T/distance, positive; at most T, as a single update must not leap over the bowl.
        noise_ratio: s/(h x_0), noise over the gradient at the start, not negative.
        updates: T, at least `checkpoints` - 1; checkpoints fall on rounded updates.
        checkpoints: number of checkpoints, at least 3.
        beta1: decay of m.
        beta2: decay of v.

    Returns:
        The broadcast shape.
    """
    count = int(whole_number("checkpoints", checkpoints, 3))
    total = int(whole_number("updates", updates, count - 1))
    ratio = positive("path_ratio", path_ratio)
    steps = np.round(np.linspace(0, total, count))
    mean, covariance = checkpoint_moments(
        steps, 1.0, 1.0, non_negative("noise_ratio", noise_ratio), ratio / total, beta1, beta2
    )
    return np.asarray(mean_r_squared(mean, covariance, steps))


def _moments(
    argument: str, marks: NDArray[np.int64], parameters: tuple[ArrayLike, ...]
) -> tuple[Array, Array]:
    """`checkpoint_moments` at increasing updates `marks`, one or more; `argument` is what the caller calls them."""
    if marks[-1] > MOST_UPDATES:
        raise InvalidArgument(argument, f"at most {MOST_UPDATES} updates, got {marks[-1]}")
    distance, curvature, noise, learning_rate, beta1, beta2 = parameters
    x, h, s, rate, first, second = np.broadcast_arrays(
        finite("distance", distance),
        non_negative("curvature", curvature),
        non_negative("noise", noise),
        non_negative("learning_rate", learning_rate),
        decay("beta1", beta1),
        decay("beta2", beta2),
    )
    if np.any((h * x == 0) & (s == 0)):
        raise InvalidArgument("noise", "a gradient that is always zero has no direction")
    shape, count = x.shape, len(marks)
    state = np.zeros((*shape, 3))  # mean of distance, m, v
    state[..., 0] = x
    spread = np.zeros((*shape, 3, 3))
    memory = np.zeros((*shape, 3, count))  # covariance of the state with the checkpoints so far
    mean = np.empty((*shape, count))
    covariance = np.empty((*shape, count, count))
    taken = 0
    for update in range(int(marks[-1]) + 1):
        if update:
            state, spread, memory = _advance(update, state, spread, memory, h, s, rate, first, second)
        if update == marks[taken]:
            memory[..., taken] = spread[..., 0]
            mean[..., taken] = state[..., 0]
            covariance[..., taken, : taken + 1] = memory[..., 0, : taken + 1]
            covariance[..., : taken + 1, taken] = memory[..., 0, : taken + 1]
            taken += 1
    return mean, covariance


def _picked(table: Array, which: NDArray[np.int64]) -> Array:
    """The entry of the last axis of `table` that `which` names, both broadcast."""
    shape = np.broadcast_shapes(table.shape[:-1], which.shape)
    wide = np.broadcast_to(table, (*shape, table.shape[-1]))
    return np.take_along_axis(wide, np.broadcast_to(which, shape)[..., None], axis=-1)[..., 0]


def _advance(
    update: int,
    state: Array,
    spread: Array,
    memory: Array,
    curvature: Array,
    noise: Array,
    learning_rate: Array,
    beta1: Array,
    beta2: Array,
) -> tuple[Array, Array, Array]:
    """One update of mean, covariance and covariance with earlier checkpoints."""
    gradient = curvature * state[..., 0]
    square = gradient**2 + curvature**2 * spread[..., 0, 0] + noise**2
    first = beta1 * state[..., 1] + (1 - beta1) * gradient
    second = beta2 * state[..., 2] + (1 - beta2) * square
    step = learning_rate / (1 - beta1**update) / np.sqrt(second / (1 - beta2**update))
    pull = step * first / (2 * second)  # how a larger v holds the distance back
    transition = np.zeros_like(spread)
    transition[..., 1, 0] = (1 - beta1) * curvature
    transition[..., 1, 1] = beta1
    transition[..., 2, 0] = (1 - beta2) * 2 * gradient * curvature
    transition[..., 2, 2] = beta2
    transition[..., 0, :] = pull[..., None] * transition[..., 2, :] - step[..., None] * transition[..., 1, :]
    transition[..., 0, 0] += 1
    linear = np.zeros_like(state)  # effect of xi, and below that of xi^2 - 1
    linear[..., 1] = (1 - beta1) * noise
    linear[..., 2] = (1 - beta2) * 2 * gradient * noise
    linear[..., 0] = pull * linear[..., 2] - step * linear[..., 1]
    quadratic = np.zeros_like(state)
    quadratic[..., 2] = (1 - beta2) * noise**2
    quadratic[..., 0] = pull * quadratic[..., 2]
    spread = (
        transition @ spread @ np.swapaxes(transition, -1, -2)
        + linear[..., :, None] * linear[..., None, :]
        + 2 * quadratic[..., :, None] * quadratic[..., None, :]
    )
    state = np.stack([state[..., 0] - step * first, first, second], axis=-1)
    return state, spread, transition @ memory


# ----------------------------------------------------------------------------------------------------------------
# Derivations
# ----------------------------------------------------------------------------------------------------------------

_DERIVED_UPDATES = 2

_X, _H, _S = sympy.symbols("distance curvature noise", positive=True)
_LR, _BETA1, _BETA2 = sympy.symbols("learning_rate beta1 beta2", positive=True)


@cache
def _linearised() -> tuple[tuple[Step, ...], dict[str, sympy.Matrix], dict[str, sympy.Symbol]]:
    """One update about its mean: slopes in the state, effects of xi and xi^2 - 1, mean of the squared gradient."""
    x, m, v, xi = sympy.symbols("x m v xi", real=True)
    late_m, late_v, share1, share2 = sympy.symbols("M V b_1 b_2", positive=True)
    gradient = _H * x + _S * xi
    first = sympy.expand(_BETA1 * m + (1 - _BETA1) * gradient)
    second = sympy.expand(_BETA2 * v + (1 - _BETA2) * gradient**2)
    position = x - _LR * (late_m / share1) / sympy.sqrt(late_v / share2)
    # M and V are linear in the state but for V's squares; the chain rule is taken at their means
    slope_m, slope_v = sympy.diff(position, late_m), sympy.diff(position, late_v)

    def effect(of_m: sympy.Expr, of_v: sympy.Expr, direct: int) -> sympy.Matrix:
        return sympy.Matrix([direct + slope_m * of_m + slope_v * of_v, of_m, of_v])

    columns = [
        effect(sympy.diff(first, z).subs(xi, 0), sympy.diff(second, z).subs(xi, 0), int(z == x))
        for z in (x, m, v)
    ]
    transition = sympy.Matrix.hstack(*columns)
    linear = effect(sympy.diff(first, xi), sympy.diff(second, xi).subs(xi, 0), 0)
    quadratic = effect(sympy.Integer(0), second.coeff(xi, 2), 0)
    deviation = sympy.Symbol("delta", real=True)
    square = sympy.expand(gradient.subs(x, x + deviation) ** 2)
    spread = sympy.Symbol("P", nonnegative=True)
    average = square.coeff(xi, 0).coeff(deviation, 0) + square.coeff(xi, 0).coeff(deviation, 2) * spread
    average += square.coeff(xi, 2).coeff(deviation, 0)
    steps = (
        Step("m after the update", first),
        Step("v after the update", second),
        Step("distance after the update, b_1 and b_2 correcting the bias", position),
        Step("slopes of (distance, m, v) in themselves before", transition),
        Step("effect of xi", linear),
        Step("effect of xi^2 - 1", quadratic),
        Step("mean of the squared gradient, P the variance of the distance", average),
    )
    parts = {
        "position": sympy.Matrix([position]),
        "first": sympy.Matrix([first]),
        "second": sympy.Matrix([second]),
        "transition": transition,
        "linear": linear,
        "quadratic": quadratic,
        "average": sympy.Matrix([average]),
    }
    symbols = {s.name: s for s in (x, m, v, xi, late_m, late_v, share1, share2, spread)}
    return steps, parts, symbols


@cache
def _first_updates() -> tuple[tuple[Step, ...], list[sympy.Expr], sympy.Matrix]:
    """Steps, mean distances and covariances [checkpoint, checkpoint] after 0, 1, ... updates from a point."""
    steps, parts, s = _linearised()
    state = sympy.Matrix([_X, 0, 0])
    spread = sympy.zeros(3, 3)
    means, transitions, spreads = [state[0]], [], [spread]
    for update in range(1, _DERIVED_UPDATES + 1):
        here = {s["x"]: state[0], s["m"]: state[1], s["v"]: state[2]}
        average = parts["average"][0].subs(here).subs(s["P"], spread[0, 0])
        # E[xi] = 0 in m; in v the whole squared gradient has its mean
        first = parts["first"][0].subs(s["xi"], 0).subs(here)
        second = _BETA2 * state[2] + (1 - _BETA2) * average
        there = here | {
            s["M"]: first,
            s["V"]: second,
            s["b_1"]: 1 - _BETA1**update,
            s["b_2"]: 1 - _BETA2**update,
        }
        transition, linear, quadratic = (
            parts[name].subs(there, simultaneous=True) for name in ("transition", "linear", "quadratic")
        )
        # Var xi = 1, Var(xi^2 - 1) = 2, and the two do not covary
        spread = transition * spread * transition.T + linear * linear.T + 2 * quadratic * quadratic.T
        state = sympy.Matrix([parts["position"][0].subs(there, simultaneous=True), first, second])
        means.append(state[0])
        transitions.append(transition)
        spreads.append(spread)
    size = _DERIVED_UPDATES + 1
    covariance = sympy.zeros(size, size)
    for early in range(size):
        carried = spreads[early]
        for late in range(early, size):
            if late > early:
                carried = transitions[late - 1] * carried
            covariance[early, late] = covariance[late, early] = carried[0, 0]
    steps = (
        *steps,
        *(Step(f"mean after {k} updates", means[k]) for k in range(1, size)),
        *(Step(f"variance after {k} updates", covariance[k, k]) for k in range(1, size)),
    )
    return steps, means, covariance


@cache
def derive_path_mean() -> Derivation:
    """Mean distance after up to two updates, composed from the linearised one."""
    updates = sympy.Symbol("updates", integer=True, nonnegative=True)
    steps, means, _ = _first_updates()
    branches = [(mean, sympy.Eq(updates, k)) for k, mean in enumerate(means)]
    return Derivation(steps, sympy.Piecewise(*branches, (sympy.nan, True)))


@cache
def derive_path_covariance() -> Derivation:
    """Covariance of two positions within the first two updates, composed from the linearised one."""
    first, second = sympy.symbols("first second", integer=True, nonnegative=True)
    steps, means, covariance = _first_updates()
    branches = [
        (covariance[i, j], sympy.And(sympy.Eq(first, i), sympy.Eq(second, j)))
        for i in range(len(means))
        for j in range(len(means))
    ]
    return Derivation(steps, sympy.Piecewise(*branches, (sympy.nan, True)))


@cache
def derive_mean_r_squared() -> Derivation:
    """E[R^2] at three checkpoints, one update apart."""
    updates, checkpoints = sympy.symbols("updates checkpoints", integer=True, positive=True)
    path_ratio = sympy.Symbol("path_ratio", positive=True)
    noise_ratio = sympy.Symbol("noise_ratio", positive=True)
    steps, means, covariance = _first_updates()
    size = len(means)
    scaled = {_X: 1, _H: 1, _S: noise_ratio, _LR: path_ratio / (size - 1)}
    entries = {(i, j): sympy.Symbol(f"C_{i}{j}") for i in range(1, size) for j in range(i, size)}
    centres = [sympy.Symbol(f"mu_{k}") for k in range(size)]
    kernel = sympy.Matrix(size, size, lambda i, j: entries.get((min(i, j), max(i, j)), sympy.Integer(0)))
    value, more = contrast_mean(kernel, sympy.Matrix(centres), list(range(size)))
    moments: dict[sympy.Symbol, sympy.Expr] = {
        symbol: covariance[place].subs(scaled) for place, symbol in entries.items()
    }
    moments |= {symbol: sympy.sympify(mean).subs(scaled) for symbol, mean in zip(centres, means, strict=True)}
    result = sympy.Piecewise(
        (value, sympy.And(sympy.Eq(updates, size - 1), sympy.Eq(checkpoints, size))), (sympy.nan, True)
    )
    return Derivation(
        (*steps, *more, Step("in the moments mu and C of three checkpoints, one update apart", value)),
        result,
        moments,
    )
