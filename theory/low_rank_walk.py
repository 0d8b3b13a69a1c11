"""How low a rank a high-dimensional walk seems to have, and how straight its leading coefficient.

A trajectory of many coordinates at n checkpoints has a Gram matrix between checkpoints; in the limit of many
coordinates with independent noise it tends to its expectation, min(i, j) for a driftless walk, plus drift² i j. Its
leading eigenvectors are cosines (Antognini and Sohl-Dickstein 2018, who give 6/pi² = 61 % for the centred PC1), so
principal components of pure noise look smooth and low-rank.

`centred` subtracts the mean over checkpoints (PCA); `uncentred` takes displacements from the first checkpoint
(rank-1 reconstruction of updates, as RELEX). `drift` is per interval in standard deviations of one interval's
noise, root mean square over coordinates.
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
    identity,
    whole_number,
)

Array = NDArray[np.float64]


def centred_share(n: ArrayLike, component: ArrayLike = 1) -> Array:
    """Share of variance in a principal component of a driftless walk: 6/(4 (n²-1) sin²(k pi/2n)).

    Args:
        n: checkpoints, 3 or more.
        component: k, from 1; beyond n - 1 there is none, so 0.

    Raises:
        InvalidArgument: n below 3, k below 1.
    """
    count, k = whole_number("n", n, 3), whole_number("component", component, 1)
    exists = k < count
    angle = np.pi * np.where(exists, k, 1) / (2 * count)
    return np.where(exists, 1.5 / ((count.astype(np.float64) ** 2 - 1) * np.sin(angle) ** 2), 0.0)


def centred_share_limit(component: ArrayLike = 1) -> Array:
    """The same as n grows without bound: 6/(pi² k²); errors as `centred_share`."""
    return np.asarray(6 / (np.pi * whole_number("component", component, 1)) ** 2)


def uncentred_share(n: ArrayLike, component: ArrayLike = 1) -> Array:
    """Share of energy in a component of a driftless walk's displacements from its first checkpoint.

    Args:
        n: checkpoints, the first included, 3 or more.
        component: k, from 1; beyond n - 1 there is none, so 0.

    Raises:
        InvalidArgument: n below 3, k below 1.
    """
    count, k = whole_number("n", n, 3), whole_number("component", component, 1)
    exists = k < count
    angle = np.pi * (2 * np.where(exists, k, 1) - 1) / (2 * (2 * count - 1))
    return np.where(exists, 0.5 / (count * (count - 1.0) * np.sin(angle) ** 2), 0.0)


def uncentred_share_limit(component: ArrayLike = 1) -> Array:
    """The same as n grows without bound: 8/(pi² (2k-1)²); errors as `uncentred_share`."""
    return np.asarray(8 / (np.pi * (2 * whole_number("component", component, 1) - 1)) ** 2)


def centred_drift_share(n: ArrayLike, drift: ArrayLike) -> Array:
    """Share of variance in the first principal component of a walk with drift.

    Args:
        n: checkpoints, 3 or more.
        drift: per interval over one interval's noise, root mean square over coordinates; inf gives 1.

    Raises:
        InvalidArgument: n below 3, drift NaN.
    """
    return _leading_share(n, drift, centred=True)


def uncentred_drift_share(n: ArrayLike, drift: ArrayLike) -> Array:
    """Share of energy in the first component of displacements of a walk with drift; as `centred_drift_share`."""
    return _leading_share(n, drift, centred=False)


def centred_coefficient_r_squared(n: ArrayLike) -> Array:
    """R² with time of the first principal component of a driftless walk: .986 as n grows, though there is no drift.

    Args:
        n: checkpoints, 3 or more.

    Raises:
        InvalidArgument: n below 3.
    """
    count = whole_number("n", n, 3).astype(np.float64)
    half = np.pi / (2 * count)
    return np.asarray(6 * np.cos(half) ** 2 / (count**2 * (count**2 - 1) * np.sin(half) ** 4))


def uncentred_coefficient_r_squared(n: ArrayLike) -> Array:
    """R² with time of the leading coefficient of displacements (zero at the first checkpoint) of a driftless walk.

    .958 as n grows.

    Args:
        n: checkpoints, the first included, 3 or more.

    Raises:
        InvalidArgument: n below 3.
    """
    counts = whole_number("n", n, 3)
    result = np.empty(counts.shape)
    for count in np.unique(counts):
        time = np.arange(count)
        path = np.sin(np.pi * time / (2 * count - 1))
        result[counts == count] = np.corrcoef(time, path)[0, 1] ** 2
    return result


def uncentred_coefficient_limit() -> Array:
    """Its limit, 12 (4/pi² - 1/pi)²/(1/2 - 4/pi²) = .958."""
    return np.asarray(12 * (4 / np.pi**2 - 1 / np.pi) ** 2 / (0.5 - 4 / np.pi**2))


def centred_coefficient_limit() -> Array:
    """Limit of `centred_coefficient_r_squared`, 96/pi⁴ = .986."""
    return np.asarray(96 / np.pi**4)


def _leading_share(n: ArrayLike, drift: ArrayLike, *, centred: bool) -> Array:
    rate = np.asarray(drift, dtype=np.float64)
    if np.isnan(rate).any():
        raise InvalidArgument("drift", "must not be NaN")
    counts, rate = np.broadcast_arrays(whole_number("n", n, 3), np.abs(rate))
    result = np.ones(counts.shape)
    for count in np.unique(counts):
        cells = (counts == count) & np.isfinite(rate)
        time = np.arange(count, dtype=np.float64)
        gram = np.minimum.outer(time, time) + rate[cells][:, None, None] ** 2 * np.outer(time, time)
        if centred:
            gram = gram - gram.mean(-1, keepdims=True)
            gram = gram - gram.mean(-2, keepdims=True)
        result[cells] = np.linalg.eigvalsh(gram)[:, -1] / np.trace(gram, axis1=-2, axis2=-1)
    return result


# ----------------------------------------------------------------------------------------------------------------
# Derivations
# ----------------------------------------------------------------------------------------------------------------

_n = sympy.Symbol("n", integer=True, positive=True)
_k = sympy.Symbol("component", integer=True, positive=True)
_i = sympy.Symbol("i", integer=True, nonnegative=True)
_j = sympy.Symbol("j", integer=True, nonnegative=True)
_theta = sympy.Symbol("theta", positive=True)


def _second_difference(vector: sympy.Expr) -> tuple[sympy.Expr, Step]:
    """Eigenvalue of minus the second difference, whose inverse the walk's Gram matrix is, on a wave."""
    stiffness = 4 * sympy.sin(_theta / 2) ** 2
    step = identity(
        "increments are white, so the Gram matrix inverts the second difference; a wave is its eigenvector",
        sympy.expand_trig(2 * vector - vector.subs(_j, _j - 1) - vector.subs(_j, _j + 1)),
        sympy.expand_trig(stiffness * vector),
    )
    return stiffness, step


