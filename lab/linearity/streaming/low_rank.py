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


def rank_one_shares(products: FloatArray, signs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Shares of the leading direction of a path, for each sign pattern.

    With X[k] the displacement since the first checkpoint, X X' = L S K S L' (L lower triangular ones, S the
    signs), so no pass over the elements is needed.

    Args:
        products: K, [interval, interval], inner products of increments.
        signs: [pattern, interval], +1 or -1.

    Returns:
        (centred, uncentred), each float64 [pattern] in [0, 1]: the largest eigenvalue over the sum of all, of
        X X' with the mean over checkpoints taken out (the first principal component's share of variance) and
        of X X' itself. NaN where nothing moved.
    """
    checkpoints = len(products) + 1
    centring = np.eye(checkpoints) - 1.0 / checkpoints
    sums = np.tri(checkpoints, checkpoints - 1, -1)
    shares = [np.empty(len(signs)) for _ in range(2)]
    for start in range(0, len(signs), _PATTERNS_TOGETHER):
        part = signs[start : start + _PATTERNS_TOGETHER]
        flipped = part[:, :, None] * products * part[:, None, :]
        for share, to_path in zip(shares, (centring @ sums, sums), strict=True):
            values = np.linalg.eigvalsh(to_path @ flipped @ to_path.T)
            share[start : start + len(part)] = ratio(values[:, -1], np.maximum(values, 0.0).sum(axis=1))
    return shares[0], shares[1]


@dataclass(frozen=True)
class RankOneShare:
    """A share of `rank_one_shares` as a statistic that sign flips can test; large ones speak for low rank."""

    centred: bool

    def __call__(self, values: FloatArray, steps: FloatArray) -> float:
        products = increment_products(values)
        return float(self.flipped(values, steps, unflipped(products))[0])

    def flipped(self, values: FloatArray, steps: FloatArray, signs: FloatArray) -> FloatArray:
        """See `lab.linearity.sign_flip.FlippedStatistic`."""
        return rank_one_shares(increment_products(values), signs)[0 if self.centred else 1]
