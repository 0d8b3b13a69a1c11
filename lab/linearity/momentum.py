"""The momentum-free position: where the weights would come to rest if all later gradients were zero.

Momentum spreads one gradient over about 1 / (1 - beta1) updates, so the increments of a driftless run are
correlated and look like persistence. The increments of the momentum-free position each depend on the
gradients of their own interval alone.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lab.linearity.checks import FloatArray
from lab.settings import require

SAFE_TIME_CONSTANTS = 20.0


def momentum_free_sgd(
    w: ArrayLike, buffer: ArrayLike, learning_rate: ArrayLike, momentum: float
) -> FloatArray:
    """z = w - lr mu / (1 - mu) buffer, for b <- mu b + g; w <- w - lr b (dampening 0, not Nesterov).

    Then z_k - z_{k-1} = -lr / (1 - mu) g_k exactly, at constant learning rate.

    Args:
        w: weights, [element] or [checkpoint, element], any unit.
        buffer: momentum buffer after the same update, same shape.
        learning_rate: a number, or one for each checkpoint.
        momentum: mu, in [0, 1).

    Returns:
        float64, the shape of `w`.

    Raises:
        Invalid: `momentum` outside [0, 1), or shapes that differ.
    """
    weights, velocity = _same_shape(w, buffer, "buffer")
    _check_share(momentum, "momentum")
    rate = _per_checkpoint(learning_rate, weights, "learning_rate")
    return weights - rate * (momentum / (1.0 - momentum)) * velocity


def momentum_free_adam(
    w: ArrayLike,
    m: ArrayLike,
    v: ArrayLike,
    learning_rate: ArrayLike,
    beta1: float,
    beta2: float,
    epsilon: float,
    update: ArrayLike,
) -> FloatArray:
    """z = w - lr c(update) m / (sqrt(v / (1 - beta2^update)) + epsilon).

    The factor is c(T) = sum_{k >= 1} beta1^k / (1 - beta1^(T + k)): what the first moment held after update T
    would still add if every later gradient were zero and the denominator stayed, Adam's bias correction
    of each later update included (Kingma & Ba 2015; decoupled weight decay leaves it unchanged). It tends
    to beta1 / (1 - beta1) within a few 1 / (1 - beta1) updates. With a constant denominator
    z_T - z_{T-1} is proportional to g_T alone; with the real, slowly changing one (time constant
    1 / (1 - beta2)) nearly so.

    Args:
        w: weights, [element] or [checkpoint, element].
        m: first moment after the same update (not bias-corrected), same shape.
        v: second moment after the same update (not bias-corrected), same shape, not negative.
        learning_rate: a number, or one for each checkpoint.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        epsilon: added to the root of the bias-corrected second moment.
        update: number of updates already done: a number, or one for each checkpoint. At 0, z is w.

    Returns:
        float64, the shape of `w`. Where m is zero, z is w, whatever v is.

    Raises:
        Invalid: a decay outside [0, 1), a negative `update` or `v`, or shapes that differ.
    """
    weights, first = _same_shape(w, m, "m")
    _, second = _same_shape(w, v, "v")
    _check_share(beta1, "beta1")
    _check_share(beta2, "beta2")
    require(epsilon >= 0, "epsilon", f"expected 0 or more, got {epsilon}")
    require(bool((second >= 0).all()), "v", "a second moment cannot be negative")
    rate = _per_checkpoint(learning_rate, weights, "learning_rate")
    count = _per_checkpoint(update, weights, "update")
    require(bool((count >= 0).all()), "update", "a number of updates cannot be negative")
    started = np.maximum(count, 1.0)
    denominator = np.sqrt(second / (1.0 - beta2**started)) + epsilon
    pending = np.divide(first, denominator, out=np.zeros_like(weights), where=(first != 0) & (count > 0))
    return weights - rate * pending_updates(beta1, started) * pending


def minimum_spacing(beta1: float) -> float:
    """20 / (1 - beta1): updates between checkpoints from which momentum no longer fakes persistence.

    For use where no optimiser state was stored: the lag-1 correlation that momentum alone leaves between
    increments is then about beta1 / ((1 - beta1²) spacing), below .03 at beta1 = .9.

    Raises:
        Invalid: `beta1` outside [0, 1).
    """
    _check_share(beta1, "beta1")
    return SAFE_TIME_CONSTANTS / (1.0 - beta1)


def pending_updates(beta1: float, update: FloatArray) -> FloatArray:
    """c(T) of `momentum_free_adam`, summed until the terms vanish in float64; the shape of `update`, all >= 1."""
    if beta1 == 0.0:
        return np.zeros_like(update)
    later = np.arange(1, math.ceil(math.log(1e-17) / math.log(beta1)) + 1, dtype=np.float64)
    powers = beta1**later
    counts, positions = np.unique(update, return_inverse=True)
    factors = np.array([np.sum(powers / (1.0 - beta1**count * powers)) for count in counts])
    return factors[positions].reshape(update.shape)


def _same_shape(w: ArrayLike, other: ArrayLike, name: str) -> tuple[FloatArray, FloatArray]:
    weights, state = np.asarray(w, dtype=np.float64), np.asarray(other, dtype=np.float64)
    require(
        state.shape == weights.shape, name, f"expected the shape of w, {weights.shape}, got {state.shape}"
    )
    return weights, state


def _per_checkpoint(number: ArrayLike, weights: FloatArray, name: str) -> FloatArray:
    """Shape a number, or one number for each checkpoint, so that it multiplies `weights`."""
    array: NDArray[np.float64] = np.asarray(number, dtype=np.float64)
    if array.ndim == 0:
        return array
    fits = array.ndim == 1 and weights.ndim == 2 and len(array) == weights.shape[0]
    require(fits, name, f"expected a number or one for each checkpoint, got shape {array.shape}")
    return array[:, None]


def _check_share(share: float, name: str) -> None:
    require(0.0 <= share < 1.0, name, f"expected a number in [0, 1), got {share}")
