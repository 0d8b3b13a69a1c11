"""Inner products of increments, summed over strips, and the small path that stands in for a whole model.

See `lab.linearity.products`: forecast skill, damping, lag cosine, split-half and low-rank shares, and all their
sign flips, are functions of K[j, l] = <increment j, increment l>.
"""

from __future__ import annotations

import numpy as np

from lab.linearity.checks import FloatArray
from lab.linearity.products import ratio
from lab.linearity.streaming.accumulator import State
from lab.linearity.streaming.block import Block


class IncrementProducts:
    """K of a tensor, see `lab.linearity.streaming.kernels`.

    State: `products` float64 [interval, interval], unit of values².

    Args:
        checkpoints: number of checkpoints.
    """

    def __init__(self, checkpoints: int) -> None:
        self._intervals = checkpoints - 1

    def init(self, tensor: str, size: int) -> State:
        """See `Accumulator.init`."""
        return {"products": np.zeros((self._intervals, self._intervals))}

    def observe(self, state: State, block: Block) -> None:
        """See `Accumulator.observe`.

        Raises:
            NotFinite: a value is NaN or infinite.
        """
        from lab.linearity.streaming.kernels import add_products

        products = state["products"]
        add_products(block.values, products)
        if not np.isfinite(products.trace()):
            block.require_finite()

    def merge(self, state: State, later: State) -> None:
        """See `Accumulator.merge`."""
        state["products"] += later["products"]


def equivalent_path(products: FloatArray) -> FloatArray:
    """A path in few dimensions with the same inner products of increments, float64 [checkpoint, interval].

    With K = V diag(l) V', the rows of V diag(sqrt(l)) have K as their inner products; their running sum is a
    trajectory that no statistic of `lab.linearity` pooled over elements can tell from the model itself.

    Args:
        products: K, [interval, interval], positive semi-definite up to rounding.
    """
    values, vectors = np.linalg.eigh(products)
    increments = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.concatenate([np.zeros((1, len(products))), np.cumsum(increments, axis=0)])


def neighbour_cosine(products: FloatArray) -> float:
    """`lab.linearity.lag_cosine` at a lag of one checkpoint, of a path whose increments have these products.

    sum_k K[k, k+1] / sqrt(sum_k K[k, k] sum_k K[k+1, k+1]), k up to the last interval but one; NaN where one side
    did not move.

    Args:
        products: K, [interval, interval], at least two intervals.
    """
    lengths = np.diagonal(products)
    both = np.diagonal(products, 1).sum(keepdims=True)
    cosine = ratio(both, np.sqrt(lengths[:-1].sum(keepdims=True)) * np.sqrt(lengths[1:].sum(keepdims=True)))
    return float(np.clip(cosine, -1.0, 1.0)[0])
