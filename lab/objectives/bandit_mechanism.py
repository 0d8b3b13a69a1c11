"""What drives RL with verifiable rewards on a table of logits, exactly: scores given right and wrong, and the drift.

The score of action a of a softmax with probabilities pi is one-hot(a) - pi. Given that the answer is right it has mean
v_R = pi restricted to the right actions / p - pi, given wrong v_W likewise with 1 - p. The expected update of a
prompt is a coefficient times v_R - v_W (theory.finite_group, theory.reward_flips).
"""

from __future__ import annotations

import numpy as np
from scipy.special import softmax
from scipy.stats import binom

from lab.objectives.advantages import AdvantageScale
from theory.finite_group import group_coefficient


def mean_scores(logits: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pass rate and the mean scores given right and given wrong.

    Args:
        logits: float64 [..., context, action].
        right: bool [context, action]; each context has a right and a wrong one.

    Returns:
        p [..., context]; v_R and v_W [..., context, action]; NaN where p is 0 or 1 to rounding.
    """
    probabilities = softmax(logits, axis=-1)
    pass_rate = (probabilities * right).sum(-1)
    failure = (probabilities * ~right).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        given_right = probabilities * right / pass_rate[..., None] - probabilities
        given_wrong = probabilities * ~right / failure[..., None] - probabilities
    return pass_rate, given_right, given_wrong


def score_squares(right: np.ndarray, wrong: np.ndarray) -> dict[str, np.ndarray]:
    """Return |v_R|², |v_W|² and |v_R - v_W|² from v_R and v_W [..., action]."""
    return {
        "right_score_square": (right**2).sum(-1),
        "wrong_score_square": (wrong**2).sum(-1),
        "gap_square": ((right - wrong) ** 2).sum(-1),
    }


def drift_coefficient(
    pass_rate: np.ndarray,
    prompts: int,
    rollouts: int,
    scale: AdvantageScale,
    epsilon: float,
    false_positive: np.ndarray,
    false_negative: np.ndarray,
) -> np.ndarray:
    """Return what multiplies v_R - v_W in the expected update of each context.

    Fixed flips are flip rates of 0 or 1 of each context. Under `batch` the other prompts of a step are drawn from the
    same contexts with replacement, so that the distribution of their count of rewards is a power of a mixture.

    Args:
        pass_rate: true pass rates, float64 [replicate, context].
        prompts: prompts of a step, B.
        rollouts: rollouts of a group, G.
        scale: how advantages are scaled.
        epsilon: added to the scale.
        false_positive: phi, broadcast against `pass_rate`.
        false_negative: nu, likewise.

    Returns:
        float64 [replicate, context].
    """
    informed = 1 - false_positive - false_negative
    noisy = np.clip(pass_rate * (1 - false_negative) + (1 - pass_rate) * false_positive, 0.0, 1.0)
    spread = noisy * (1 - noisy)
    numerator = pass_rate * (1 - pass_rate) * informed
    gap_scale = np.divide(numerator, spread, out=np.zeros_like(pass_rate), where=spread > 0)
    if scale == "batch":
        return gap_scale * _batch_coefficient(noisy, prompts, rollouts, epsilon)
    return gap_scale * group_coefficient(noisy, rollouts, scale, epsilon)


def _batch_coefficient(rates: np.ndarray, prompts: int, rollouts: int, epsilon: float) -> np.ndarray:
    """E[s_k² / (s_K + epsilon)] for each context; K counts the rewards of the batch, k those of one group in it."""
    count = np.arange(rollouts + 1)
    each = binom.pmf(count, rollouts, rates[..., None])
    rest = _self_convolved(each.mean(-2), prompts - 1)
    share = count / rollouts
    total = (count[:, None] + np.arange(rest.shape[-1])) / (prompts * rollouts)
    spread = np.sqrt(np.maximum(total * (1 - total), 0.0)) + epsilon
    # Where the whole batch agrees the group does, so that its share (1 - share) is zero and the quotient void.
    inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    return np.einsum("...ck,k,kr,...r->...c", each, share * (1 - share), inverse, rest)


def _self_convolved(weights: np.ndarray, times: int) -> np.ndarray:
    """Return the distribution of the sum of `times` independent counts, [..., times (length - 1) + 1]."""
    size = times * (weights.shape[-1] - 1) + 1
    transformed = np.fft.rfft(weights, n=size, axis=-1) ** times
    return np.maximum(np.fft.irfft(transformed, n=size, axis=-1), 0.0)