@cache
def _centred_spectrum() -> tuple[sympy.Expr, tuple[Step, ...]]:
    wave = sympy.cos(_theta * (_j + sympy.Rational(1, 2)))
    stiffness, interior = _second_difference(wave)
    left = identity("free left end: v_{-1} = v_0", wave.subs(_j, -1), wave.subs(_j, 0))
    right = identity(
        "free right end: v_{n-1} - v_n, zero at theta = k pi/n",
        sympy.expand_trig(wave.subs(_j, _n - 1) - wave.subs(_j, _n)),
        2 * sympy.sin(_theta * _n) * sympy.sin(_theta / 2),
    )
    eigenvalue = 1 / stiffness.subs(_theta, _k * sympy.pi / _n)
    return eigenvalue, (interior, left, right, Step("eigenvalue k of the centred Gram matrix", eigenvalue))


@cache
def _uncentred_spectrum() -> tuple[sympy.Expr, tuple[Step, ...]]:
    wave = sympy.sin(_theta * _j)
    stiffness, interior = _second_difference(wave)
    right = identity(
        "free right end: v_{n-1} - v_n, zero at theta = (2k-1) pi/(2n-1); the left end is held at 0",
        sympy.expand_trig(wave.subs(_j, _n - 1) - wave.subs(_j, _n)),
        sympy.expand(sympy.expand_trig(-2 * sympy.cos(_theta * _n - _theta / 2) * sympy.sin(_theta / 2))),
    )
    eigenvalue = 1 / stiffness.subs(_theta, (2 * _k - 1) * sympy.pi / (2 * _n - 1))
    return eigenvalue, (interior, right, Step("eigenvalue k of the Gram matrix", eigenvalue))


@cache
def _share_derivation(centred: bool) -> Derivation:
    eigenvalue, steps = _centred_spectrum() if centred else _uncentred_spectrum()
    trace = sympy.summation(_i, (_i, 0, _n - 1))
    if centred:
        # total of min(i, j): each i beside itself, and below every later j
        total = sympy.summation(sympy.expand(_i + 2 * _i * (_n - 1 - _i)), (_i, 0, _n - 1))
        trace = sympy.factor(trace - total / _n)
    result = eigenvalue / sympy.factor(trace)
    checks = tuple(
        identity(
            f"eigenvalues sum to the trace at n = {size}",
            sympy.simplify(sum(eigenvalue.subs({_n: size, _k: k}) for k in range(1, size))),
            trace.subs(_n, size),
        )
        for size in ((3, 4) if centred else (3,))
    )
    return Derivation((*steps, Step("trace", trace), *checks, Step("share", result)), result)


