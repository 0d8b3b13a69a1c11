"""R² of a Gaussian trajectory against time: exact mean, variance and distribution.

A trajectory y ~ N(mean, covariance) is seen at checkpoints t_0 < ... < t_{n-1}. With x the centred y and u the
centred time scaled to unit length, R² = (u'x)²/(x'x): the squared Pearson correlation with time, equal to
1 - SSR/SST of the least-squares line. Its moments are one-dimensional integrals of
E[(u'x)^(2p) exp(-z x'x)] (the ratio of quadratic forms of Sawa 1972, Magnus 1986), its distribution one
inversion of a moment generating function (Gil-Pelaez 1951, Imhof 1961; the contour is moved to the saddle point as
in Rice 1980, so that tails keep their relative accuracy). Nelson and Kang (1984) gave the limit .44 for walks by
simulation; here it is exact at every n.

Numbers to remember, driftless walk: mean .538 (n=4), .442 (n=14), .434 (n to infinity).
"""

from __future__ import annotations

from functools import cache
from typing import Any

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
    checkpoint_steps,
    covariance_matrix,
    finite,
    identity,
    non_negative,
    probability,
    whole_number,
)

Array = NDArray[np.float64]

_BLOCK = 1 << 19  # elements of one temporary: keeps a block of cells inside the processor's cache
_LEFT = -3.6  # exp(x - exp(-x)) is 1e-18 there


# ----------------------------------------------------------------------------------------------------------------
# Any Gaussian trajectory
# ----------------------------------------------------------------------------------------------------------------


def mean_r_squared(mean: ArrayLike, covariance: ArrayLike, steps: ArrayLike) -> Array:
    """Exact E[R²].

    Args:
        mean: expected trajectory, shape [..., checkpoint].
        covariance: of the trajectory, shape [..., checkpoint, checkpoint], positive semi-definite. The leading
            axes broadcast against those of `mean`; a covariance shared by many means is decomposed once.
        steps: checkpoint times, shape [checkpoint], three or more, strictly increasing, any spacing.

    Returns:
        E[R²], shape [...]; NaN where the trajectory is constant, for which R² is undefined.

    Raises:
        InvalidArgument: a shape that does not fit, steps out of order, a covariance that is none.
    """
    return ratio_moments(*_principal_axes(mean, covariance, steps))[0]


def variance_r_squared(mean: ArrayLike, covariance: ArrayLike, steps: ArrayLike) -> Array:
    """Exact variance of R²; arguments, shape and errors as for `mean_r_squared`."""
    first, second = ratio_moments(*_principal_axes(mean, covariance, steps))
    return np.maximum(second - first**2, 0.0)


def cumulative_r_squared(r: ArrayLike, mean: ArrayLike, covariance: ArrayLike, steps: ArrayLike) -> Array:
    """Exact P(R² <= r).

    Args:
        r: thresholds, shape [...], broadcast against the leading axes of the rest; outside [0, 1] gives 0 or 1.
        mean: expected trajectory, shape [..., checkpoint].
        covariance: of the trajectory, shape [..., checkpoint, checkpoint].
        steps: checkpoint times, shape [checkpoint].

    Returns:
        Probabilities, shape [...]; NaN where the trajectory is constant.

    Raises:
        InvalidArgument: as for `mean_r_squared`.
    """
    return cumulative(finite("r", r), *_principal_axes(mean, covariance, steps))


def quantile_r_squared(level: ArrayLike, mean: ArrayLike, covariance: ArrayLike, steps: ArrayLike) -> Array:
    """The r at which P(R² <= r) = level, to 1e-12.

    Args:
        level: probabilities in [0, 1], shape [...].
        mean: expected trajectory, shape [..., checkpoint].
        covariance: of the trajectory, shape [..., checkpoint, checkpoint].
        steps: checkpoint times, shape [checkpoint].

    Returns:
        Quantiles, shape [...]; NaN where the trajectory is constant.

    Raises:
        InvalidArgument: a level outside [0, 1], or as for `mean_r_squared`.
    """
    return quantile(probability("level", level), *_principal_axes(mean, covariance, steps))


def _principal_axes(mean: ArrayLike, covariance: ArrayLike, steps: ArrayLike) -> tuple[Array, Array, Array]:
    """Variances, loadings of unit time and means along the principal axes of the centred trajectory.

    Returns:
        eigenvalues [..., axis], loading [..., axis] and centre [..., axis], with n - 1 axes.
    """
    times = checkpoint_steps("steps", steps)
    expected = finite("mean", mean)
    spread = covariance_matrix("covariance", covariance, definite=False)
    n = times.size
    if expected.ndim < 1 or expected.shape[-1] != n:
        raise InvalidArgument("mean", f"needs {n} checkpoints in its last axis, got shape {expected.shape}")
    if spread.shape[-1] != n:
        raise InvalidArgument("covariance", f"needs {n} checkpoints, got shape {spread.shape}")
    try:
        np.broadcast_shapes(expected.shape[:-1], spread.shape[:-2])
    except ValueError as error:
        raise InvalidArgument("mean", f"shape {expected.shape} does not fit {spread.shape}") from error
    return decompose(expected, spread, times)


def decompose(mean: Array, kernel: Array, times: Array) -> tuple[Array, Array, Array]:
    """As `_principal_axes`, unchecked; the kernel need only be a covariance up to a constant (a variogram)."""
    contrasts = _time_contrasts(times)
    # taken from the first checkpoint, so that a constant leaves exactly nothing
    mean = mean - mean[..., :1]
    kernel = kernel - kernel[..., :1, :]
    kernel = kernel - kernel[..., :, :1]
    eigenvalues, axes = np.linalg.eigh(contrasts.T @ kernel @ contrasts)
    centre = ((mean @ contrasts)[..., None, :] @ axes)[..., 0, :]
    return np.maximum(eigenvalues, 0.0), axes[..., 0, :], centre


def _time_contrasts(times: Array) -> Array:
    """Orthonormal basis [checkpoint, contrast] of the centred trajectories, unit centred time first."""
    n = times.size
    centred = times - times.mean()
    basis = np.column_stack([np.ones(n), centred / np.linalg.norm(centred), np.eye(n)[:, 1:-1]])
    orthonormal, triangle = np.linalg.qr(basis)
    return (orthonormal * np.sign(np.diag(triangle)))[:, 1:]


