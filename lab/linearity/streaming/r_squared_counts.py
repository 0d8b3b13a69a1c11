"""R² of every element, straight into a histogram."""

from __future__ import annotations

import numpy as np

from lab.linearity.checks import FloatArray
from lab.linearity.filters import Protocol
from lab.linearity.r_squared import r_squared_unchecked
from lab.linearity.streaming.accumulator import State
from lab.linearity.streaming.block import Block
from lab.linearity.streaming.histogram import BINS


class RSquaredCounts:
    """Histogram of R² of the elements that pass a protocol's cast and filter.

    State: `counts` int64 [bin]; `tally` int64 [3]: elements looked at, kept by the filter, without variance (after
    the cast, of all elements looked at, as `lab.linearity.measure_trajectory` counts them).

    Without cast and filter, see `lab.linearity.streaming.kernels`.

    Attributes:
        plain: whether there is neither cast nor filter.
        times: steps less their mean, over the whole span, float64 [checkpoint].

    Args:
        steps: [checkpoint], strictly increasing.
        protocol: the cast and the filter.
    """

    def __init__(self, steps: FloatArray, protocol: Protocol) -> None:
        self._steps, self._protocol = steps, protocol
        self.plain = protocol.keeps_all("weights") and not protocol.casts("weights")
        self.times = (steps - steps.mean()) / (steps[-1] - steps[0])

    def init(self, tensor: str, size: int) -> State:
        """See `Accumulator.init`."""
        return {"counts": np.zeros(BINS, np.int64), "tally": np.zeros(3, np.int64)}

    def observe(self, state: State, block: Block) -> None:
        """See `Accumulator.observe`; values have to be finite."""
        if self.plain:
            from lab.linearity.streaming.kernels import count_r_squared

            counts = np.zeros(BINS + 1, np.int64)
            count_r_squared(block.values, self.times, counts)
            self.add(state, counts)
            return
        for values in block.strips():
            stored = self._protocol.cast(values.astype(np.float64), "weights")
            kept = self._protocol.keep(stored, "weights")
            r2 = r_squared_unchecked(stored[:, kept], self._steps)
            r2 = r2[~np.isnan(r2)]
            state["counts"] += np.bincount(np.minimum((r2 * BINS).astype(np.intp), BINS - 1), minlength=BINS)
            constant = np.count_nonzero((stored == stored[0]).all(axis=0))
            state["tally"] += (stored.shape[1], np.count_nonzero(kept), constant)

    @staticmethod
    def add(state: State, counts: np.ndarray) -> None:
        """Add elements that `kernels.count_r_squared` has counted, int64 [bin + 1], without filter."""
        state["counts"] += counts[:BINS]
        state["tally"] += (counts.sum(), counts.sum(), counts[BINS])

    def merge(self, state: State, later: State) -> None:
        """See `Accumulator.merge`."""
        state["counts"] += later["counts"]
        state["tally"] += later["tally"]
