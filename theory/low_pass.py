"""Momentum and checkpoint spacing as filters: gains, spectra of weight increments, aliasing.

Frequencies are angular, radians per update, 0 to pi. Spectra are two-sided densities per update: the variance is their
mean over (-pi, pi]. White gradients of standard deviation `noise` have spectrum noise². Standard results on linear
filters (Oppenheim and Schafer 1989); the point of stating them is that weight increments under momentum *are* low-pass,
noise or not, and that checkpoints alias what is left.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

from theory.increment_persistence import correlation_sums
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
    whole_number,
)

Array = NDArray[np.float64]


def average_gain(frequency: ArrayLike, beta: ArrayLike) -> Array:
    """Gain of an exponential moving average (Adam's m): (1-beta)/sqrt(1 - 2 beta cos w + beta²); 1 at w = 0.

    Heavy-ball momentum (m = beta m + g) has this gain divided by 1 - beta.

    Args:
        frequency: w, radians per update.
        beta: in [0, 1); 0 passes everything.

    Raises:
        InvalidArgument: beta outside [0, 1), a frequency that is not finite.
    """
    w, memory = finite("frequency", frequency), _momentum(beta)
    return np.asarray((1 - memory) / np.sqrt(1 - 2 * memory * np.cos(w) + memory**2))


def window_gain(frequency: ArrayLike, window: ArrayLike) -> Array:
    """Gain of the mean of K successive updates: |sin(K w/2)/(K sin(w/2))|; 1 at w = 0, 0 at w = 2 pi j/K.

    Args:
        frequency: w, radians per update.
        window: K, updates, 1 or more.

    Raises:
        InvalidArgument: K below 1, a frequency that is not finite.
    """
    half = np.remainder(finite("frequency", frequency), 2 * np.pi) / 2
    length = whole_number("window", window, 1)
    low = np.abs(np.sin(half)) < 1e-12
    safe = np.where(low, 1.0, half)
    return np.where(low, 1.0, np.abs(np.sin(length * safe) / (length * np.sin(safe))))


def passed_variance(beta: ArrayLike) -> Array:
    """Share of the variance of white gradients that the moving average passes: (1-beta)/(1+beta).

    Args:
        beta: in [0, 1).

    Raises:
        InvalidArgument: beta outside [0, 1).
    """
    memory = _momentum(beta)
    return np.asarray((1 - memory) / (1 + memory))


def increment_spectrum(frequency: ArrayLike, beta: ArrayLike, noise: ArrayLike = 1.0) -> Array:
    """Spectrum of the weight's change an update: noise² (1-beta)²/(1 - 2 beta cos w + beta²).

    Args:
        frequency: w, radians per update.
        beta: momentum, in [0, 1).
        noise: standard deviation of learning rate x gradient, 0 or more.

    Raises:
        InvalidArgument: an argument out of range.
    """
    return np.asarray(non_negative("noise", noise) ** 2 * average_gain(frequency, beta) ** 2)


def checkpoint_spectrum(
    frequency: ArrayLike, beta: ArrayLike, window: ArrayLike, noise: ArrayLike = 1.0
) -> Array:
    """Spectrum of the displacements between checkpoints `window` updates apart, aliasing included.

    It tends to the flat noise² x window as the window outgrows 1/(1-beta): spacing hides momentum.

    Args:
        frequency: radians per checkpoint.
        beta: momentum, in [0, 1).
        window: L, updates between checkpoints, 1 or more.
        noise: standard deviation of learning rate x gradient, 0 or more.

    Raises:
        InvalidArgument: an argument out of range.
    """
    w, memory = finite("frequency", frequency), _momentum(beta)
    length = whole_number("window", window, 1)
    kept = memory**length
    within, between = correlation_sums(memory, length, 1)
    comb = (np.cos(w) - kept) / (1 - 2 * kept * np.cos(w) + kept**2)
    scale = non_negative("noise", noise) ** 2 * (1 - memory) / (1 + memory)
    return np.asarray(scale * (within + 2 * between * comb))


def alias_frequency(frequency: ArrayLike, window: ArrayLike) -> Array:
    """The frequency, radians per update, as which checkpoints `window` updates apart show another.

    Args:
        frequency: w, radians per update.
        window: L, updates between checkpoints, 1 or more.

    Returns:
        between 0 and pi/L.

    Raises:
        InvalidArgument: L below 1, a frequency that is not finite.
    """
    length = whole_number("window", window, 1)
    turned = np.remainder(finite("frequency", frequency) * length + np.pi, 2 * np.pi) - np.pi
    return np.asarray(np.abs(turned) / length)


def _momentum(beta: ArrayLike) -> Array:
    memory = finite("beta", beta)
    if np.any((memory < 0) | (memory >= 1)):
        raise InvalidArgument("beta", f"must lie in [0, 1), got {beta!r}")
    return memory


# ----------------------------------------------------------------------------------------------------------------
# Derivations
# ----------------------------------------------------------------------------------------------------------------

_w = sympy.Symbol("frequency", real=True)
_beta = sympy.Symbol("beta", positive=True)
_noise = sympy.Symbol("noise", nonnegative=True)
_L = sympy.Symbol("window", integer=True, positive=True)
_j = sympy.Symbol("j", integer=True, nonnegative=True)
_u = sympy.Symbol("u")


def _branch(total: sympy.Expr, position: int) -> sympy.Expr:
    """One branch of the Piecewise that sympy gives for a geometric sum."""
    return total.args[position][0] if isinstance(total, sympy.Piecewise) else total


@cache
def _response() -> tuple[sympy.Expr, sympy.Expr, tuple[Step, ...]]:
    """Transfer function of the moving average, and its squared modulus."""
    x = sympy.Symbol("x", positive=True)
    series = _branch(sympy.summation(x**_j, (_j, 0, sympy.oo)), 0)
    transfer = (1 - _beta) * series.subs(x, _beta * _u)
    squared = sympy.simplify(transfer * transfer.subs(_u, 1 / _u))
    denominator = sympy.expand(sympy.expand((1 - _beta * _u) * (1 - _beta / _u)))
    cosine = denominator.coeff(_u, 0) + 2 * denominator.coeff(_u, 1) * sympy.cos(_w)
    result = (1 - _beta) ** 2 / cosine
    check = identity("u + 1/u = 2 cos w", denominator.subs(_u, sympy.exp(sympy.I * _w)), cosine)
    return (
        transfer,
        result,
        (
            Step("response of (1-beta) sum beta^j g_{t-j} at u = exp(-i w)", transfer),
            Step("times its conjugate", squared),
            check,
            Step("squared gain", result),
        ),
    )


@cache
def _average_derivation() -> Derivation:
    _, squared, steps = _response()
    result = sympy.sqrt(squared)
    return Derivation((*steps, Step("gain", result)), result)


@cache
def _spectrum_derivation() -> Derivation:
    _, squared, steps = _response()
    result = _noise**2 * squared
    return Derivation((*steps, Step("white gradients through it", result)), result)


@cache
def _variance_derivation() -> Derivation:
    x = sympy.Symbol("x", positive=True)
    series = _branch(sympy.summation(x**_j, (_j, 0, sympy.oo)), 0)
    result = sympy.factor((1 - _beta) ** 2 * series.subs(x, _beta**2))
    return Derivation(
        (Step("sum of squared weights, geometric series", series), Step("share of variance", result)), result
    )


@cache
def _window_derivation() -> Derivation:
    total = _branch(sympy.summation(_u**_j, (_j, 0, _L - 1)), -1) / _L
    squared = total * total.subs(_u, 1 / _u)
    half = sympy.sin(_L * _w / 2) / (_L * sympy.sin(_w / 2))
    check = identity("squared modulus at u = exp(-i w)", squared.subs(_u, sympy.exp(-sympy.I * _w)), half**2)
    result = sympy.Abs(half)
    return Derivation((Step("mean of u^j over the window", total), check, Step("gain", result)), result)


@cache
def _checkpoint_derivation() -> Derivation:
    # displacements: autocovariance within and between windows (geometric sums), then the sum over lags
    first = _branch(sympy.summation(_u**_j, (_j, 0, _L - 1)), -1).subs(_u, _beta)
    variance = _variance_derivation()
    r = sympy.Symbol("r", integer=True, positive=True)
    partial = first.subs(_L, r)
    flat = sympy.summation(1 / (1 - _beta), (r, 1, _L - 1))
    curved = _branch(sympy.summation(_beta**r, (r, 1, _L - 1)), -1) / (1 - _beta)
    identity("partial sums", partial, (1 - _beta**r) / (1 - _beta))
    within = _L + 2 * _beta * (flat - curved)
    next_window = _beta * first**2
    kept = _beta**_L
    x = sympy.Symbol("x", positive=True)
    lags = _branch(sympy.summation(x**_j, (_j, 0, sympy.oo)), 0)
    # sum over k >= 1 of kept^(k-1) 2 cos(k w) = u S(kept u) + its conjugate
    one_side = _u * lags.subs(x, kept * _u)
    both = sympy.together(one_side + one_side.subs(_u, 1 / _u))
    b = sympy.Symbol("B", positive=True)
    comb = 2 * (sympy.cos(_w) - b) / (1 - 2 * b * sympy.cos(_w) + b**2)
    plain = sympy.together(_u / (1 - b * _u) + (1 / _u) / (1 - b / _u))
    check = identity("sum over lags, both signs", plain.subs(_u, sympy.exp(sympy.I * _w)), comb)
    result = _noise**2 * variance.result * (within + next_window * comb.subs(b, kept))
    return Derivation(
        (
            *variance.steps,
            Step("sum of beta^|i-j| within a window", within),
            Step("and between neighbouring windows; farther ones by beta^window each", next_window),
            Step("sum over lags at u = exp(i w)", both),
            check,
            Step("spectrum of displacements", result),
        ),
        result,
    )


@cache
def _alias_derivation() -> Derivation:
    k = sympy.Symbol("k", integer=True)
    fold = sympy.Symbol("fold", integer=True)
    check = identity(
        "at checkpoints k, frequencies that differ by 2 pi fold/window are one",
        sympy.expand_trig(sympy.cos((_w + 2 * sympy.pi * fold / _L) * _L * k)),
        sympy.expand_trig(sympy.cos(_w * _L * k)),
    )
    nearest = sympy.floor(_w * _L / (2 * sympy.pi) + sympy.Rational(1, 2))
    folded = _w - 2 * sympy.pi * nearest / _L
    result = sympy.Abs(folded)
    return Derivation(
        (check, Step("the fold that lies nearest to zero", folded), Step("its size", result)), result
    )


_LINEAR = ("filter in its steady state",)
_WHITE = ("white gradients", "learning rate constant", *_LINEAR)

PREDICTION = Prediction(
    8,
    "low_pass",
    "Momentum and spacing as low-pass filters",
    (
        Law(
            "average_gain",
            "Gain of an exponential moving average at frequency w (radians per update).",
            _LINEAR,
            _average_derivation,
            average_gain,
            tuple(
                Point({"frequency": w, "beta": b})
                for w, b in ((0.05, 0.9), (1.0, 0.9), (3.0, 0.5), (0.0, 0.9), (2.0, 0.0), (0.01, 0.99))
            ),
        ),
        Law(
            "window_gain",
            "Gain of the mean of K successive updates: |sin(K w/2)/(K sin(w/2))|.",
            (),
            _window_derivation,
            window_gain,
            tuple(
                Point({"frequency": w, "window": k})
                for w, k in ((0.1, 10), (1.3, 7), (3.0, 100), (1e-6, 10), (np.pi, 4), (2.0, 1))
            ),
        ),
        Law(
            "passed_variance",
            "Share of white gradients' variance that a moving average passes, (1-beta)/(1+beta).",
            _WHITE,
            _variance_derivation,
            passed_variance,
            tuple(Point({"beta": b}) for b in (0.0, 0.5, 0.9, 0.99)),
        ),
        Law(
            "increment_spectrum",
            "Spectrum of the weight's change an update under momentum.",
            _WHITE,
            _spectrum_derivation,
            increment_spectrum,
            tuple(
                Point({"frequency": w, "beta": b, "noise": s})
                for w, b, s in (
                    (0.1, 0.9, 1.0),
                    (1.0, 0.9, 2.0),
                    (3.0, 0.5, 1.0),
                    (0.0, 0.5, 1.0),
                    (1.0, 0.0, 0.5),
                )
            ),
        ),
        Law(
            "checkpoint_spectrum",
            "Spectrum of displacements between checkpoints, aliases folded in; frequency in radians a checkpoint.",
            _WHITE,
            _checkpoint_derivation,
            checkpoint_spectrum,
            tuple(
                Point({"frequency": w, "beta": b, "window": k, "noise": s})
                for w, b, k, s in (
                    (0.3, 0.9, 10, 1.0),
                    (2.5, 0.9, 10, 1.0),
                    (1.0, 0.9, 100, 0.5),
                    (1.0, 0.5, 4, 1.0),
                    (2.0, 0.0, 3, 1.0),
                )
            ),
        ),
        Law(
            "alias_frequency",
            "Checkpoints fold frequencies above pi/spacing back: what frequency w looks like.",
            (),
            _alias_derivation,
            alias_frequency,
            tuple(
                Point({"frequency": w, "window": k}) for w, k in ((0.05, 10), (0.7, 10), (2.0, 100), (2.0, 1))
            ),
        ),
    ),
)