def ratio_moments(eigenvalues: Array, loading: Array, centre: Array) -> tuple[Array, Array]:
    """E[R²] and E[R⁴] for independent coordinates x_k ~ N(centre_k, eigenvalues_k), u'x = sum loading_k x_k."""
    shape = np.broadcast_shapes(eigenvalues.shape, loading.shape, centre.shape)
    variances, weights, means = (
        np.broadcast_to(a, shape).reshape(-1, shape[-1]) for a in (eigenvalues, loading, centre)
    )
    first = np.full(variances.shape[0], np.nan)
    second = first.copy()
    scale = variances.sum(-1) + (means**2).sum(-1)
    live = np.flatnonzero(scale > 0)
    if live.size:
        variances = variances[live] / scale[live, None]
        energies = means[live] ** 2 / scale[live, None]
        crossed = weights[live] * means[live] / np.sqrt(scale[live, None])
        spreads = weights[live] ** 2 * variances
        right = _log_cutoff(variances, energies)
        # the trapezoid rule in x, z = exp(x - exp(-x)), converges like exp(-pi²/step)
        count = int(np.ceil((right.max() - _LEFT) / 0.2)) + 1
        block = max(1, _BLOCK // (count * shape[-1]))
        for start in range(0, live.size, block):
            cells = slice(start, start + block)
            x = np.linspace(_LEFT, right[cells], count, axis=-1)
            z = np.exp(x - np.exp(-x))
            measure = z * (1 + np.exp(-x)) * ((right[cells] - _LEFT) / (count - 1))[:, None]
            growth = 2.0 * z[..., None] * variances[cells, None, :]
            growth += 1.0
            shrink = 1.0 / growth
            log_root = _log_product(growth)
            sums = shrink @ np.stack([energies[cells], spreads[cells]], axis=-1)
            tilted = (shrink @ crossed[cells, :, None])[..., 0]
            square, spread = tilted**2, sums[..., 1]
            weight = np.exp(-0.5 * log_root - z * sums[..., 0]) * measure
            first[live[cells]] = (weight * (square + spread)).sum(-1)
            fourth = square**2 + 6 * square * spread + 3 * spread**2
            second[live[cells]] = (weight * z * fourth).sum(-1)
    return first.reshape(shape[:-1]), second.reshape(shape[:-1])


def _log_product(factors: Array) -> Array:
    """Log of the product over the last axis, eight factors to a logarithm (none may exceed 1e38)."""
    total = np.zeros(factors.shape[:-1])
    for start in range(0, factors.shape[-1], 8):
        product = factors[..., start].copy()
        for k in range(start + 1, min(start + 8, factors.shape[-1])):
            product *= factors[..., k]
        total += np.log(product)
    return total


def _log_cutoff(variances: Array, energies: Array) -> Array:
    """log z beyond which E[exp(-z x'x)] < 1e-17, shape [cell]; at most 85."""
    low, high = np.zeros(variances.shape[0]), np.full(variances.shape[0], 85.0)
    for _ in range(10):
        middle = (low + high) / 2
        z = np.exp(middle)[:, None]
        growth = 1 + 2 * z * variances
        decay = 0.5 * np.log(growth).sum(-1) + (z * energies / growth).sum(-1)
        low, high = np.where(decay < 39, middle, low), np.where(decay < 39, high, middle)
    return high


def cumulative(r: Array, eigenvalues: Array, loading: Array, centre: Array) -> Array:
    """P((u'x)² <= r x'x) by inverting the moment generating function along a line through its saddle point."""
    lead = np.broadcast_shapes(r.shape, eigenvalues.shape[:-1], loading.shape[:-1], centre.shape[:-1])
    axes = eigenvalues.shape[-1]
    variances, weights, means = (
        np.broadcast_to(a, (*lead, axes)).reshape(-1, axes) for a in (eigenvalues, loading, centre)
    )
    threshold = np.broadcast_to(r, lead).ravel()
    scale = variances.sum(-1) + (means**2).sum(-1)
    result = np.where(threshold >= 1, 1.0, 0.0)
    frozen = (variances.sum(-1) <= 1e-28 * scale) & (scale > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        exact = (weights * means).sum(-1) ** 2 / (means**2).sum(-1)
    result[frozen] = exact[frozen] <= threshold[frozen]
    inside = np.flatnonzero((threshold > 0) & (threshold < 1) & ~frozen & (scale > 0))
    block = max(1, _BLOCK // (64 * axes))
    for start in range(0, inside.size, block):
        cells = inside[start : start + block]
        result[cells] = _invert(
            threshold[cells, None],
            variances[cells] / scale[cells, None],
            weights[cells],
            means[cells] / np.sqrt(scale[cells, None]),
        )
    result[~(scale > 0)] = np.nan
    return result.reshape(lead)


def _invert(r: Array, variances: Array, weights: Array, means: Array) -> Array:
    """P(Q <= 0), Q = (u'x)² - r x'x, shape [cell]; 0 < r < 1, traces scaled to one."""
    spreads, crossed, energies = weights**2 * variances, weights * means, means**2

    def log_generating(s: NDArray[Any]) -> NDArray[Any]:
        # log E exp(sQ), s of shape [cell, node]: tilt by exp(-s r x'x) first, then by exp(s (u'x)²)
        growth = 1 + 2 * (s * r)[..., None] * variances[:, None, :]
        spread = (spreads[:, None, :] / growth).sum(-1)
        tilted = (crossed[:, None, :] / growth).sum(-1)
        remaining = 1 - 2 * s * spread
        exponent = s * tilted**2 / remaining - s * r * (energies[:, None, :] / growth).sum(-1)
        result: NDArray[Any] = exponent - 0.5 * (np.log(growth).sum(-1) + np.log(remaining))
        return result

    # the moment generating function lives on -1/(2 r largest variance) < s < root of 1 = 2 s spread(s)
    left = 0.5 / (r[:, 0] * variances.max(-1))
    low, high = np.zeros(r.shape[0]), np.full(r.shape[0], 80.0)
    for _ in range(60):
        middle = (low + high) / 2
        s = np.exp(middle - 3)[:, None]
        short = 2 * s[:, 0] * (spreads / (1 + 2 * s * r * variances)).sum(-1) < 1
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    right = np.exp(low - 3)
    expected = (crossed.sum(-1)) ** 2 + spreads.sum(-1) - r[:, 0] * (energies.sum(-1) + variances.sum(-1))
    upper = expected < 0  # invert the smaller side: P(Q > 0) when Q leans negative
    end = np.where(upper, right, -left)
    fractions = np.concatenate([2.0 ** -np.arange(1, 110), 1 - 2.0 ** -np.arange(2, 12)])
    candidates = end[:, None] * fractions
    with np.errstate(all="ignore"):
        height = np.nan_to_num(log_generating(candidates) - np.log(np.abs(candidates)), nan=np.inf)
    best = height.argmin(-1)
    rows = np.arange(r.shape[0])
    base = candidates[rows, best]
    # half-width of the saddle: where the integrand has fallen to a tenth or so; found on a coarse grid, which also
    # finds the far end, where only the algebraic tail is left
    reach = np.abs(base)[:, None] * 2.0 ** np.arange(-40, 120)
    with np.errstate(all="ignore"):
        fall = (log_generating(base[:, None] + 1j * reach) - np.log(base[:, None] + 1j * reach)).real
        fall = np.nan_to_num(fall - height[rows, best][:, None], nan=-np.inf)
    width = reach[rows, (fall < -1).argmax(-1)]
    gone = fall + np.log(reach / width[:, None]) < -39
    far = np.where(gone.any(-1), reach[rows, gone.argmax(-1)], reach[:, -1])
    stop = np.log(far / width)
    count = int(np.ceil((stop.max() - _LEFT) / 0.06)) + 1
    x = np.linspace(_LEFT, stop, count, axis=-1)
    y = width[:, None] * np.exp(x - np.exp(-x))
    measure = y * (1 + np.exp(-x)) * ((stop - _LEFT) / (count - 1))[:, None]
    s = base[:, None] + 1j * y
    tail = (np.exp(log_generating(s)) / s * measure).real.sum(-1) / np.pi
    probability_above = np.where(upper, tail, 1 + tail)
    return np.clip(1 - probability_above, 0.0, 1.0)


def quantile(level: Array, eigenvalues: Array, loading: Array, centre: Array) -> Array:
    lead = np.broadcast_shapes(level.shape, eigenvalues.shape[:-1], centre.shape[:-1])
    wanted = np.broadcast_to(level, lead)
    low, high = np.zeros(lead), np.ones(lead)
    for _ in range(40):
        middle = (low + high) / 2
        below = cumulative(middle, eigenvalues, loading, centre)
        low, high = np.where(below < wanted, middle, low), np.where(below < wanted, high, middle)
    constant = np.isnan(cumulative(np.full(lead, 0.5), eigenvalues, loading, centre))
    result = np.where(wanted == 0, 0.0, np.where(wanted == 1, 1.0, (low + high) / 2))
    return np.where(constant, np.nan, result)


# ----------------------------------------------------------------------------------------------------------------
# A random walk, straight or curved drift under it, equally spaced checkpoints
# ----------------------------------------------------------------------------------------------------------------


def _walk_axes(n: int, signal: Array, curvature: Array) -> tuple[Array, Array, Array]:
    """Principal axes of a unit walk at n equally spaced checkpoints, in closed form (the cosine transform)."""
    half = np.pi * np.arange(1, n) / (2 * n)
    eigenvalues = 0.25 / np.sin(half) ** 2
    odd = np.arange(1, n) % 2 == 1
    line = np.where(odd, -2.0, 0.0) * np.cos(half) * eigenvalues * np.sqrt(2 / n)
    bow = np.where(odd, 0.0, 2.0) * np.cos(half) * eigenvalues * np.sqrt(2 * n) / (2 * (n - 1))
    drift = signal / np.sqrt(n - 1)
    centre = drift[..., None] * (line + curvature[..., None] * bow)
    return eigenvalues, line * np.sqrt(12 / (n**3 - n)), centre


def over_checkpoint_counts(n: ArrayLike, *parameters: ArrayLike) -> tuple[NDArray[np.int64], list[Array]]:
    counts = whole_number("n", n, 3)
    try:
        counts, *arrays = np.broadcast_arrays(counts, *parameters)
    except ValueError as error:
        raise InvalidArgument("n", f"parameters do not broadcast: {error}") from error
    return counts, [np.asarray(a, dtype=np.float64) for a in arrays]


def curved_walk_moments(
    n: ArrayLike, signal: ArrayLike = 0.0, curvature: ArrayLike = 0.0
) -> tuple[Array, Array]:
    """Exact mean and variance of R² for a (curved) drift under a random walk, n equally spaced checkpoints.

    The mean path over the window, tau from 0 to 1, is D (tau + curvature (tau² - tau)/2), D = signal x (standard
    deviation of the noise accumulated over the window).

    Args:
        n: number of checkpoints, 3 or more.
        signal: S, drift over the window in units of the noise accumulated over it; inf means no noise.
        curvature: (slope at the end - slope at the start)/mean slope; 0 is straight, -2 stops at the end.

    Returns:
        mean and variance of R², in the broadcast shape of the arguments.

    Raises:
        InvalidArgument: n below 3, S negative, a curvature that is not finite.
    """
    size = non_negative("signal", signal, infinite=True)
    counts, (size, bend) = over_checkpoint_counts(n, size, finite("curvature", curvature))
    mean = np.empty(counts.shape)
    variance = np.empty(counts.shape)
    for count in np.unique(counts):
        cells = counts == count
        infinite = np.isinf(size[cells])
        finite_size = np.where(infinite, 1.0, size[cells])
        eigenvalues, loading, centre = _walk_axes(int(count), finite_size, bend[cells])
        if infinite.any():
            eigenvalues = np.where(infinite[:, None], 0.0, eigenvalues)
        first, second = ratio_moments(eigenvalues, loading, centre)
        mean[cells], variance[cells] = first, np.maximum(second - first**2, 0.0)
    return mean, variance


def random_walk_mean(n: ArrayLike) -> Array:
    """Exact E[R²] of a driftless random walk at n equally spaced checkpoints; errors as `curved_walk_moments`."""
    return curved_walk_moments(n)[0]


def random_walk_variance(n: ArrayLike) -> Array:
    """Exact variance of R² of a driftless random walk; errors as `curved_walk_moments`."""
    return curved_walk_moments(n)[1]


def drift_walk_mean(n: ArrayLike, drift: ArrayLike) -> Array:
    """Exact E[R²] of a walk with steps of mean `drift` and unit standard deviation per checkpoint interval.

    Args:
        n: number of checkpoints, 3 or more.
        drift: per interval, in standard deviations of one interval's noise; either sign; S = |drift| sqrt(n-1).

    Raises:
        InvalidArgument: as `curved_walk_moments`.
    """
    rate = np.abs(_real("drift", drift))
    return curved_walk_moments(n, rate * np.sqrt(whole_number("n", n, 3) - 1.0))[0]


def curved_walk_mean(n: ArrayLike, signal: ArrayLike, curvature: ArrayLike) -> Array:
    """Exact E[R²] of a curved drift under a walk: the first of `curved_walk_moments`."""
    return curved_walk_moments(n, signal, curvature)[0]


def walk_cumulative(n: ArrayLike, r: ArrayLike, signal: ArrayLike = 0.0) -> Array:
    """Exact P(R² <= r) of a walk with straight drift, n equally spaced checkpoints.

    Args:
        n: number of checkpoints, 3 or more.
        r: threshold.
        signal: S, drift over the window in units of the noise accumulated over it; finite.

    Raises:
        InvalidArgument: n below 3, S negative or infinite, r not finite.
    """
    counts, (threshold, size) = over_checkpoint_counts(n, finite("r", r), non_negative("signal", signal))
    result = np.empty(counts.shape)
    for count in np.unique(counts):
        cells = counts == count
        axes = _walk_axes(int(count), size[cells], np.zeros(int(cells.sum())))
        result[cells] = cumulative(threshold[cells], *axes)
    return result


def walk_quantile(n: ArrayLike, level: ArrayLike, signal: ArrayLike = 0.0) -> Array:
    """The R² that a walk with straight drift stays below with probability `level`; inverse of `walk_cumulative`."""
    counts, (wanted, size) = over_checkpoint_counts(
        n, probability("level", level), non_negative("signal", signal)
    )
    result = np.empty(counts.shape)
    for count in np.unique(counts):
        cells = counts == count
        axes = _walk_axes(int(count), size[cells], np.zeros(int(cells.sum())))
        result[cells] = quantile(wanted[cells], *axes)
    return result


def random_walk_limit() -> Array:
    """E[R²] of a driftless walk as n grows without bound (.434): the null of a finely recorded run."""
    x = np.linspace(-17.0, 6.5, 400)
    s = np.exp(x)
    # 1/s - 12/s³ + 24 tanh(s/2)/s⁴ cancels at small s, where its Taylor series takes over
    series = s / 10 - 17 * s**3 / 1680 + 31 * s**5 / 30240 - 691 * s**7 / 6652800
    with np.errstate(over="ignore"):
        closed = 1 / s - 12 / s**3 + 24 * np.tanh(s / 2) / s**4
        density = np.where(s < 0.05, series, closed) * np.sqrt(s / np.sinh(s))
    return np.asarray((density * s).sum() * (x[1] - x[0]))


def gaussian_drifts_mean(n: ArrayLike, signal_squared: ArrayLike) -> Array:
    """Exact E[R²] over coordinates whose drifts are themselves Gaussian with mean zero and pooled S².

    Args:
        n: number of checkpoints, 3 or more.
        signal_squared: pooled S²: mean square of the drift over the window in units of accumulated noise variance.

    Raises:
        InvalidArgument: n below 3, S² negative or infinite.
    """
    counts, (power,) = over_checkpoint_counts(n, non_negative("signal_squared", signal_squared))
    result = np.empty(counts.shape)
    for count in np.unique(counts):
        cells = counts == count
        time = np.arange(count, dtype=np.float64)
        walk = np.minimum.outer(time, time)
        spread = walk + power[cells][:, None, None] / (count - 1) * np.outer(time, time)
        result[cells] = mean_r_squared(np.zeros(int(count)), spread, time)
    return result


def sparse_drifts_mean(n: ArrayLike, signal_squared: ArrayLike, share: ArrayLike) -> Array:
    """Exact E[R²] over coordinates of which a share carries all the drift, equally; the rest only walk.

    Args:
        n: number of checkpoints, 3 or more.
        signal_squared: pooled S², over all coordinates; those that drift have S² = signal_squared/share.
        share: of the coordinates that drift, in (0, 1]; 1 is the population of equal drifts.

    Raises:
        InvalidArgument: n below 3, S² negative or infinite, a share of 0 or outside [0, 1].
    """
    part = probability("share", share)
    if np.any(part == 0):
        raise InvalidArgument("share", "must be above 0: someone has to carry the drift")
    power = non_negative("signal_squared", signal_squared)
    return part * curved_walk_moments(n, np.sqrt(power / part))[0] + (1 - part) * random_walk_mean(n)


def three_checkpoints_mean(linear_variance: ArrayLike, quadratic_variance: ArrayLike) -> Array:
    """Exact E[R²] at three equally spaced checkpoints, zero mean, uncorrelated contrasts: a closed form.

    Args:
        linear_variance: of (y_2 - y_0)/sqrt(2), any unit squared.
        quadratic_variance: of (y_0 - 2 y_1 + y_2)/sqrt(6), same unit.

    Raises:
        InvalidArgument: a negative or infinite variance.
    """
    line = np.sqrt(non_negative("linear_variance", linear_variance))
    bow = np.sqrt(non_negative("quadratic_variance", quadratic_variance))
    with np.errstate(invalid="ignore"):
        return np.asarray(line / (line + bow))


def _real(argument: str, value: ArrayLike) -> Array:
    """Real numbers, infinities allowed."""
    array = np.asarray(value, dtype=np.float64)
    if np.isnan(array).any():
        raise InvalidArgument(argument, f"must not be NaN, got {value!r}")
    return array


# ----------------------------------------------------------------------------------------------------------------
# Derivations
# ----------------------------------------------------------------------------------------------------------------

_z = sympy.Symbol("z", positive=True)
_n = sympy.Symbol("n", integer=True, positive=True)
_k = sympy.Symbol("k", integer=True, positive=True)
_j = sympy.Symbol("j", integer=True)


@cache
def tilted_coordinate() -> tuple[Step, ...]:
    """One Gaussian coordinate under the weight exp(-z x²): again Gaussian, shrunk by 1/(1 + 2 z variance)."""
    x, source, mean, linear = sympy.symbols("x s mean B", real=True)
    variance, quadratic = sympy.symbols("variance A", positive=True)
    gaussian = sympy.expand(
        sympy.integrate(sympy.exp(-quadratic * x**2 + linear * x), (x, -sympy.oo, sympy.oo))
    )
    log_generating = sympy.expand_log(sympy.log(gaussian), force=True).subs(
        {quadratic: _z + 1 / (2 * variance), linear: source + mean / variance}
    )
    log_generating -= mean**2 / (2 * variance) + sympy.log(2 * sympy.pi * variance) / 2
    growth = 1 + 2 * _z * variance
    at_zero = log_generating.subs(source, 0)
    return (
        Step("Gaussian integral of exp(-A x² + B x)", gaussian),
        Step("log E[exp(-z x² + s x)]: A = z + 1/(2 variance), B = s + mean/variance", log_generating),
        identity(
            "at s = 0, the log weight (no mean)",
            sympy.exp(2 * at_zero.subs(mean, 0)),
            1 / growth,
        ),
        identity("to which the mean adds", at_zero - at_zero.subs(mean, 0), -_z * mean**2 / growth),
        identity(
            "tilted mean: first derivative", sympy.diff(log_generating, source).subs(source, 0), mean / growth
        ),
        identity(
            "tilted variance: second derivative", sympy.diff(log_generating, source, 2), variance / growth
        ),
    )


@cache
def _normal_moments() -> tuple[sympy.Expr, sympy.Expr, tuple[Step, ...]]:
    """E[y²] and E[y⁴] of y ~ N(a, b) from the generating function."""
    source, a = sympy.symbols("s a", real=True)
    b = sympy.Symbol("b", positive=True)
    generating = sympy.exp(a * source + b * source**2 / 2)
    second, fourth = (sympy.expand(sympy.diff(generating, source, order).subs(source, 0)) for order in (2, 4))
    return (
        second,
        fourth,
        (
            Step("second moment of the tilted u'x ~ N(a, b)", second),
            Step("fourth moment of the tilted u'x ~ N(a, b)", fourth),
        ),
    )


@cache
def _walk_spectrum() -> tuple[sympy.Expr, sympy.Expr, sympy.Expr, tuple[Step, ...]]:
    """Eigenvalue and the projections of j and j(j - (n-1)) on eigenvector k of the centred walk, for any n."""
    theta = sympy.Symbol("theta", positive=True)

    def vector(index: sympy.Expr) -> sympy.Expr:
        return sympy.cos(theta * (index + sympy.Rational(1, 2)))

    stiffness = 4 * sympy.sin(theta / 2) ** 2
    interior = identity(
        "increments are white, so the centred covariance inverts the second difference; a cosine is its eigenvector",
        sympy.expand_trig(2 * vector(_j) - vector(_j - 1) - vector(_j + 1)),
        sympy.expand_trig(stiffness * vector(_j)),
    )
    start = identity(
        "left end", vector(sympy.Integer(0)) - vector(sympy.Integer(1)), stiffness * vector(sympy.Integer(0))
    )
    end = identity(
        "right end, v_n = v_{n-1}, as sin(k pi) = 0 at theta = k pi/n",
        sympy.expand_trig(sympy.cos(theta * _n - theta / 2) - sympy.cos(theta * _n + theta / 2)),
        2 * sympy.sin(theta * _n) * sympy.sin(theta / 2),
    )
    norm = sympy.summation(sympy.cos(theta * (_j + sympy.Rational(1, 2))) ** 2, (_j, 0, 3)).subs(
        theta, sympy.pi * _k / 4
    )
    norms = identity(
        "squared length n/2 (sympy sums it at n = 4, k = 1; cosines are orthogonal for every n)",
        sympy.simplify(norm.subs(_k, 1)),
        sympy.Integer(2),
    )
    half = sympy.pi * _k / (2 * _n)
    eigenvalue = 1 / stiffness.subs(theta, 2 * half)
    first = vector(sympy.Integer(0)).subs(theta, 2 * half)
    # v_{n-1} = cos(k pi - half): sympy folds the whole multiple of pi
    last = sympy.expand_trig(sympy.cos(sympy.pi * _k - half))
    scale = sympy.sqrt(2 / _n)
    # second differences of j, free ends: (-1, 0, ..., 0, 1); of j(j - (n-1)): n at both ends beside a constant -2
    ramp = _j
    bow = _j * (_j - (_n - 1))

    def free_end(path: sympy.Expr, at: sympy.Expr, inward: sympy.Expr) -> sympy.Expr:
        return sympy.expand(path.subs(_j, at) - path.subs(_j, inward))

    def bulk(path: sympy.Expr) -> sympy.Expr:
        return sympy.expand(2 * path - path.subs(_j, _j - 1) - path.subs(_j, _j + 1))

    def project(path: sympy.Expr) -> sympy.Expr:
        # constants drop out, as every eigenvector sums to zero
        constant = bulk(path)
        left = free_end(path, sympy.Integer(0), sympy.Integer(1)) - constant
        right = free_end(path, _n - 1, _n - 2) - constant
        return sympy.simplify(scale * eigenvalue * (left * first + right * last))

    line, curve = project(ramp), project(bow)
    steps = (
        interior,
        start,
        end,
        norms,
        Step("eigenvalue k of the centred walk", eigenvalue),
        Step("projection of the line j on eigenvector k, by parts", line),
        Step("projection of j(j - (n-1)) on eigenvector k, by parts", curve),
    )
    for size in (3, 4, 5):
        for index in range(1, size):
            at = {_n: size, _k: index}
            for path, projected in ((ramp, line), (bow, curve)):
                direct = sum(
                    path.subs({_j: i, _n: size})
                    * (scale * vector(sympy.Integer(i))).subs(theta, 2 * half).subs(at)
                    for i in range(size)
                )
                if abs(sympy.N(direct - projected.subs(at), 30)) > 1e-25:
                    raise ArithmeticError(f"projection at n={size}, k={index}")
    return eigenvalue, line, curve, steps


@cache
def _walk_derivation(kind: str, moment: int) -> Derivation:
    """E[R^(2 moment)] as an integral, for `kind` driftless, drift or curved; any n."""
    eigenvalue, line, curve, steps = _walk_spectrum()
    loading = line * sympy.sqrt(12 / (_n**3 - _n))
    drift = sympy.Symbol("drift", real=True)
    signal = sympy.Symbol("signal", nonnegative=True)
    curvature = sympy.Symbol("curvature", real=True)
    centre = {
        "driftless": sympy.Integer(0),
        "drift": drift * line,
        "curved": signal / sympy.sqrt(_n - 1) * (line + curvature * curve / (2 * (_n - 1))),
    }[kind]
    growth = 1 + 2 * _z * eigenvalue

    def over_axes(term: sympy.Expr) -> sympy.Expr:
        return sympy.Sum(term, (_k, 1, _n - 1))

    mean = over_axes(loading * centre / growth) if centre != 0 else sympy.Integer(0)
    spread = over_axes(loading**2 * eigenvalue / growth)
    weight = 1 / sympy.sqrt(sympy.Product(growth, (_k, 1, _n - 1)))
    if centre != 0:
        weight *= sympy.exp(-_z * over_axes(centre**2 / growth))
    second, fourth, moments = _normal_moments()
    symbols = {symbol.name: symbol for symbol in second.free_symbols}
    tilted = (second if moment == 1 else fourth).subs({symbols["a"]: mean, symbols["b"]: spread})
    integrand = weight * tilted * _z ** (moment - 1)
    result = sympy.Integral(integrand, (_z, 0, sympy.oo))
    inverse = sympy.Symbol("q", positive=True)
    power = sympy.integrate(
        _z ** (moment - 1) * sympy.exp(-_z * inverse) / sympy.gamma(moment), (_z, 0, sympy.oo)
    )
    return Derivation(
        (
            identity("a power of 1/q as an integral, q = x'x", power, inverse**-moment),
            *tilted_coordinate(),
            *moments,
            *steps,
            Step("mean a of u'x under the tilt", mean),
            Step("variance b of u'x under the tilt", spread),
            Step("weight E[exp(-z x'x)]", weight),
            Step("integral over z", result),
        ),
        result,
    )


@cache
def _variance_derivation() -> Derivation:
    first, second = _walk_derivation("driftless", 1), _walk_derivation("driftless", 2)
    result = second.result - first.result**2
    return Derivation((*second.steps, *first.steps, Step("variance", result)), result)


@cache
def _limit_derivation() -> Derivation:
    """The walk's E[R²] as n grows: sums over odd axes become hyperbolic functions."""
    eigenvalue, line, _, spectrum = _walk_spectrum()
    s = sympy.Symbol("s", positive=True)
    x = sympy.Symbol("x", positive=True)
    in_angle = {_n: sympy.pi * _k / (2 * x)}  # n to infinity is x to 0
    axis = sympy.limit((eigenvalue / _n**2).subs(in_angle), x, 0)
    odd_line = line.subs((-1) ** _k, -1)
    squared = (odd_line**2 * 12 / (_n**3 - _n)).subs(in_angle)
    loading = sympy.limit(sympy.simplify(squared), x, 0)
    steps = [
        *spectrum,
        Step("axis k per n², n to infinity", axis),
        Step("squared loading on axis k (odd k; none on even)", loading),
    ]
    # determinant at finite n, then its limit
    phi, w = sympy.symbols("phi w", positive=True)
    for size in (3, 4):
        squares = ((w - 1 / w) / 2) ** 2
        product = sympy.prod(
            [1 + squares / sympy.sin(sympy.pi * i / (2 * size)) ** 2 for i in range(1, size)]
        )
        steps.append(
            identity(
                f"determinant at n = {size}, w = exp(phi): sinh(2 n phi)/(n sinh(2 phi)) (checked at 3 and 4)",
                sympy.radsimp(sympy.expand(product * (w**2 - w**-2))),
                sympy.expand((w ** (2 * size) - w ** (-2 * size)) / size),
            )
        )
    chebyshev = sympy.sinh(2 * _n * phi) / (_n * sympy.sinh(2 * phi))
    determinant = sympy.limit(chebyshev.subs(phi, s / (2 * _n)), _n, sympy.oo)
    steps.append(Step("limit of the determinant at z = s²/2 (per n²)", determinant))
    # odd axes are all axes without the even ones, which are all axes of half the s
    odd = sympy.simplify((determinant / determinant.subs(s, s / 2)).rewrite(sympy.exp)).rewrite(sympy.cosh)
    steps.append(identity("odd axes only", odd, sympy.cosh(s / 2)))
    poles = sympy.diff(sympy.log(sympy.cosh(s / 2)), s) / (2 * s)
    steps.append(Step("sum over odd k of 1/(pi² k² + s²), the log-derivative", poles))
    expansion = sympy.series(poles, s, 0, 4).removeO()
    inverse_first = expansion.coeff(s, 0)
    inverse_second = -expansion.coeff(s, 2)
    numerator = sympy.simplify(loading * axis * _k**6 * sympy.pi**6)
    fractions = sympy.apart(numerator / (x**2 * (x + s**2)), x)
    spread = sum(
        coefficient * total
        for coefficient, total in (
            (sympy.limit(fractions * (x + s**2), x, -(s**2)), poles),
            (sympy.limit(fractions * x**2, x, 0), inverse_second),
            (sympy.limit(sympy.diff(sympy.together(fractions * x**2), x), x, 0), inverse_first),
        )
    )
    spread = sympy.expand(sympy.simplify(spread))
    steps.append(Step("variance of u'x under the tilt, by partial fractions in x = pi² k²", spread))
    result = sympy.Integral(sympy.expand(spread * s) / sympy.sqrt(determinant), (s, 0, sympy.oo))
    steps.append(Step("integral, dz = s ds", result))
    return Derivation(tuple(steps), result)


@cache
def _distribution_derivation() -> Derivation:
    """P(R² <= r) by Gil-Pelaez, for a walk with drift of any n, in real terms (modulus and phase, as Imhof)."""
    eigenvalue, line, _, spectrum = _walk_spectrum()
    loading = line * sympy.sqrt(12 / (_n**3 - _n))
    t, r = sympy.symbols("t r", positive=True)
    signal = sympy.Symbol("signal", nonnegative=True)
    centre = signal / sympy.sqrt(_n - 1) * line
    # log E exp(-q y²), y ~ N(a, b): the tilted coordinate once more, continued to imaginary q
    a, b, q = sympy.symbols("a b q")
    _, _, at_rest, moved, *_ = tilted_coordinate()
    log_weight = moved.expression.rhs + sympy.log(at_rest.expression.rhs) / 2
    names = {symbol.name: symbol for symbol in log_weight.free_symbols}
    log_weight = log_weight.subs({names["z"]: q, names["mean"]: a, names["variance"]: b})
    # tilt 1: q = i t r on every coordinate; 1/(1 + 2 i t r variance) split into real and imaginary part
    variance = sympy.Symbol("variance", positive=True)
    real, imaginary = (1 / (1 + 2 * sympy.I * t * r * variance)).as_real_imag()

    def over_axes(term: sympy.Expr, part: sympy.Expr) -> sympy.Expr:
        return sympy.Sum(term * part.subs(variance, eigenvalue), (_k, 1, _n - 1))

    terms = {"energy": centre**2, "tilted": loading * centre, "spread": loading**2 * eigenvalue}
    symbols = {name: sympy.symbols(f"{name}_re {name}_im", real=True) for name in terms}
    complex_sums = {name: pair[0] + sympy.I * pair[1] for name, pair in symbols.items()}
    # tilt 2: q = -i t on u'x
    remaining = sympy.expand(1 - 2 * sympy.I * t * complex_sums["spread"])
    exponent = (
        -sympy.I * t * r * complex_sums["energy"] + sympy.I * t * complex_sums["tilted"] ** 2 / remaining
    )
    rise, turn = exponent.as_real_imag()
    remaining_real, remaining_imaginary = remaining.as_real_imag()
    modulus_squared = 1 + (2 * t * r * variance) ** 2
    log_modulus = (
        rise
        - sympy.log(remaining_real**2 + remaining_imaginary**2) / 4
        - sympy.Sum(sympy.log(modulus_squared.subs(variance, eigenvalue)), (_k, 1, _n - 1)) / 4
    )
    phase = (
        turn
        - sympy.atan2(remaining_imaginary, remaining_real) / 2
        - sympy.Sum(sympy.atan(2 * t * r * eigenvalue), (_k, 1, _n - 1)) / 2
    )
    sums = {
        symbol: over_axes(terms[name], part)
        for name, pair in symbols.items()
        for symbol, part in zip(pair, (real, imaginary), strict=True)
    }
    integrand = sympy.exp(log_modulus) * sympy.sin(phase) / t
    result = sympy.Rational(1, 2) - sympy.Integral(integrand.subs(sums), (t, 0, sympy.oo)) / sympy.pi
    return Derivation(
        (
            *tilted_coordinate(),
            *spectrum,
            Step(
                "log E exp(-q y²) of y ~ N(a, b); q = i t r for each axis, then q = -i t for u'x", log_weight
            ),
            Step("1/(1 + 2 i t r variance), real part", real),
            Step("and imaginary part", imaginary),
            Step("log modulus of the characteristic function of (u'x)² - r x'x", log_modulus),
            Step("its phase", phase),
            Step("inversion (Gil-Pelaez 1951, Imhof 1961)", result),
        ),
        result,
    )


@cache
def _gaussian_drifts_derivation() -> Derivation:
    """Gaussian drifts are a Gaussian process: its axes at n = 3, 4 (by parity), then the integral."""
    signal_squared = sympy.Symbol("signal_squared", nonnegative=True)
    per_interval = sympy.Symbol("delta", real=True)
    power = signal_squared / (_n - 1)
    s, c = sympy.symbols("s t", positive=True)
    density = sympy.exp(-(per_interval**2) / (2 * s)) / sympy.sqrt(2 * sympy.pi * s)
    second = sympy.integrate(per_interval**2 * density, (per_interval, -sympy.oo, sympy.oo))
    steps: list[Step] = [
        Step(
            "averaged over drifts of variance s per interval, E[(delta t)(delta t')] = s t t'", second * c**2
        )
    ]
    branches = []
    for size in (3, 4):
        spread = sympy.Matrix(size, size, lambda i, j, size=size: min(i, j) + power.subs(_n, size) * i * j)
        value, more = contrast_mean(spread, sympy.zeros(size, 1), list(range(size)))
        steps += [Step(f"n = {size}: {step.text}", step.expression) for step in more]
        branches.append((value, sympy.Eq(_n, size)))
    result = sympy.Piecewise(*branches, (sympy.nan, True))
    return Derivation(
        (*steps, Step("derived for n = 3 and 4; `predict` diagonalises for any n", result)), result
    )


def contrast_mean(
    covariance: sympy.Matrix, mean: sympy.Matrix, times: list[sympy.Expr]
) -> tuple[sympy.Expr, tuple[Step, ...]]:
    """E[R²] of a small symbolic Gaussian trajectory as an integral over z, and the steps to it.

    Args:
        covariance: [checkpoint, checkpoint].
        mean: [checkpoint, 1].
        times: of the checkpoints.

    Returns:
        the unevaluated integral, and the steps.
    """
    size = len(times)
    basis = sympy.GramSchmidt(
        [sympy.Matrix([sympy.sympify(time) ** power for time in times]) for power in range(size)],
        True,
    )[1:]
    contrasts = sympy.Matrix.hstack(*basis)
    spread = (contrasts.T * covariance * contrasts).applyfunc(sympy.simplify)
    centre = (contrasts.T * mean).applyfunc(sympy.simplify)
    tilted = sympy.eye(size - 1) + 2 * _z * spread
    determinant = sympy.expand(tilted.det(method="berkowitz"))
    adjugate = tilted.adjugate()
    energy = (centre.T * adjugate * centre)[0] / determinant
    average = (adjugate * centre)[0] / determinant
    scatter = (adjugate * spread)[0, 0] / determinant
    second, _, moments = _normal_moments()
    symbols = {symbol.name: symbol for symbol in second.free_symbols}
    square = second.subs({symbols["a"]: average, symbols["b"]: scatter})
    result = sympy.Integral(sympy.exp(-_z * energy) * square / sympy.sqrt(determinant), (_z, 0, sympy.oo))
    return result, (
        *moments,
        Step("covariance of the orthonormal polynomial contrasts, time first", spread),
        Step("determinant of 1 + 2 z covariance", determinant),
        Step("integral of E[(u'x)² exp(-z x'x)]", result),
    )


@cache
def _three_checkpoints_derivation() -> Derivation:
    a, b = sympy.symbols("linear_variance quadratic_variance", positive=True)
    growth = (1 + 2 * a * _z, 1 + 2 * b * _z)
    integrand = a / growth[0] / sympy.sqrt(growth[0] * growth[1])
    integral = sympy.integrate(
        a * growth[0] ** sympy.Rational(-3, 2) * growth[1] ** sympy.Rational(-1, 2), (_z, 0, sympy.oo)
    )
    # in square roots the quotient of differences of squares cancels
    p, q = sympy.symbols("p q", positive=True)
    cancelled = sympy.cancel(sympy.simplify(integral.subs({a: p**2, b: q**2})))
    result = cancelled.subs({p: sympy.sqrt(a), q: sympy.sqrt(b)})
    return Derivation(
        (
            *tilted_coordinate(),
            Step("tilted variance of the linear contrast times the weight", integrand),
            Step("integrated over z", integral),
            Step("cancelled", result),
        ),
        result,
    )


@cache
def _sparse_derivation() -> Derivation:
    share, signal_squared = sympy.symbols("share signal_squared", positive=True)
    drifting = _walk_derivation("curved", 1)
    still = _walk_derivation("driftless", 1)
    names = {symbol.name: symbol for symbol in drifting.result.free_symbols}
    carriers = drifting.result.subs(
        {names["curvature"]: 0, names["signal"]: sympy.sqrt(signal_squared / share)}
    )
    result = share * carriers + (1 - share) * still.result
    return Derivation(
        (
            *drifting.steps,
            Step("those that drift have S² = pooled S²/share", carriers),
            Step("the rest walk", still.result),
            Step("mean over coordinates", result),
        ),
        result,
    )


_WALK = (
    "increments between checkpoints are independent and Gaussian, of equal variance",
    "checkpoints equally spaced",
)

PREDICTION = Prediction(
    5,
    "gaussian_r_squared",
    "R² of a Gaussian trajectory",
    (
        Law(
            "three_checkpoints_mean",
            "At three equally spaced checkpoints E[R²] = sd(linear)/(sd(linear) + sd(quadratic contrast)).",
            ("zero-mean Gaussian trajectory", "linear and quadratic contrasts uncorrelated"),
            _three_checkpoints_derivation,
            three_checkpoints_mean,
            (
                Point({"linear_variance": 1.0, "quadratic_variance": 1 / 3}),
                Point({"linear_variance": 0.2, "quadratic_variance": 3.0}),
                Point({"linear_variance": 5.0, "quadratic_variance": 0.01}),
                Point({"linear_variance": 1.0, "quadratic_variance": 0.0}),
                Point({"linear_variance": 0.0, "quadratic_variance": 1.0}),
            ),
        ),
        Law(
            "random_walk_mean",
            "E[R²] of a driftless random walk of n checkpoints: what chance alone gives.",
            (*_WALK, "no drift"),
            lambda: _walk_derivation("driftless", 1),
            random_walk_mean,
            tuple(Point({"n": n}) for n in (3, 4, 8, 14)),
        ),
        Law(
            "random_walk_variance",
            "Variance of R² of a driftless random walk of n checkpoints.",
            (*_WALK, "no drift"),
            _variance_derivation,
            random_walk_variance,
            tuple(Point({"n": n}) for n in (3, 14)),
        ),
        Law(
            "random_walk_limit",
            "E[R²] of a driftless walk, n to infinity: .434, so more checkpoints do not lower the null.",
            (*_WALK, "no drift", "n to infinity"),
            _limit_derivation,
            random_walk_limit,
            (Point(),),
        ),
        Law(
            "drift_walk_mean",
            "E[R²] of a walk with drift per interval (in noise standard deviations of an interval).",
            _WALK,
            lambda: _walk_derivation("drift", 1),
            drift_walk_mean,
            tuple(Point({"n": 14, "drift": d}) for d in (0.0, 0.1, 0.3, 0.5, 1.0, 2.0))
            + (Point({"n": 5, "drift": -0.7}),),
        ),
        Law(
            "curved_walk_mean",
            "E[R²] of a quadratic mean path under a walk: S over the window, curvature = change of slope/mean slope.",
            _WALK,
            lambda: _walk_derivation("curved", 1),
            curved_walk_mean,
            tuple(
                Point({"n": n, "signal": s, "curvature": c})
                for n, s, c in (
                    (14, 2.0, -1.0),
                    (14, 5.0, -2.0),
                    (8, 3.0, 4.0),
                    (14, 0.0, 1.0),
                    (6, np.inf, 5.0),
                )
            ),
        ),
        Law(
            "walk_cumulative",
            "P(R² <= r) of a walk with straight drift, S over the window.",
            _WALK,
            _distribution_derivation,
            walk_cumulative,
            tuple(
                Point({"n": n, "r": r, "signal": s})
                for n, r, s in ((14, 0.7, 0.0), (8, 0.9, 2.0), (5, 0.2, 1.0))
            ),
        ),
        Law(
            "gaussian_drifts_mean",
            "E[R²] over coordinates with Gaussian drifts of pooled S².",
            (*_WALK, "drifts Gaussian over coordinates, mean zero"),
            _gaussian_drifts_derivation,
            gaussian_drifts_mean,
            tuple(
                Point({"n": n, "signal_squared": s})
                for n, s in ((3, 4.0), (4, 4.0), (4, 0.5), (14, 4.0), (14, 0.0))
            ),
        ),
        Law(
            "sparse_drifts_mean",
            "E[R²] when a share of the coordinates carries all the drift, equally; share 1 is equal drifts.",
            (*_WALK, "carriers have equal drift"),
            _sparse_derivation,
            sparse_drifts_mean,
            (
                Point({"n": 14, "signal_squared": 4.0, "share": 0.1}),
                Point({"n": 14, "signal_squared": 4.0, "share": 1}),
                Point({"n": 8, "signal_squared": 0.0, "share": 0.5}),
            ),
        ),
    ),
)
