"""Held-out evaluation: avg@k, unbiased pass@k, and intervals over problems."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln
from scipy.stats import t as student

from lab.settings import require


def average_at_k(correct: np.ndarray) -> float:
    """Return the mean over problems of each one's pass rate; NaN marks a completion that was not judged.

    Problems of which nothing was judged are left out; NaN if that leaves none.

    Args:
        correct: [problem, rollout], 0 or 1 or NaN.
    """
    judged = np.isfinite(correct).sum(-1)
    known = judged > 0
    return float(np.mean(np.nansum(correct[known], -1) / judged[known])) if known.any() else float("nan")


def pass_at_k(correct: np.ndarray, k: int) -> float:
    """Return the unbiased estimate of the chance that one of k completions is right, over problems.

    1 - C(n - c, k) / C(n, k) for c right of n judged completions (Chen et al. 2021, arXiv 2107.03374).
    Problems with fewer than k judged completions are left out.

    Args:
        correct: [problem, rollout], 0 or 1 or NaN.
        k: completions allowed, at least 1.

    Raises:
        Invalid: k below 1, or no problem has k judged completions.
    """
    require(k >= 1, "k", f"must be at least 1, got {k}")
    judged = np.isfinite(correct).sum(1)
    right = np.nansum(correct, axis=1)
    enough = judged >= k
    require(bool(enough.any()), "k", f"no problem has {k} judged completions")
    n, wrong = judged[enough].astype(float), (judged - right)[enough]
    possible = wrong >= k
    log_ratio = np.full(len(n), -np.inf)
    log_ratio[possible] = (
        gammaln(wrong[possible] + 1)
        - gammaln(wrong[possible] - k + 1)
        - gammaln(n[possible] + 1)
        + gammaln(n[possible] - k + 1)
    )
    return float(np.mean(1.0 - np.exp(log_ratio)))


def pass_rate_interval(correct: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Return the half-width of the t interval of the mean pass rate; the problem is the unit.

    Args:
        correct: [..., problem, rollout], 0 or 1 or NaN.
        level: confidence level.

    Returns:
        [...]; NaN with fewer than two problems of which something was judged.
    """
    judged = np.isfinite(correct).sum(-1)
    known = judged > 0
    count = known.sum(-1)
    rates = np.nansum(correct, -1) / np.maximum(judged, 1)
    mean = rates.sum(-1, keepdims=True) / np.maximum(count, 1)[..., None]
    squares = np.where(known, (rates - mean) ** 2, 0.0).sum(-1)
    freedom = np.maximum(count - 1, 1)
    half = student.ppf(0.5 + level / 2, freedom) * np.sqrt(squares / freedom / np.maximum(count, 1))
    return np.where(count < 2, np.nan, half)