@cache
def _share_limit_derivation(centred: bool) -> Derivation:
    finite_share = _share_derivation(centred)
    x = sympy.Symbol("x", positive=True)
    angle = _k * sympy.pi / _n if centred else (2 * _k - 1) * sympy.pi / (2 * _n - 1)
    size = sympy.solve(sympy.Eq(angle, 2 * x), _n)[0]
    in_angle = finite_share.result.subs(_n, size)
    result = sympy.simplify(sympy.limit(sympy.simplify(in_angle), x, 0))
    return Derivation(
        (
            *finite_share.steps,
            Step("in the angle x, n to infinity is x to 0", in_angle),
            Step("limit", result),
        ),
        result,
    )


@cache
def _drift_derivation(centred: bool) -> Derivation:
    drift = sympy.Symbol("drift", real=True)
    steps: list[Step] = []
    branches = []
    for size in (3, 4) if centred else (3,):
        gram = sympy.Matrix(size, size, lambda a, b: min(a, b) + drift**2 * a * b)
        if centred:
            centring = sympy.eye(size) - sympy.ones(size, size) / size
            gram = centring * gram * centring
        x = sympy.Symbol("x")
        polynomial = sympy.factor(sympy.expand(gram.charpoly(x).as_expr()))
        roots = sympy.solve(polynomial, x)
        leading = max(roots, key=lambda root: float(root.subs(drift, sympy.Rational(1, 2))))
        share = leading / sympy.expand(gram.trace())
        steps += [
            Step(f"characteristic polynomial at n = {size}", polynomial),
            Step(f"largest root over the trace, n = {size}", share),
        ]
        branches.append((share, sympy.Eq(_n, size)))
    result = sympy.Piecewise(*branches, (sympy.nan, True))
    return Derivation((*steps, Step("`predict` diagonalises for any n", result)), result)


@cache
def _coefficient_derivation(centred: bool) -> Derivation:
    steps = (_centred_spectrum() if centred else _uncentred_spectrum())[1]
    middle = (_n - 1) / sympy.Integer(2)
    spread = sympy.factor(sympy.summation((_j - middle) ** 2, (_j, 0, _n - 1)))
    if centred:
        # by parts: time has second difference zero but for its free ends, -1 and 1
        wave = sympy.cos(_theta * (_j + sympy.Rational(1, 2)))
        angle = sympy.pi / _n
        ends = wave.subs(_j, _n - 1) - wave.subs(_j, 0)
        at_angle = sympy.expand_trig(sympy.cos(sympy.pi - angle / 2)) - wave.subs(_j, 0).subs(_theta, angle)
        dot = at_angle / (4 * sympy.sin(angle / 2) ** 2)
        norm = _n / sympy.Integer(2)
        result = sympy.factor(dot**2 / (norm * spread))
        check = identity(
            "dot product and squared length at n = 4 (also by direct summation)",
            sympy.simplify(result.subs(_n, 4)),
            sympy.simplify(
                sum(
                    (j - sympy.Rational(3, 2)) * sympy.cos(sympy.pi / 4 * (j + sympy.Rational(1, 2)))
                    for j in range(4)
                )
                ** 2
                / (5 * sum(sympy.cos(sympy.pi / 4 * (j + sympy.Rational(1, 2))) ** 2 for j in range(4)))
            ),
        )
        extra = [Step("ends of the wave", ends), Step("dot product with time", dot), check]
    else:
        wave = sympy.sin(sympy.pi * _j / (2 * _n - 1))

        def average(expression: sympy.Expr) -> sympy.Expr:
            return sympy.Sum(expression, (_j, 0, _n - 1))

        covariance = average((_j - middle) * wave)
        variance = average(wave**2) - average(wave) ** 2 / _n
        result = covariance**2 / (variance * spread)
        extra = [Step("covariance with time", covariance), Step("spread of the wave", variance)]
    return Derivation((*steps, *extra, Step("squared correlation", result)), result)


@cache
def _coefficient_limit_derivation(centred: bool) -> Derivation:
    tau = sympy.Symbol("tau", real=True)
    wave = sympy.cos(sympy.pi * tau) if centred else sympy.sin(sympy.pi * tau / 2)

    def average(expression: sympy.Expr) -> sympy.Expr:
        return sympy.integrate(expression, (tau, 0, 1))

    covariance = average(wave * tau) - average(wave) * average(tau)
    variance = average(wave**2) - average(wave) ** 2
    spread = average(tau**2) - average(tau) ** 2
    result = sympy.simplify(covariance**2 / (variance * spread))
    return Derivation(
        (
            *(_centred_spectrum() if centred else _uncentred_spectrum())[1],
            Step("the wave in continuous time", wave),
            Step("covariance with time", covariance),
            Step("variance", variance),
            Step("squared correlation", result),
        ),
        result,
    )


