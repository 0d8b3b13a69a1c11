"""Error of straight forecasts: when they beat holding the last value, how far, and what re-grounding can add.

A coordinate has been watched over a window t and is forecast a horizon h ahead, g = h/t (`horizon_ratio`). It moves
with mean displacement D over the window and independent noise; S = D/(standard deviation of the noise accumulated over
the window), pooled over coordinates by energy. The persistence forecast holds the last value; the two-point forecast
adds g x the displacement; the damped one lambda times that. Skill = 1 - MSE/MSE(persistence), out of sample. Ratios
quoted by others as L2 norms are the square roots of the ratios here.

The optimal damping is the reliability ratio of errors-in-variables regression (Fuller 1987), a shrinkage towards
persistence; the threshold S > 1 and re-grounding's equivalence to a scaled learning rate are derived here.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray
from sympy.stats import E, Normal

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


def _signal_share(signal_squared: ArrayLike) -> Array:
    """S²/(1+S²), which stays finite at S = inf."""
    power = non_negative("signal_squared", signal_squared, infinite=True)
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(power), 1.0, power / (1 + power))


def two_point_ratio(signal_squared: ArrayLike, horizon_ratio: ArrayLike) -> Array:
    """MSE(two-point)/MSE(persistence) = (1+g)/(1+S² g); below 1 exactly when S > 1.

    Args:
        signal_squared: pooled S², 0 or more; inf gives 0.
        horizon_ratio: g = h/t, above 0.

    Raises:
        InvalidArgument: S² negative or g not positive.
    """
    share, g = _signal_share(signal_squared), positive("horizon_ratio", horizon_ratio)
    return np.asarray((1 + g) * (1 - share) / (1 - share + share * g))


def slope_ratio(n: ArrayLike, signal_squared: ArrayLike, horizon_ratio: ArrayLike) -> Array:
    """MSE ratio of last value + h x least-squares slope, n equally spaced checkpoints in the window.

    Below 1 when S² > 6 (n²+1)/(5 n (n+1)): 1 at n = 2, 1.2 as n grows.

    Args:
        n: checkpoints in the window, 2 or more (2 is the two-point forecast).
        signal_squared: pooled S², 0 or more.
        horizon_ratio: g = h/t, above 0.

    Raises:
        InvalidArgument: n below 2, S² negative, g not positive.
    """
    count = whole_number("n", n, 2).astype(np.float64)
    share, g = _signal_share(signal_squared), positive("horizon_ratio", horizon_ratio)
    threshold = 6 * (count**2 + 1) / (5 * count * (count + 1))
    return np.asarray((1 + threshold * g) * (1 - share) / (1 - share + share * g))


def line_ratio(n: ArrayLike, signal_squared: ArrayLike, horizon_ratio: ArrayLike) -> Array:
    """MSE ratio of the least-squares line itself carried on, not joined to the last value.

    At short horizons the line misses even the last value, so the ratio grows like 1/g.

    Args:
        n: checkpoints in the window, 2 or more.
        signal_squared: pooled S², 0 or more.
        horizon_ratio: g = h/t, above 0.

    Raises:
        InvalidArgument: n below 2, S² negative, g not positive.
    """
    count = whole_number("n", n, 2).astype(np.float64)
    share, g = _signal_share(signal_squared), positive("horizon_ratio", horizon_ratio)
    slope = 6 * (count**2 + 1) / (5 * count * (count + 1))
    miss = (count - 2) * (2 * count - 1) / (15 * count * (count + 1))
    cross = (count - 2) * (count - 3) / (5 * count * (count + 1))
    misfit = (miss + cross * g + slope * g**2) / g
    return np.asarray((1 + misfit) * (1 - share) / (1 - share + share * g))


def optimal_damping(signal_squared: ArrayLike) -> Array:
    """lambda* = S²/(1+S²), whatever the horizon: 0 without signal, 1 without noise.

    Args:
        signal_squared: pooled S², 0 or more; inf allowed.

    Raises:
        InvalidArgument: S² negative.
    """
    return _signal_share(signal_squared)


def damped_skill(signal_squared: ArrayLike, horizon_ratio: ArrayLike, damping: ArrayLike) -> Array:
    """Skill of persistence + damping x (two-point step).

    Args:
        signal_squared: pooled S², 0 or more; inf allowed.
        horizon_ratio: g = h/t, above 0.
        damping: lambda; 0 is persistence, 1 two-point.

    Raises:
        InvalidArgument: S² negative, g not positive, lambda not finite.
    """
    share, g = _signal_share(signal_squared), positive("horizon_ratio", horizon_ratio)
    weight = finite("damping", damping)
    return np.asarray(g * (2 * weight * share - weight**2) / (1 - share + share * g))


def best_skill(signal_squared: ArrayLike, horizon_ratio: ArrayLike) -> Array:
    """Skill at the optimal damping, S² (S² g)/((1+S²)(1+S² g)); never negative.

    Args:
        signal_squared: pooled S², 0 or more; inf gives 1.
        horizon_ratio: g = h/t, above 0.

    Raises:
        InvalidArgument: S² negative or g not positive.
    """
    share, g = _signal_share(signal_squared), positive("horizon_ratio", horizon_ratio)
    return np.asarray(share**2 * g / (1 - share + share * g))


def curved_ratio(signal_squared: ArrayLike, curvature: ArrayLike, horizon_ratio: ArrayLike) -> Array:
    """MSE(two-point)/MSE(persistence) when the mean path is a parabola.

    Args:
        signal_squared: pooled S² of the displacement over the window, 0 or more; inf is noiseless.
        curvature: (slope at the end - slope at the start)/mean slope of the window; negative slows down.
        horizon_ratio: g = h/t, above 0.

    Returns:
        the ratio; inf where there is no noise and the path returns to its last value at the horizon.

    Raises:
        InvalidArgument: S² negative, curvature not finite, g not positive.
    """
    share, g = _signal_share(signal_squared), positive("horizon_ratio", horizon_ratio)
    bend = finite("curvature", curvature)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(
            ((1 - share) * (1 + g) + share * g * (bend * (1 + g) / 2) ** 2)
            / (1 - share + share * g * (1 + bend * (1 + g) / 2) ** 2)
        )


def break_even_horizon(signal_squared: ArrayLike, curvature: ArrayLike) -> Array:
    """The horizon ratio g beyond which a slowing path makes the two-point forecast worse than persistence.

    Args:
        signal_squared: pooled S² of the displacement over the window; inf is noiseless.
        curvature: as in `curved_ratio`, 0 or below (a path that speeds up has no such horizon).

    Returns:
        (1 - 1/S²)/|curvature| - 1; 0 where the forecast never pays, inf on a straight path with S > 1.

    Raises:
        InvalidArgument: S² negative, curvature positive or not finite.
    """
    share, bend = _signal_share(signal_squared), finite("curvature", curvature)
    if np.any(bend > 0):
        raise InvalidArgument(
            "curvature", "must be 0 or below: a path that speeds up has no break-even horizon"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = (2 * share - 1) / share  # 1 - 1/S²
        reach = np.where(bend == 0, np.where(margin > 0, np.inf, 0.0), -margin / bend - 1)
    return np.where(share <= 0.5, 0.0, np.maximum(reach, 0.0))


def best_horizon(signal_squared: ArrayLike, curvature: ArrayLike) -> Array:
    """The horizon ratio at which the two-point forecast takes most off the squared error: 2/3 of break-even.

    Arguments and errors as `break_even_horizon`.
    """
    return np.asarray(2 * break_even_horizon(signal_squared, curvature) / 3)


def reground_block_mean(m: ArrayLike, n: ArrayLike, drift: ArrayLike) -> Array:
    """Mean displacement of a block of m real steps and a jump of n along it: (m+n) drift.

    Args:
        m: real steps, 1 or more.
        n: steps jumped, 0 or more.
        drift: mean displacement of one real step.

    Raises:
        InvalidArgument: m or n out of range.
    """
    real, jumped = _block(m, n)
    return np.asarray((real + jumped) * finite("drift", drift))


def reground_block_variance(m: ArrayLike, n: ArrayLike, noise: ArrayLike) -> Array:
    """Variance of that block, (m+n)²/m noise²: that of m steps with the learning rate times (m+n)/m.

    Args:
        m: real steps, 1 or more.
        n: steps jumped, 0 or more.
        noise: standard deviation of one real step.

    Raises:
        InvalidArgument: m or n out of range, noise negative.
    """
    real, jumped = _block(m, n)
    return np.asarray((real + jumped) ** 2 / real * non_negative("noise", noise) ** 2)


def reground_contraction(rho: ArrayLike, m: ArrayLike, n: ArrayLike) -> Array:
    """What a block leaves of the distance to the optimum: rho^m - (n/m)(1 - rho^m).

    Args:
        rho: factor per real step, 1 - lr x curvature, in (-1, 1].
        m: real steps, 1 or more.
        n: steps jumped, 0 or more.

    Raises:
        InvalidArgument: an argument out of range.
    """
    real, jumped = _block(m, n)
    kept = _rho_factor(rho) ** real
    return np.asarray(kept - jumped / real * (1 - kept))


def scaled_contraction(rho: ArrayLike, m: ArrayLike, n: ArrayLike) -> Array:
    """What m real steps at learning rate x (m+n)/m leave of the distance: (1 - (1-rho)(m+n)/m)^m.

    Arguments and errors as `reground_contraction`.
    """
    real, jumped = _block(m, n)
    return np.asarray((1 - (1 - _rho_factor(rho)) * (real + jumped) / real) ** real)


def reground_curved_variance(rho: ArrayLike, m: ArrayLike, n: ArrayLike, noise: ArrayLike) -> Array:
    """Variance that a block adds in a bowl: (1+n/m)² noise² (1-rho^(2m))/(1-rho²).

    Args:
        rho: factor per real step, in (-1, 1].
        m: real steps, 1 or more.
        n: steps jumped, 0 or more.
        noise: standard deviation of one real step.

    Raises:
        InvalidArgument: an argument out of range.
    """
    real, jumped = _block(m, n)
    factor = _rho_factor(rho)
    with np.errstate(invalid="ignore", divide="ignore"):
        sums = np.where(factor == 1, real, (1 - factor ** (2 * real)) / (1 - factor**2))
    return np.asarray((1 + jumped / real) ** 2 * non_negative("noise", noise) ** 2 * sums)


def stability_limit(rho: ArrayLike, m: ArrayLike) -> Array:
    """The jump n at which re-grounding stops converging: m (1+rho^m)/(1-rho^m).

    Args:
        rho: factor per real step, in (-1, 1]; 1 gives inf.
        m: real steps, 1 or more.

    Raises:
        InvalidArgument: an argument out of range.
    """
    real, _ = _block(m, 0)
    kept = _rho_factor(rho) ** real
    with np.errstate(divide="ignore"):
        return np.asarray(real * (1 + kept) / (1 - kept))


def _block(m: ArrayLike, n: ArrayLike) -> tuple[Array, Array]:
    return whole_number("m", m, 1).astype(np.float64), whole_number("n", n, 0).astype(np.float64)


def _rho_factor(rho: ArrayLike) -> Array:
    factor = finite("rho", rho)
    if np.any((factor <= -1) | (factor > 1)):
        raise InvalidArgument("rho", f"must lie in (-1, 1], got {rho!r}")
    return factor


# ----------------------------------------------------------------------------------------------------------------
# Derivations
# ----------------------------------------------------------------------------------------------------------------

_g = sympy.Symbol("horizon_ratio", positive=True)
_power = sympy.Symbol("signal_squared", positive=True)
_bend = sympy.Symbol("curvature", real=True)
_weight = sympy.Symbol("damping", real=True)


@cache
def _errors() -> tuple[sympy.Expr, sympy.Expr, tuple[Step, ...]]:
    """MSE of the damped and of the persistence forecast on a parabola, in units of the window's noise variance."""
    t, h, d, c, s = sympy.symbols("t h d c sigma", positive=True)
    past, future = Normal("past", 0, 1), Normal("future", 0, 1)

    def path(time: sympy.Expr) -> sympy.Expr:
        return d * time + c * time**2 / 2

    seen = path(t) + s * sympy.sqrt(t) * past
    ahead = path(t + h) - path(t) + s * sympy.sqrt(h) * future
    damped = sympy.expand(E(sympy.expand((ahead - _weight * h / t * seen) ** 2)))
    held = sympy.expand(E(sympy.expand(ahead**2)))
    bias = sympy.factor(path(t + h) - path(t) - h / t * path(t))
    signal = sympy.sqrt(_power)
    # D = S sigma sqrt(t) is the displacement over the window, c t = curvature x D/t the change of slope
    slope = {c: _bend * signal * s / t ** sympy.Rational(3, 2)}
    slope[d] = signal * s / sympy.sqrt(t) - slope[c] * t / 2

    def scaled(error: sympy.Expr) -> sympy.Expr:
        return sympy.expand(sympy.simplify((error.subs(slope) / (s**2 * t)).subs(h, _g * t)))

    return (
        scaled(damped),
        scaled(held),
        (
            Step(
                "squared error of the damped forecast, averaged over independent past and future noise",
                damped,
            ),
            Step("squared error of persistence", held),
            Step("bias of the two-point forecast, c h (t+h)/2", bias),
            Step("damped, in units of the window's noise variance", scaled(damped)),
            Step("persistence, same unit", scaled(held)),
        ),
    )


