"""Where a run lies on the phase diagram: its signal ratio S and its curvature x horizon, with intervals.

Model (`theory.curved_bowl`): each element descends noisily in one bowl, from a point. Over the window its mean
displacement is S_i times the standard deviation of its accumulated noise, the mean path and the noise's covariance
are those of curvature x horizon a, and noise is shared between elements so that it has an effective rank r.

- a: maximum likelihood over the elements' increments with normal S_i, which needs their inner products alone;
  interval by the likelihood ratio, r independent elements being counted and not the thousands there are.
- pooled S²: generalised least-squares power of the drift, less that of the noise, over the noise; interval from
  the noncentral F distribution with r and r (intervals - 1) degrees of freedom, the widest over the interval of a.
- r: from the residual inner products, unbiased for normal noise: (tr)² over tr of the square, both corrected.
- distribution of S: empirical Bayes. An element's studentised drift is noncentral t; the weights of a grid of S,
  of either sign alike, are their nonparametric maximum likelihood estimate, found by expectation maximisation
  (Kiefer & Wolfowitz 1956; Koenker & Mizera 2014, JASA 109:674).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lab.linearity.checks import FloatArray, check_trajectory
from lab.linearity.products import increment_products
from theory.curved_bowl import point_kernel
from theory.gaussian_r_squared import mean_r_squared
from theory.phase_diagram import damped_skill, two_point_skill

MINIMUM_INTERVALS = 4
"""Below this, noise and curvature cannot be told apart."""
_CURVATURES = np.concatenate([[0.0], np.geomspace(0.02, 50.0, 120)])
_SIGNALS = np.concatenate([[0.0], np.geomspace(0.125, 32.0, 25)])
_EXPECTATION_STEPS = 500
_QUANTILES = 1000
_LARGEST_RANK = 1e4
_NODES = 64
_LARGE_CENTRALITY = 1e4
_LARGEST_SIGNAL = 1e300


@dataclass(frozen=True)
class Pooled:
    """What the inner products of increments say.

    Attributes:
        curvature_horizon: a, 0 or more.
        curvature_interval: interval of a; the ends 0 and 50 mean that it is open there.
        signal_squared: pooled S², debiased, so that it can be negative for a run without drift.
        signal_squared_interval: interval of the pooled S², 0 or more.
        noise_rank: effective number of independent elements in the noise, 1 or more.
    """

    curvature_horizon: float
    curvature_interval: tuple[float, float]
    signal_squared: float
    signal_squared_interval: tuple[float, float]
    noise_rank: float


@dataclass(frozen=True)
class Placement:
    """A run on the phase diagram.

    Attributes:
        pooled: energy-weighted S², curvature, effective rank, with intervals.
        signals: grid of S, float64 [component].
        weights: share of elements whose S has that size, float64 [component], sum 1.
        expected_r_squared: mean R² that the mixture implies at the fitted curvature.
        measured_r_squared: mean R² of the elements that moved.
        expected_two_point_skill: at horizon ratio 1, from pooled S² and curvature.
        expected_damped_skill: likewise, best damping.
        elements: elements that moved.
    """

    pooled: Pooled
    signals: FloatArray
    weights: FloatArray
    expected_r_squared: float
    measured_r_squared: float
    expected_two_point_skill: float
    expected_damped_skill: float
    elements: int


def place_products(products: FloatArray, steps: ArrayLike, level: float = 0.95) -> Pooled | None:
    """Estimate S², curvature and effective rank from the inner products of increments.

    Args:
        products: [interval, interval], from `lab.linearity.products.increment_products`; of momentum-free
            positions, or of checkpoints that are far apart.
        steps: [checkpoint], one more than intervals.
        level: of the intervals.

    Returns:
        the estimates; None with fewer than four intervals or where nothing moved.
    """
    from scipy.stats import chi2

    time = _unit_time(steps)
    count = len(products)
    if count < MINIMUM_INTERVALS or not np.trace(products) > 0:
        return None
    fits = [_fit(products, *shape) for shape in zip(*_shapes(_CURVATURES, time), strict=True)]
    likelihood = np.array([fit.likelihood for fit in fits])
    best = int(np.argmax(likelihood))
    fit = fits[best]
    rank = min(_effective_rank(fit.residual), _LARGEST_RANK)
    inside = np.flatnonzero(2.0 * rank * (likelihood[best] - likelihood) <= chi2.ppf(level, 1))
    ends = sorted({int(inside[0]), best, int(inside[-1])})
    intervals = [_signal_interval(fits[index], rank, count, level) for index in ends]
    return Pooled(
        curvature_horizon=float(_CURVATURES[best]),
        curvature_interval=(float(_CURVATURES[inside[0]]), float(_CURVATURES[inside[-1]])),
        signal_squared=float((fit.ratio - 1.0) / fit.leverage),
        signal_squared_interval=(min(low for low, _ in intervals), max(high for _, high in intervals)),
        noise_rank=rank,
    )


def place(
    values: ArrayLike,
    steps: ArrayLike,
    level: float = 0.95,
) -> Placement | None:
    """Place a run: pooled estimates, the distribution of S over elements, and what they imply.

    Args:
        values: [checkpoint, element], momentum-free positions (or raw ones, checkpoints far apart).
        steps: [checkpoint].
        level: of the intervals.

    Returns:
        the placement; None with fewer than four intervals or where nothing moved.

    Raises:
        Invalid: see `check_trajectory`.
    """
    from lab.linearity.r_squared import r_squared_unchecked

    table, times = check_trajectory(values, steps)
    moved = table[:, np.any(table != table[0], axis=0)]
    pooled = place_products(increment_products(moved), times, level) if moved.shape[1] else None
    if pooled is None:
        return None
    time = _unit_time(times)
    (covariance,), (drift,) = _shapes(np.array([pooled.curvature_horizon]), time)
    studentised, leverage = _studentised(np.diff(moved, axis=0), covariance, drift)
    weights = signal_distribution(studentised, len(drift) - 1, np.sqrt(leverage) * _SIGNALS)
    path = np.concatenate([[0.0], np.cumsum(drift)])
    kernel = point_kernel(np.array([pooled.curvature_horizon]), time)[0]
    means = np.multiply.outer(_SIGNALS, path)
    expected = mean_r_squared(means, np.broadcast_to(kernel, (len(means), *kernel.shape)), times)
    signal = float(np.sqrt(max(pooled.signal_squared, 0.0)))
    return Placement(
        pooled=pooled,
        signals=_SIGNALS,
        weights=weights,
        expected_r_squared=float(weights @ expected),
        measured_r_squared=float(np.nanmean(r_squared_unchecked(moved, times))),
        expected_two_point_skill=float(two_point_skill(pooled.curvature_horizon, signal, 1.0)),
        expected_damped_skill=float(damped_skill(pooled.curvature_horizon, signal, 1.0)),
        elements=moved.shape[1],
    )


def signal_distribution(studentised: FloatArray, freedom: int, centralities: FloatArray) -> FloatArray:
    """Weights of a mixture of noncentral t distributions of either sign, by expectation maximisation.

    Args:
        studentised: [element].
        freedom: degrees of freedom of the t distribution, 1 or more.
        centralities: [component], 0 or more.

    Returns:
        float64 [component], non-negative, sum 1.
    """
    from scipy.stats import chi

    # some thousand quantiles say as much as all elements, and cost little
    observed = np.quantile(np.abs(studentised), (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    spread = chi.ppf((np.arange(_NODES) + 0.5) / _NODES, freedom) / np.sqrt(freedom)
    centre = observed[:, None] * spread
    density = np.empty((_QUANTILES, len(centralities)))
    for component, centrality in enumerate(centralities):
        both = np.exp(-0.5 * (centre - centrality) ** 2) + np.exp(-0.5 * (centre + centrality) ** 2)
        density[:, component] = (both * spread).mean(axis=1)
    density = np.maximum(density, np.finfo(float).tiny)
    weights: FloatArray = np.full(len(centralities), 1.0 / len(centralities))
    for _ in range(_EXPECTATION_STEPS):
        share = density * weights
        weights = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
    return weights


@dataclass(frozen=True)
class _Fit:
    likelihood: float  # log-likelihood per effective element, up to a constant
    ratio: float  # drift's power over the noise's, 1 without drift
    leverage: float  # g' C^-1 g: how much S² adds to that ratio
    residual: FloatArray  # inner products of whitened residuals, [interval - 1, interval - 1]


def _fit(products: FloatArray, covariance: FloatArray, drift: FloatArray) -> _Fit:
    lower = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(lower, np.linalg.solve(lower, products).T)
    direction = np.linalg.solve(lower, drift)
    leverage = float(direction @ direction)
    basis = np.linalg.svd(direction[None, :])[2]
    turned = basis @ whitened @ basis.T
    residual = turned[1:, 1:]
    freedom = len(drift) - 1
    noise = float(np.trace(residual)) / freedom
    noise = max(noise, np.finfo(float).tiny)
    with np.errstate(over="ignore"):  # infinite where there is no noise at all
        ratio = float(turned[0, 0] / noise)
    if ratio >= 1.0:
        volume = freedom * np.log(noise) + np.log(turned[0, 0])
    else:  # S² is estimated as 0, and the drift's direction tells of the noise as well
        volume = (freedom + 1) * np.log(np.trace(turned) / (freedom + 1))
    likelihood = -0.5 * volume - np.log(np.diag(lower)).sum()
    return _Fit(float(likelihood), ratio, leverage, residual)


def _effective_rank(residual: FloatArray) -> float:
    """(tr Sigma)² / tr Sigma² over elements, unbiased in numerator and denominator for normal noise."""
    freedom = len(residual)
    trace_squared, square_trace = float(np.trace(residual)) ** 2, float((residual**2).sum())
    squares = (freedom * square_trace - trace_squared) / (freedom * (freedom + 2) * (freedom - 1))
    if squares <= 0:
        return np.inf
    whole = (trace_squared - 2 * freedom * squares) / freedom**2
    return max(whole / squares, 1.0)


def _signal_interval(fit: _Fit, rank: float, intervals: int, level: float) -> tuple[float, float]:
    """Invert the noncentral F distribution of the ratio of drift to noise.

    Of a large noncentrality, Patnaik's approximation (Biometrika 36, 1949): a central F of the same first two moments
    of the numerator, good to 1e-4 there.
    """
    from scipy.optimize import brentq
    from scipy.stats import f, ncf

    if not np.isfinite(fit.ratio):  # no noise at all, to rounding
        return np.inf, np.inf
    freedom = rank * (intervals - 1)

    def exceeded(signal_squared: float) -> float:
        centrality = rank * fit.leverage * signal_squared
        if centrality == 0.0:  # where SciPy's noncentral distribution is wrong
            return float(f.sf(fit.ratio, rank, freedom))
        if centrality > _LARGE_CENTRALITY:  # where SciPy's does not always converge
            scale = (rank + centrality) / rank
            return float(f.sf(fit.ratio / scale, rank * scale**2 / (2 * scale - 1), freedom))
        return float(ncf.sf(fit.ratio, rank, freedom, centrality))

    def bound(target: float) -> float:
        if exceeded(0.0) >= target:
            return 0.0
        high = max(1.0, fit.ratio / fit.leverage)
        while exceeded(high) < target and high < _LARGEST_SIGNAL:
            high *= 2.0
        return float(brentq(lambda value: exceeded(value) - target, 0.0, high, xtol=1e-6))

    tail = (1.0 - level) / 2.0
    return bound(tail), bound(1.0 - tail)


def _studentised(
    increments: FloatArray, covariance: FloatArray, drift: FloatArray
) -> tuple[FloatArray, float]:
    """Each element's drift over its own residual noise, and the leverage of S in it."""
    lower = np.linalg.cholesky(covariance)
    direction = np.linalg.solve(lower, drift)
    basis = np.linalg.svd(direction[None, :])[2]
    turned = basis @ np.linalg.solve(lower, increments)
    noise = np.sqrt((turned[1:] ** 2).mean(axis=0))
    positive = noise > 0
    return turned[0, positive] / noise[positive], float(direction @ direction)


def _shapes(curvatures: FloatArray, time: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Covariance [curvature, interval, interval] and mean [curvature, interval] of unit increments."""
    kernels = point_kernel(curvatures, time)
    covariance = np.diff(np.diff(kernels, axis=1), axis=2)
    bend = np.where(curvatures == 0, 1.0, curvatures)[:, None]
    curved = np.expm1(-bend * time) / np.expm1(-bend)
    path = np.where(curvatures[:, None] == 0, time, curved)
    return covariance, np.diff(path, axis=1)


def _unit_time(steps: ArrayLike) -> FloatArray:
    times = np.asarray(steps, dtype=np.float64)
    unit: FloatArray = (times - times[0]) / (times[-1] - times[0])
    return unit
