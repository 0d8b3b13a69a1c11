"""How much of a path lies in one direction, and how much of a driftless path does.

A high-dimensional walk without any drift already looks low-rank: its centred first principal component holds 6/pi² =
61 % of its variance, and one direction 8/pi² = 81 % of its squared displacements (many checkpoints). So a share says
little until that of the same increments with random signs stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lab.linearity.checks import FloatArray
from lab.linearity.products import increment_products, ratio, unflipped

_PATTERNS_TOGETHER = 512


def rank_one_share(products: FloatArray, signs: FloatArray, centred: bool) -> FloatArray:
    """Share of the leading direction of a path, for each sign pattern.

    With X[k] the displacement since the first checkpoint, X X' = L S K S L' (L lower triangular ones, S the
    signs), so no pass over the elements is needed.

    Args:
        products: K, [interval, interval], inner products of increments.
        signs: [pattern, interval], +1 or -1.
        centred: whether the mean over checkpoints is taken out (the first principal component's share of variance).

    Returns:
        float64 [pattern] in [0, 1]: the largest eigenvalue of X X' over the sum of all; NaN where nothing moved.
    """
    checkpoints = len(products) + 1
    to_path = np.tri(checkpoints, checkpoints - 1, -1)
    if centred:
        to_path -= to_path.mean(axis=0)
    share = np.empty(len(signs))
    for start in range(0, len(signs), _PATTERNS_TOGETHER):
        part = signs[start : start + _PATTERNS_TOGETHER]
        flipped = part[:, :, None] * products * part[:, None, :]
        values = np.linalg.eigvalsh(to_path @ flipped @ to_path.T).astype(np.float64, copy=False)
        share[start : start + len(part)] = ratio(values[:, -1], np.maximum(values, 0.0).sum(axis=1))
    return share


@dataclass(frozen=True)
class RankOneShare:
    """`rank_one_share` as a statistic that sign flips can test; large ones speak for low rank."""

    centred: bool

    def __call__(self, values: FloatArray, steps: FloatArray) -> float:
        products = increment_products(values)
        return float(self.flipped(values, steps, unflipped(products))[0])

    def flipped(self, values: FloatArray, steps: FloatArray, signs: FloatArray) -> FloatArray:
        """See `lab.linearity.sign_flip.FlippedStatistic`."""
        return rank_one_share(increment_products(values), signs, self.centred)