@cache
def _ratio_derivation(curved: bool) -> Derivation:
    damped, held, steps = _errors()
    ratio = (damped / held).subs(_weight, 1)
    result = sympy.factor(ratio if curved else ratio.subs(_bend, 0))
    return Derivation((*steps, Step("ratio", result)), result)


@cache
def _skill_derivation() -> Derivation:
    damped, held, steps = _errors()
    result = sympy.factor((1 - damped / held).subs(_bend, 0))
    return Derivation((*steps, Step("skill on a straight path", result)), result)


@cache
def _damping_derivation() -> Derivation:
    skill = _skill_derivation()
    slope = sympy.diff(skill.result, _weight)
    result = sympy.factor(sympy.solve(slope, _weight)[0])
    return Derivation((*skill.steps, Step("zero of the derivative in lambda", result)), result)


@cache
def _best_skill_derivation() -> Derivation:
    skill, damping = _skill_derivation(), _damping_derivation()
    result = sympy.factor(skill.result.subs(_weight, damping.result))
    return Derivation((*damping.steps, Step("skill at lambda*", result)), result)


@cache
def _break_even_derivation() -> Derivation:
    damped, held, steps = _errors()
    gain = sympy.factor(sympy.expand((held - damped).subs(_weight, 1)))
    result = sympy.solve(sympy.cancel(gain / _g**2), _g)[0]
    return Derivation((*steps, Step("squared error saved", gain), Step("vanishes at g", result)), result)


