"""R² of every element, straight into a histogram."""

from __future__ import annotations

import numpy as np

from lab.linearity.checks import FloatArray
from lab.linearity.filters import Protocol
from lab.linearity.r_squared import r_squared_unchecked
from lab.linearity.streaming.accumulator import State
from lab.linearity.streaming.block import Block, Float32Array
from lab.linearity.streaming.histogram import BINS

_SMALLEST_SQUARES = 1e-30  # Below it, sums of squares of float32 displacements lose digits or vanish.


class RSquaredCounts:
    """Histogram of R² of the elements that pass a protocol's cast and filter.

    State: `counts` int64 [bin]; `tally` int64 [3]: elements looked at, kept by the filter, without variance (after
    the cast, of all elements looked at, as `lab.linearity.measure_trajectory` counts them).

    With y_k = x_k - x_0 and centred steps t,

        R² = (sum_k t_k y_k)² / (sum_k t_k² (sum_k y_k² - (sum_k y_k)² / n)).

    Since y_0 = 0, the last bracket is at least sum_k y_k² / n, so float32 loses no more than a factor n of its
    precision: R² is good to about n x 1e-7, far less than a bin.

    Args:
        steps: [checkpoint], strictly increasing.
        protocol: the cast and the filter.
    """

    def __init__(self, steps: FloatArray, protocol: Protocol) -> None:
        times = (steps - steps.mean()) / (steps[-1] - steps[0])
        self._steps, self._protocol = steps, protocol
        self._plain = protocol.keeps_all("weights") and not protocol.casts("weights")
        # One product gives the sum of y and, scaled so that its square over the total is R², that of t y.
        scaled = times[1:] / np.sqrt(times @ times)
        ones = np.full(len(times) - 1, 1.0 / np.sqrt(len(times)))
        self._weights = np.stack([scaled, ones]).astype(np.float32)

    def init(self, tensor: str, size: int) -> State:
        """See `Accumulator.init`."""
        return {"counts": np.zeros(BINS, np.int64), "tally": np.zeros(3, np.int64)}

    def observe(self, state: State, block: Block) -> None:
        """See `Accumulator.observe`; values have to be finite."""
        if self._plain:
            counts = self._count(block)
            zero = int(counts[BINS])
            state["counts"] += counts[:BINS]
            state["tally"] += (block.size, block.size, zero)
            return
        stored = self._protocol.cast(block.values.astype(np.float64), "weights")
        kept = self._protocol.keep(stored, "weights")
        r2 = r_squared_unchecked(stored[:, kept], self._steps)
        r2 = r2[~np.isnan(r2)]
        state["counts"] += np.bincount(np.minimum((r2 * BINS).astype(np.intp), BINS - 1), minlength=BINS)
        constant = np.count_nonzero((stored == stored[0]).all(axis=0))
        state["tally"] += (block.size, np.count_nonzero(kept), constant)

    def merge(self, state: State, later: State) -> None:
        """See `Accumulator.merge`."""
        state["counts"] += later["counts"]
        state["tally"] += later["tally"]

    def _count(self, block: Block) -> np.ndarray:
        """Counts int64 [BINS + 1] of R² of all elements of a block; the last is of those without variance."""
        offsets = block.offsets
        size = block.size
        rows = block.workspace.per_element[:, :size]
        sums, squares, r2 = rows[:2], rows[2], rows[3]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            np.einsum("ij,ij->j", offsets, offsets, out=squares)
            np.matmul(self._weights, offsets, out=sums)
            np.multiply(sums, sums, out=sums)
            np.subtract(squares, sums[1], out=sums[1])
            np.divide(sums[0], sums[1], out=r2)
            np.multiply(r2, np.float32(BINS), out=r2)
            smallest, largest = squares.min(), squares.max()
        np.minimum(r2, np.float32(BINS - 1), out=r2)
        if not (smallest >= _SMALLEST_SQUARES and largest < np.inf):
            self._repair(block, squares, r2)
        bins = block.workspace.bins[:size]
        np.copyto(bins, r2, casting="unsafe")
        return np.bincount(bins, minlength=BINS + 1)

    def _repair(self, block: Block, squares: Float32Array, r2: Float32Array) -> None:
        """Mark elements that never moved by BINS, and do those in float64 whose squares leave float32."""
        outside = ~((squares >= _SMALLEST_SQUARES) & (squares < np.inf))
        moved = np.bitwise_or.reduce(block.offsets.view(np.uint32), axis=0) != 0
        r2[~moved] = BINS
        outside &= moved
        if outside.any():
            exact = r_squared_unchecked(block.values[:, outside].astype(np.float64), self._steps)
            r2[outside] = np.minimum(exact * BINS, BINS - 1)