_WALK = (
    "increments white, equal variance, independent over coordinates",
    "checkpoints equally spaced",
    "many coordinates",
)
_ORDER = (
    "exact for the expected Gram matrix, leading order in 1/coordinates for a sample of it; breaks when the noise "
    "has fewer effective directions than about 100"
)
_TOLERANCE = 0.001  # of a run of 4,000 coordinates or more

PREDICTION = Prediction(
    11,
    "low_rank_walk",
    "Principal components of a high-dimensional walk",
    (
        Law(
            "centred_share",
            "Share of variance in principal component k of a driftless walk of n checkpoints.",
            _WALK,
            lambda: _share_derivation(True),
            centred_share,
            tuple(
                Point({"n": n, "component": k}, _TOLERANCE)
                for n, k in ((3, 1), (4, 3), (14, 1), (14, 2), (50, 1))
            ),
            _ORDER,
        ),
        Law(
            "centred_share_limit",
            "6/(pi² k²): the first component holds 61 % of pure noise.",
            (*_WALK, "n to infinity"),
            lambda: _share_limit_derivation(True),
            centred_share_limit,
            tuple(Point({"component": k}, _TOLERANCE) for k in (1, 2, 3)),
            _ORDER,
        ),
        Law(
            "uncentred_share",
            "Share of energy in component k of displacements from the first checkpoint.",
            _WALK,
            lambda: _share_derivation(False),
            uncentred_share,
            tuple(
                Point({"n": n, "component": k}, _TOLERANCE)
                for n, k in ((3, 1), (3, 2), (14, 1), (14, 2), (50, 1))
            ),
            _ORDER,
        ),
        Law(
            "uncentred_share_limit",
            "8/(pi² (2k-1)²): rank one rebuilds 81 % of pure noise.",
            (*_WALK, "n to infinity"),
            lambda: _share_limit_derivation(False),
            uncentred_share_limit,
            tuple(Point({"component": k}, _TOLERANCE) for k in (1, 2, 3)),
            _ORDER,
        ),
        Law(
            "centred_drift_share",
            "Share of the first principal component of a walk with drift.",
            _WALK,
            lambda: _drift_derivation(True),
            centred_drift_share,
            tuple(
                Point({"n": n, "drift": d}, _TOLERANCE)
                for n, d in ((3, 0.5), (4, 1.0), (14, 0.0), (14, 0.3), (14, -1.0))
            ),
            _ORDER,
        ),
        Law(
            "uncentred_drift_share",
            "Share of the first component of displacements of a walk with drift.",
            _WALK,
            lambda: _drift_derivation(False),
            uncentred_drift_share,
            tuple(
                Point({"n": n, "drift": d}, _TOLERANCE)
                for n, d in ((3, 0.5), (3, 2.0), (14, 0.0), (14, 0.3), (14, -1.0))
            ),
            _ORDER,
        ),
        Law(
            "centred_coefficient_r_squared",
            "R² with time of the first principal component of a driftless walk.",
            _WALK,
            lambda: _coefficient_derivation(True),
            centred_coefficient_r_squared,
            tuple(Point({"n": n}, _TOLERANCE) for n in (3, 14, 50)),
            _ORDER,
        ),
        Law(
            "centred_coefficient_limit",
            "96/pi⁴ = .986: the first component of pure noise is a straight line, nearly.",
            (*_WALK, "n to infinity"),
            lambda: _coefficient_limit_derivation(True),
            centred_coefficient_limit,
            (Point({}, _TOLERANCE),),
            _ORDER,
        ),
        Law(
            "uncentred_coefficient_r_squared",
            "R² with time of the leading coefficient of displacements of a driftless walk.",
            _WALK,
            lambda: _coefficient_derivation(False),
            uncentred_coefficient_r_squared,
            tuple(Point({"n": n}, _TOLERANCE) for n in (3, 14, 50)),
            _ORDER,
        ),
        Law(
            "uncentred_coefficient_limit",
            "12 (4/pi² - 1/pi)²/(1/2 - 4/pi²) = .958.",
            (*_WALK, "n to infinity"),
            lambda: _coefficient_limit_derivation(False),
            uncentred_coefficient_limit,
            (Point({}, _TOLERANCE),),
            _ORDER,
        ),
    ),
)