@cache
def _best_horizon_derivation() -> Derivation:
    damped, held, steps = _errors()
    gain = sympy.factor(sympy.expand((held - damped).subs(_weight, 1)))
    result = sympy.solve(sympy.cancel(sympy.diff(gain, _g) / _g), _g)[0]
    share = identity("two thirds of break-even", result, 2 * _break_even_derivation().result / 3)
    return Derivation(
        (*steps, Step("squared error saved", gain), share, Step("greatest at g", result)), result
    )


@cache
def _least_squares_derivation(joined: bool) -> Derivation:
    n = sympy.Symbol("n", integer=True, positive=True)
    i, j = sympy.symbols("i j", integer=True, positive=True)
    middle = (n - 1) / sympy.Integer(2)
    spread = sympy.factor(sympy.summation((j - middle) ** 2, (j, 0, n - 1)))
    reach = sympy.factor(sympy.summation((j - middle) / spread, (j, i, n - 1)))
    slope = sympy.factor(sympy.summation(sympy.expand(reach**2), (i, 1, n - 1)))
    horizon = _g * (n - 1)
    steps = [
        Step("spread of time, unit intervals", spread),
        Step("weight of the noise of interval i in the slope", reach),
        Step("variance of the slope on a unit walk", slope),
    ]
    if joined:
        forecast = sympy.factor(slope * horizon**2)
        steps.append(
            Step("as n grows, S² must exceed", sympy.limit(sympy.factor(slope * (n - 1)), n, sympy.oo))
        )
    else:
        mean_weight = sympy.factor(sympy.summation(1 / n, (j, i, n - 1)) - 1)
        weight = sympy.expand(mean_weight + reach * (middle + horizon))
        forecast = sympy.factor(sympy.summation(sympy.expand(weight**2), (i, 1, n - 1)))
        steps.append(Step("weight of interval i in line minus last value", weight))
    steps.append(Step("variance of the forecast about its mean", forecast))
    error = horizon + forecast
    held = horizon + _power / (n - 1) * horizon**2
    result = sympy.factor(error / held)
    return Derivation((*steps, Step("over persistence, noise of the horizon added to both", result)), result)


