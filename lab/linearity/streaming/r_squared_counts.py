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
_NEAREST_NEIGHBOUR = 1e-7
"""The float32 next to x is at least 2^-24 |x| away: an element that starts beyond this bound and moves at all has
squares of 3.5e-29 or more, so that smaller ones mean that it never moved."""


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
        # Scaled so that the square of one product over the sum of squares less that of the other is R² in bins.
        self._of_times = (times[1:] * np.sqrt(BINS / (times @ times))).astype(np.float32)
        self._of_sum = np.full(len(times) - 1, 1.0 / np.sqrt(len(times)), np.float32)

    def init(self, tensor: str, size: int) -> State:
        """See `Accumulator.init`."""
        return {"counts": np.zeros(BINS, np.int64), "tally": np.zeros(3, np.int64)}

    def observe(self, state: State, block: Block) -> None:
        """See `Accumulator.observe`; values have to be finite."""
        if self._plain:
            counts = np.bincount(self._bins(block), minlength=BINS + 1)
            state["counts"] += counts[:BINS]
            state["tally"] += (block.size, block.size, int(counts[BINS]))
            return
        for columns in block.strips():
            stored = self._protocol.cast(block.values[:, columns].astype(np.float64), "weights")
            kept = self._protocol.keep(stored, "weights")
            r2 = r_squared_unchecked(stored[:, kept], self._steps)
            r2 = r2[~np.isnan(r2)]
            state["counts"] += np.bincount(np.minimum((r2 * BINS).astype(np.intp), BINS - 1), minlength=BINS)
            constant = np.count_nonzero((stored == stored[0]).all(axis=0))
            state["tally"] += (stored.shape[1], np.count_nonzero(kept), constant)

    def merge(self, state: State, later: State) -> None:
        """See `Accumulator.merge`."""
        state["counts"] += later["counts"]
        state["tally"] += later["tally"]

    def _bins(self, block: Block) -> np.ndarray:
        """Bin of R² of each element of a block, intp; BINS for those without variance."""
        workspace = block.workspace
        bins = workspace.bins[: block.size]
        for columns in block.strips():
            offsets = block.offsets(columns)
            squares, r2, of_sum = workspace.per_element[:, : offsets.shape[1]]
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                np.einsum("ij,ij->j", offsets, offsets, out=squares)
                np.matmul(self._of_times, offsets, out=r2)
                np.matmul(self._of_sum, offsets, out=of_sum)
                np.multiply(r2, r2, out=r2)
                np.multiply(of_sum, of_sum, out=of_sum)
                np.subtract(squares, of_sum, out=of_sum)
                np.divide(r2, of_sum, out=r2)
                smallest, largest = squares.min(), squares.max()
            np.minimum(r2, np.float32(BINS - 1), out=r2)
            if not (smallest >= _SMALLEST_SQUARES and largest < np.inf):
                self._repair(block.values[:, columns], offsets, squares, r2)
            # Two plain conversions take less time than one that widens.
            whole = workspace.whole_numbers[: len(r2)]
            np.copyto(whole, r2, casting="unsafe")
            np.copyto(bins[columns], whole)
        return bins

    def _repair(
        self, values: Float32Array, offsets: Float32Array, squares: Float32Array, r2: Float32Array
    ) -> None:
        """Mark elements that never moved by BINS, and do those in float64 whose squares leave float32."""
        outside = np.flatnonzero(~((squares >= _SMALLEST_SQUARES) & (squares < np.inf)))
        r2[outside] = BINS
        outside = outside[(np.abs(values[0, outside]) < _NEAREST_NEIGHBOUR) | (squares[outside] > 1.0)]
        if outside.size:
            outside = outside[np.bitwise_or.reduce(offsets.view(np.uint32), axis=0)[outside] != 0]
        if outside.size:
            exact = r_squared_unchecked(values[:, outside].astype(np.float64), self._steps)
            r2[outside] = np.minimum(exact * BINS, BINS - 1)
