"""Inner products of increments, summed over blocks, and the small path that stands in for a whole model.

See `lab.linearity.products`: forecast skill, damping, lag cosine, split-half and low-rank shares, and all their
sign flips, are functions of K[j, l] = <increment j, increment l>.
"""

from __future__ import annotations

import numpy as np

from lab.linearity.checks import FloatArray
from lab.linearity.streaming.accumulator import State
from lab.linearity.streaming.block import Block

_SMALLEST_TRACE = 1e-28  # Below it, squares of float32 increments lose digits or vanish.


class IncrementProducts:
    """K of a tensor: float32 products within a block of some thousand elements, float64 sums over blocks.

    State: `products` float64 [interval, interval], unit of values². A block whose squares leave the range of
    float32 is done in float64.

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
        increments = block.padded_increments
        with np.errstate(over="ignore", invalid="ignore"):
            products = (increments @ increments.T)[: self._intervals, : self._intervals]
        trace = float(np.trace(products))
        if not np.isfinite(trace):
            block.require_finite()
        if not _SMALLEST_TRACE < trace < np.inf and increments.any():
            wide = np.diff(block.values.astype(np.float64), axis=0)
            state["products"] += wide @ wide.T
        else:
            state["products"] += products

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