_m = sympy.Symbol("m", integer=True, positive=True)
_jump = sympy.Symbol("n", integer=True, nonnegative=True)


@cache
def _block_derivation(moment: int) -> Derivation:
    drift = sympy.Symbol("drift", real=True)
    noise = sympy.Symbol("noise", nonnegative=True)
    i = sympy.Symbol("i", integer=True)
    stretch = 1 + _jump / _m
    scaled = (_m + _jump) / _m
    if moment == 1:
        block = stretch * sympy.summation(drift, (i, 1, _m))
        rate = sympy.summation(scaled * drift, (i, 1, _m))
    else:
        block = stretch**2 * sympy.summation(noise**2, (i, 1, _m))
        rate = sympy.summation(scaled**2 * noise**2, (i, 1, _m))
    result = sympy.factor(block)
    return Derivation(
        (
            Step("m real steps, stretched by 1 + n/m", block),
            Step("m real steps at learning rate x (m+n)/m", rate),
            identity("the same", block, rate),
            Step("block", result),
        ),
        result,
    )


@cache
def _contraction_derivation(scaled: bool) -> Derivation:
    rho, w, rate = sympy.symbols("rho w rate")
    if scaled:
        one = sympy.expand(w - (1 - rho) * rate * w)
        per_step = sympy.cancel(one / w).subs(rate, (_m + _jump) / _m)
        result = per_step**_m
        steps = (Step("one step at a scaled rate", one), Step("m of them leave", result))
    else:
        landed = rho**_m * w
        jumped = landed + _jump / _m * (landed - w)
        result = sympy.expand(sympy.expand(jumped) / w)
        steps = (Step("after m real steps", landed), Step("after the jump along them", jumped))
    return Derivation((*steps, Step("factor", result)), result)


