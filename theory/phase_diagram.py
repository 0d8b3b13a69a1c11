"""Where a run stands: expected R², what chance gives, and forecast skill over (curvature x horizon, S).

One coordinate descends noisily in a bowl (see `curved_bowl`): a = curvature x horizon says how far the window
reaches round the bend, S how the drift over the window compares with the noise accumulated over it. Over this plane:

- E[R²], exact (`gaussian_r_squared`, `curved_bowl`);
- the null: the quantile of R² of *one* driftless walk of the same n (`null_quantile`, exact), and the quantile of the
  *mean* R² of a run whose coordinates carry `effective_coordinates` independent walks (`null_mean_quantile`, normal
  approximation). Shared noise makes the effective number far smaller than the number of weights;
- skill of the two-point forecast, and of the best damped one, against persistence at horizon ratio g.

R² may stand far above its null where a forecast loses (a large), and skill be had where R² is middling (S near 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from theory import curved_bowl
from theory.gaussian_r_squared import PREDICTION as R_SQUARED
from theory.gaussian_r_squared import curved_walk_moments, walk_quantile
from theory.prediction import (
    Derivation,
    InvalidArgument,
    Law,
    Point,
    Prediction,
    Step,
    non_negative,
    positive,
    probability,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PhaseDiagram:
    """What theory expects at each cell of a grid; arrays of the broadcast shape of (curvature_horizon, signal).

    Attributes:
        r_squared: E[R²].
        null_quantile: R² that one driftless walk exceeds with probability 1 - level.
        null_mean_quantile: mean R² that a driftless run exceeds with probability 1 - level.
        two_point_skill: of the two-point forecast against persistence.
        damping: lambda of the best damped forecast; negative where the path is expected to turn back.
        damped_skill: skill at that lambda.
    """

    r_squared: Array
    null_quantile: Array
    null_mean_quantile: Array
    two_point_skill: Array
    damping: Array
    damped_skill: Array


def phase_diagram(
    n: int,
    curvature_horizon: ArrayLike,
    signal: ArrayLike,
    horizon_ratio: float = 1.0,
    level: float = 0.95,
    effective_coordinates: float = 100.0,
) -> PhaseDiagram:
    """The whole diagram at once.

    Args:
        n: checkpoints in the window, 3 or more, equally spaced.
        curvature_horizon: a, 0 or more, broadcast against `signal`.
        signal: S over the window, 0 or more; inf is noiseless.
        horizon_ratio: g, horizon of the forecast over the window, above 0.
        level: of the null's quantiles.
        effective_coordinates: independent walks that the run's coordinates amount to, 1 or more.

    Raises:
        InvalidArgument: an argument out of range.
    """
    where = (curvature_horizon, signal, horizon_ratio)
    r_squared = curved_bowl.bowl_mean(n, curvature_horizon, signal)
    shape = r_squared.shape
    return PhaseDiagram(
        r_squared,
        np.broadcast_to(null_quantile(n, level), shape),
        np.broadcast_to(null_mean_quantile(n, level, effective_coordinates), shape),
        two_point_skill(*where),
        best_damping(*where),
        damped_skill(*where),
    )


def null_quantile(n: ArrayLike, level: ArrayLike) -> Array:
    """R² of one driftless walk that is not exceeded with probability `level`, exact.

    Args:
        n: checkpoints, 3 or more, equally spaced.
        level: in [0, 1]; .95 gives .90 at n = 14.

    Raises:
        InvalidArgument: n below 3, a level outside [0, 1].
    """
    return walk_quantile(n, level)


def null_mean_quantile(n: ArrayLike, level: ArrayLike, effective_coordinates: ArrayLike) -> Array:
    """Mean R² over a driftless run that is not exceeded with probability `level`.

    Args:
        n: checkpoints, 3 or more, equally spaced.
        level: in (0, 1).
        effective_coordinates: N, independent walks that the coordinates amount to, 1 or more; inf gives the mean.

    Returns:
        mean + z sqrt(variance/N), cut to [0, 1]; error of order 1/N, .001 or less from N = 20 on.

    Raises:
        InvalidArgument: n below 3, a level outside [0, 1], N below 1.
    """
    count = positive("effective_coordinates", effective_coordinates, infinite=True)
    if np.any(count < 1):
        raise InvalidArgument("effective_coordinates", "must be at least 1")
    mean, variance = curved_walk_moments(n)
    with np.errstate(invalid="ignore"):
        spread = ndtri(probability("level", level)) * np.sqrt(variance / count)
    return np.clip(mean + np.where(np.isinf(count), 0.0, spread), 0.0, 1.0)


def _second_moments(
    curvature_horizon: ArrayLike, signal: ArrayLike, horizon_ratio: ArrayLike
) -> tuple[Array, Array, Array]:
    """E[F²], E[F D] over E[D²], and g: F the displacement over the horizon, D that over the window."""
    a = non_negative("curvature_horizon", curvature_horizon, infinite=True)
    size = non_negative("signal", signal, infinite=True)
    g = positive("horizon_ratio", horizon_ratio)
    with np.errstate(invalid="ignore"):
        power = size**2
        share = np.where(np.isinf(power), 1.0, power / (1 + power))
    flat, jump = a == 0, np.isinf(a)
    safe = np.where(flat | jump, 1.0, a)
    decay = np.where(flat, 0.0, np.where(jump, 1.0, -np.expm1(-safe * g)))
    ahead = np.where(flat, g, np.where(jump, 0.0, np.exp(-safe) * np.expm1(-safe * g) / np.expm1(-safe)))
    fresh = np.where(flat, g, np.where(jump, 1.0, np.expm1(-2 * safe * g) / np.expm1(-2 * safe)))
    future = share * ahead**2 + (1 - share) * (decay**2 + fresh)
    crossed = share * ahead - (1 - share) * decay
    return future, crossed, g


def two_point_skill(curvature_horizon: ArrayLike, signal: ArrayLike, horizon_ratio: ArrayLike) -> Array:
    """Skill of the two-point forecast of noisy descent in a bowl, started at a point; exact.

    Args:
        curvature_horizon: a over the window, 0 or more.
        signal: S over the window, 0 or more; inf is noiseless.
        horizon_ratio: g, horizon over window, above 0.

    Returns:
        1 - MSE/MSE(persistence), broadcast; -inf where persistence is perfect.

    Raises:
        InvalidArgument: an argument out of range.
    """
    future, crossed, g = _second_moments(curvature_horizon, signal, horizon_ratio)
    with np.errstate(divide="ignore"):
        return np.asarray((2 * g * crossed - g**2) / future)


def best_damping(curvature_horizon: ArrayLike, signal: ArrayLike, horizon_ratio: ArrayLike) -> Array:
    """lambda of the best damped forecast: E[F D]/(g E[D²]); S²/(1+S²) in a flat loss.

    Arguments and errors as `two_point_skill`. Negative where noise is expected to relax more than drift goes on.
    """
    _, crossed, g = _second_moments(curvature_horizon, signal, horizon_ratio)
    return np.asarray(crossed / g)


def damped_skill(curvature_horizon: ArrayLike, signal: ArrayLike, horizon_ratio: ArrayLike) -> Array:
    """Skill at `best_damping`, the squared correlation of past and future about zero; arguments as there."""
    future, crossed, _ = _second_moments(curvature_horizon, signal, horizon_ratio)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(future == 0, 0.0, crossed**2 / future)


# ----------------------------------------------------------------------------------------------------------------
# Derivations
# ----------------------------------------------------------------------------------------------------------------

_a = sympy.Symbol("curvature_horizon", positive=True)
_s = sympy.Symbol("signal", nonnegative=True)
_g = sympy.Symbol("horizon_ratio", positive=True)


@cache
def _moments() -> tuple[sympy.Expr, sympy.Expr, sympy.Expr, tuple[Step, ...]]:
    """E[F²], E[F D], E[D²] of the Ornstein-Uhlenbeck process started at a point, Var D = 1."""
    v = sympy.Symbol("v", positive=True)
    offset = sympy.Symbol("A", real=True)

    def noise(first: sympy.Expr, second: sympy.Expr, until: sympy.Expr) -> sympy.Expr:
        # noise of time v is left over as exp(-a (t - v)) at time t
        return sympy.expand(
            sympy.integrate(sympy.exp(-_a * (first - v)) * sympy.exp(-_a * (second - v)), (v, 0, until))
        )

    one, end = sympy.Integer(1), 1 + _g
    at_end, later, both = noise(one, one, one), noise(end, end, end), noise(one, end, one)

    def mean(time: sympy.Expr) -> sympy.Expr:
        return offset * (1 - sympy.exp(-_a * time))

    drift_past, drift_future = mean(one), sympy.expand(mean(end) - mean(one))
    scale = sympy.solve(sympy.Eq(drift_past**2, _s**2 * at_end), offset)[-1]
    past = (drift_past**2 + at_end).subs(offset, scale)
    crossed = (drift_past * drift_future + both - at_end).subs(offset, scale)
    future = (drift_future**2 + later - 2 * both + at_end).subs(offset, scale)
    return (
        past,
        crossed,
        future,
        (
            Step("variance at the end of the window (noise of unit intensity, window 1)", at_end),
            Step("covariance of the end of the window with the horizon", both),
            Step("variance at the horizon", later),
            Step("distance of the start that makes the drift S x noise", scale),
            Step("E[D²]", past),
            Step("E[F D]", crossed),
            Step("E[F²]", future),
        ),
    )


@cache
def _skill_derivation() -> Derivation:
    past, crossed, future, steps = _moments()
    result = (2 * _g * crossed - _g**2 * past) / future
    return Derivation((*steps, Step("1 - E[(F - g D)²]/E[F²]", result)), result)


@cache
def _best_derivation(skill: bool) -> Derivation:
    past, crossed, future, steps = _moments()
    weight, p, c, f = sympy.symbols("lambda P C F")
    one = 1 - sympy.expand(f - 2 * weight * _g * c + weight**2 * _g**2 * p) / f
    best = sympy.solve(sympy.diff(one, weight), weight)[0]
    form = sympy.simplify(one.subs(weight, best)) if skill else best
    result = form.subs({p: past, c: crossed, f: future})
    return Derivation(
        (
            *steps,
            Step("skill of a damped forecast, P, C, F for E[D²], E[F D], E[F²]", one),
            Step("best lambda", best),
            Step("put in", form),
            Step("result", result),
        ),
        result,
    )


@cache
def _null_derivation() -> Derivation:
    mean = R_SQUARED.law("random_walk_mean").derive()
    variance = R_SQUARED.law("random_walk_variance").derive()
    level, count = sympy.symbols("level effective_coordinates", positive=True)
    z = sympy.Symbol("z", real=True)
    x = sympy.Symbol("x", real=True)
    below = sympy.integrate(sympy.exp(-(x**2) / 2) / sympy.sqrt(2 * sympy.pi), (x, -sympy.oo, z))
    deviate = sympy.solve(sympy.Eq(below, level), z)[0].replace(
        sympy.erfcinv, lambda tail: sympy.erfinv(1 - tail)
    )
    result = mean.result + deviate * sympy.sqrt(variance.result / count)
    return Derivation(
        (
            *variance.steps,
            Step("normal probability below z", below),
            Step("the z of the level", deviate),
            Step("mean of N independent R², to order 1/sqrt(N)", result),
        ),
        result,
    )


_BOWL = ("quadratic loss, SGD sampled often (rho near 1 per update)", "white noise", "started at a point")
_CELLS = tuple(
    Point({"curvature_horizon": a, "signal": s, "horizon_ratio": g})
    for a, s, g in (
        (0.001, 1.5, 0.5),
        (0.1, 2.0, 1.0),
        (1.0, 1.0, 0.5),
        (1.0, 10.0, 2.0),
        (3.0, 5.0, 1.0),
        (3.0, 0.0, 1.0),
        (10.0, 0.5, 0.3),
    )
)

PREDICTION = Prediction(
    12,
    "phase_diagram",
    "Phase diagram over (curvature x horizon, S)",
    (
        Law(
            "r_squared",
            "E[R²] over (curvature x horizon, S), as in curved_bowl.",
            (*_BOWL, "checkpoints equally spaced"),
            curved_bowl.PREDICTION.law("bowl_mean").derive,
            curved_bowl.bowl_mean,
            tuple(
                Point({"n": n, "curvature_horizon": a, "signal": s})
                for n, a, s in (
                    (3, 0.5, 3.0),
                    (3, 5.0, 0.5),
                    (14, 0.001, 0.0),
                    (14, 0.5, 4.0),
                    (14, 5.0, 4.0),
                    (14, 5.0, 100.0),
                    (14, 30.0, 1.0),
                    (50, 1.0, 2.0),
                )
            ),
        ),
        Law(
            "null_mean_quantile",
            "Mean R² that a driftless run of N effective coordinates stays below with probability `level`.",
            ("independent driftless walks", "checkpoints equally spaced"),
            _null_derivation,
            null_mean_quantile,
            tuple(
                Point({"n": 14, "level": p, "effective_coordinates": c}, t)
                for p, c, t in (
                    (0.95, 1, 0.05),
                    (0.5, 20, 0.001),
                    (0.95, 20, 0.001),
                    (0.95, 100, 0.0005),
                )
            ),
            "leading order in 1/sqrt(effective coordinates): off by .001 at 20; breaks at 1, by .04 at the level .95",
        ),
        Law(
            "two_point_skill",
            "Skill of the two-point forecast of noisy descent in a bowl.",
            _BOWL,
            _skill_derivation,
            two_point_skill,
            _CELLS,
        ),
        Law(
            "best_damping",
            "The damping that does best there; S²/(1+S²) in a flat loss, less round a bend.",
            _BOWL,
            lambda: _best_derivation(False),
            best_damping,
            _CELLS,
        ),
        Law(
            "damped_skill",
            "Skill at that damping.",
            _BOWL,
            lambda: _best_derivation(True),
            damped_skill,
            _CELLS,
        ),
    ),
)
