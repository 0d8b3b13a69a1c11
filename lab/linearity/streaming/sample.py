"""Values of a few elements that are a function of (seed, tensor name) alone, for tests that need whole paths."""

from __future__ import annotations

import numpy as np

from lab.draw import stable_hash
from lab.linearity.streaming.accumulator import State
from lab.linearity.streaming.block import Block
from lab.trajectory.sampling import sample_coordinates

PLACES = "places"
"""Key of the sampled elements' flat indices."""


class Sample:
    """The paths of max(minimum, fraction x size) elements of each tensor.

    Where the product is no whole number it is rounded up or down by a hash of the name, so that many small tensors
    have their share in the sum. State: `NAME` float32 [checkpoint, element], where NAME is the sample's own.

    Args:
        checkpoints: number of checkpoints.
        name: of the sample; samples of different names are different ones.
        seed: of the choice.
        fraction: share of a tensor's elements.
        minimum: fewest elements of a tensor that has so many.
    """

    def __init__(self, checkpoints: int, name: str, seed: int, fraction: float, minimum: int) -> None:
        self._checkpoints, self.name = checkpoints, name
        self._seed, self._fraction, self._minimum = seed, fraction, minimum

    def init(self, tensor: str, size: int) -> State:
        """See `Accumulator.init`."""
        share = stable_hash("rounding", self._seed, self.name, tensor) / 2**64
        count = max(self._minimum, int(self._fraction * size + share))
        chosen = sample_coordinates(self._seed, f"{self.name}/{tensor}", size, 0.0, count)
        return {self.name: np.zeros((self._checkpoints, len(chosen)), np.float32), PLACES: chosen}

    def observe(self, state: State, block: Block) -> None:
        """See `Accumulator.observe`."""
        span = self.span(state, block.start, block.start + block.size)
        if span.start < span.stop:
            state[self.name][:, span] = block.values[:, state[PLACES][span] - block.start]

    @staticmethod
    def span(state: State, start: int, stop: int) -> slice:
        """Return which of the sample's elements are among elements `start` to `stop`."""
        first, last = np.searchsorted(state[PLACES], (start, stop))
        return slice(int(first), int(last))

    def merge(self, state: State, later: State) -> None:
        """See `Accumulator.merge`; each element was seen by one of the two states, the other holds zero."""
        state[self.name] += later[self.name]