@cache
def _curved_variance_derivation() -> Derivation:
    rho = sympy.Symbol("rho")
    noise = sympy.Symbol("noise", nonnegative=True)
    j = sympy.Symbol("j", integer=True, nonnegative=True)
    total = sympy.summation(rho ** (2 * j), (j, 0, _m - 1))
    series = total.args[-1][0] if isinstance(total, sympy.Piecewise) else total
    result = (1 + _jump / _m) ** 2 * noise**2 * series
    check = identity(
        "series at m = 3", sympy.cancel(series.subs(_m, 3)), sum(rho ** (2 * i) for i in range(3))
    )
    return Derivation(
        (Step("noise of m steps, each shrunk since", series), check, Step("stretched", result)), result
    )


@cache
def _stability_derivation() -> Derivation:
    contraction = _contraction_derivation(False)
    n = sympy.Symbol("jump", real=True)
    result = sympy.factor(sympy.solve(sympy.Eq(contraction.result.subs(_jump, n), -1), n)[0])
    return Derivation((*contraction.steps, Step("the factor reaches -1 at n", result)), result)


_STRAIGHT = (
    "noise of the window and of the horizon independent, variance proportional to time",
    "constant drift per coordinate; S² pooled by energy",
)
_CURVED = (_STRAIGHT[0], "mean path a parabola over window and horizon")
_BLOCK = ("m real steps, then a jump of n/m times their displacement, from the state they reached",)
# from a flat loss to one in which a step overshoots; at .9 with a jump of 100 both diverge
_CONTRACTIONS = tuple(
    Point({"rho": r, "m": m, "n": n})
    for r, m, n in ((1.0, 5, 3), (0.99, 20, 100), (0.9, 5, 2), (0.9, 5, 100), (0.9, 7, 0), (-0.3, 3, 2))
)

