"""Which elements of a tensor are looked at, and what looks at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lab.linearity.streaming.accumulator import State


@dataclass(frozen=True)
class Selection:
    """Which elements of one tensor are looked at.

    Attributes:
        name: of the tensor.
        size: elements of the tensor.
        indices: sorted flat indices int64 of those looked at; None for all.
    """

    name: str
    size: int
    indices: np.ndarray | None = None

    @property
    def count(self) -> int:
        """How many elements are looked at."""
        return self.size if self.indices is None else len(self.indices)


Observe = Callable[[Selection, int, int], list[State]]
"""Makes the states of elements `start` to `stop` of one tensor, one for each accumulator."""
