"""What is computed in one pass over slices: the interface that every streamed statistic has."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lab.linearity.streaming.block import Block

State = dict[str, np.ndarray]
"""Named arrays, so that any state can be stored and read back."""


class Accumulator(Protocol):
    """A statistic of one tensor that is gathered block by block, on several threads.

    Each thread fills states of its own; they are merged in the order of the elements, so the result does not
    depend on the number of threads.
    """

    def init(self, tensor: str, size: int) -> State:
        """Return the empty state for a tensor of which `size` elements are looked at."""
        ...

    def observe(self, state: State, block: Block) -> None:
        """Add one block to the state."""
        ...

    def merge(self, state: State, later: State) -> None:
        """Add to `state` the state of later elements of the same tensor."""
        ...