PREDICTION = Prediction(
    9,
    "forecast_error",
    "Error of straight forecasts and re-grounding",
    (
        Law(
            "two_point_ratio",
            "MSE(two-point)/MSE(persistence) = (1+g)/(1+S² g): the forecast pays exactly when S > 1.",
            _STRAIGHT,
            lambda: _ratio_derivation(False),
            two_point_ratio,
            tuple(
                Point({"signal_squared": s, "horizon_ratio": g})
                for s, g in ((0.0, 1.0), (0.25, 1.0), (1.0, 0.3), (4.0, 2.0), (4.0, 0.05), (100.0, 10.0))
            ),
        ),
        Law(
            "slope_ratio",
            "Last value + h x least-squares slope against persistence: pays when S² > 6(n²+1)/(5n(n+1)), to 1.2.",
            (*_STRAIGHT, "checkpoints equally spaced"),
            lambda: _least_squares_derivation(True),
            slope_ratio,
            tuple(
                Point({"n": n, "signal_squared": s, "horizon_ratio": g})
                for n, s, g in ((2, 1.0, 0.5), (3, 0.0, 1.0), (14, 1.2, 1.0), (14, 4.0, 0.5), (50, 1.2, 0.1))
            ),
        ),
        Law(
            "line_ratio",
            "The least-squares line carried on, against persistence: worse at short horizons.",
            (*_STRAIGHT, "checkpoints equally spaced"),
            lambda: _least_squares_derivation(False),
            line_ratio,
            tuple(
                Point({"n": n, "signal_squared": s, "horizon_ratio": g})
                for n, s, g in ((2, 0.0, 1.0), (3, 1.0, 0.5), (14, 1.2, 0.1), (14, 4.0, 1.0), (50, 25.0, 3.0))
            ),
        ),
        Law(
            "damped_skill",
            "Skill of persistence + lambda x two-point step.",
            _STRAIGHT,
            _skill_derivation,
            damped_skill,
            tuple(
                Point({"signal_squared": s, "horizon_ratio": g, "damping": w})
                for s, g, w in (
                    (0.0, 1.0, 0.5),
                    (0.5, 1.0, 0.3),
                    (1.0, 0.5, 1.0),
                    (1.0, 1.0, -0.5),
                    (4.0, 2.0, 0.8),
                    (4.0, 0.1, 1.5),
                )
            ),
        ),
        Law(
            "optimal_damping",
            "lambda* = S²/(1+S²), at every horizon.",
            _STRAIGHT,
            _damping_derivation,
            optimal_damping,
            tuple(Point({"signal_squared": s}) for s in (0.0, 0.5, 1.0, 4.0, 25.0)),
        ),
        Law(
            "best_skill",
            "Skill at lambda*: S² (S² g)/((1+S²)(1+S² g)).",
            _STRAIGHT,
            _best_skill_derivation,
            best_skill,
            tuple(
                Point({"signal_squared": s, "horizon_ratio": g})
                for s, g in ((0.5, 1.0), (4.0, 0.3), (25.0, 3.0))
            ),
        ),
        Law(
            "curved_ratio",
            "Two-point/persistence MSE on a parabola: a bias of c h (t+h)/2 enters squared.",
            _CURVED,
            lambda: _ratio_derivation(True),
            curved_ratio,
            tuple(
                Point({"signal_squared": s, "curvature": c, "horizon_ratio": g})
                for s, c, g in (
                    (0.0, -0.5, 1.0),
                    (4.0, -0.5, 1.0),
                    (9.0, -1.0, 0.5),
                    (4.0, -2.0, 0.2),
                    (2.0, 0.5, 1.0),
                    (25.0, -0.1, 3.0),
                )
            ),
        ),
        Law(
            "break_even_horizon",
            "On a slowing parabola the two-point forecast pays up to g = (1 - 1/S²)/|curvature| - 1.",
            (*_CURVED, "curvature < 0"),
            _break_even_derivation,
            break_even_horizon,
            tuple(
                Point({"signal_squared": s, "curvature": c})
                for s, c in ((4.0, -0.3), (9.0, -0.6), (25.0, -0.1))
            ),
        ),
        Law(
            "best_horizon",
            "The squared error saved is greatest at two thirds of the break-even horizon.",
            (*_CURVED, "curvature < 0"),
            _best_horizon_derivation,
            best_horizon,
            tuple(
                Point({"signal_squared": s, "curvature": c})
                for s, c in ((4.0, -0.3), (9.0, -0.6), (25.0, -0.1))
            ),
        ),
        Law(
            "reground_block_mean",
            "A block of (m, n) moves (m+n) drift in m real steps, as learning rate x (m+n)/m does.",
            (*_BLOCK, "constant drift"),
            lambda: _block_derivation(1),
            reground_block_mean,
            tuple(
                Point({"m": m, "n": n, "drift": d})
                for m, n, d in ((20, 100, 0.1), (100, 0, -1.0), (1, 3, 0.5))
            ),
        ),
        Law(
            "reground_block_variance",
            "Its variance is (m+n)²/m noise², again that of learning rate x (m+n)/m.",
            (*_BLOCK, "white noise"),
            lambda: _block_derivation(2),
            reground_block_variance,
            tuple(
                Point({"m": m, "n": n, "noise": s})
                for m, n, s in ((20, 100, 0.5), (100, 100, 1.0), (7, 0, 2.0), (1, 3, 1.0))
            ),
        ),
        Law(
            "reground_contraction",
            "In a bowl a block leaves rho^m - (n/m)(1 - rho^m) of the distance to the optimum.",
            (*_BLOCK, "quadratic loss, plain SGD"),
            lambda: _contraction_derivation(False),
            reground_contraction,
            _CONTRACTIONS,
        ),
        Law(
            "scaled_contraction",
            "m steps at learning rate x (m+n)/m leave (1 - (1-rho)(m+n)/m)^m of it.",
            ("quadratic loss, plain SGD",),
            lambda: _contraction_derivation(True),
            scaled_contraction,
            _CONTRACTIONS,
        ),
        Law(
            "reground_curved_variance",
            "In a bowl a block adds variance (1+n/m)² noise² (1-rho^(2m))/(1-rho²).",
            (*_BLOCK, "quadratic loss, plain SGD", "white noise"),
            _curved_variance_derivation,
            reground_curved_variance,
            tuple(
                Point({"rho": r, "m": m, "n": n, "noise": s})
                for r, m, n, s in (
                    (0.95, 10, 20, 1.0),
                    (0.5, 3, 1, 2.0),
                    (-0.6, 4, 2, 1.0),
                    (0.9, 20, 0, 0.3),
                )
            ),
        ),
        Law(
            "stability_limit",
            "Re-grounding diverges in a bowl once n > m (1+rho^m)/(1-rho^m).",
            (*_BLOCK, "quadratic loss, plain SGD"),
            _stability_derivation,
            stability_limit,
            tuple(Point({"rho": r, "m": m}) for r, m in ((0.99, 20), (0.9, 5), (0.5, 1), (-0.3, 2))),
        ),
    ),
)
