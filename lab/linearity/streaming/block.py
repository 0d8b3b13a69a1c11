"""A run of elements over all checkpoints: what every accumulator of one pass looks at together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lab.settings import Invalid

Float32Array = NDArray[np.float32]

_STRIP = 8192
"""Elements of a strip: few enough that float64 copies of it stay in a core's cache."""


class Block:
    """Elements of one tensor over all checkpoints.

    Args:
        values: float32 [checkpoint, element].
        start: place of the first element among those of the tensor that are looked at.
    """

    def __init__(self, values: Float32Array, start: int) -> None:
        self.values = np.ascontiguousarray(values)
        self.start = start

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.values.shape[1]

    def strips(self) -> Iterator[Float32Array]:
        """Yield the values of one strip after the other, float32 [checkpoint, element]."""
        for start in range(0, self.size, _STRIP):
            yield self.values[:, start : start + _STRIP]

    def require_finite(self) -> None:
        """Refuse NaN and infinity.

        Raises:
            NotFinite: with the place of the first.
        """
        finite = np.isfinite(self.values)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise NotFinite(int(row), self.start + int(column), float(self.values[row, column]))


class NotFinite(Invalid):
    """A weight is NaN or infinite.

    Attributes:
        checkpoint: row of the checkpoint that holds it.
        element: flat index in its tensor; within a block, the place among the elements that are looked at.
        value: what it is.
        tensor: name of the tensor, where known.
    """

    def __init__(self, checkpoint: int, element: int, value: float, tensor: str = "") -> None:
        super().__init__("values", f"{value} at checkpoint {checkpoint}, element {element} of {tensor}")
        self.checkpoint, self.element, self.value, self.tensor = checkpoint, element, value, tensor
