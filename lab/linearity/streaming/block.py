"""A few thousand elements over all checkpoints: what every accumulator of one pass looks at together.

Displacements and increments are made once and shared. Arithmetic is float32, the type that weights come in: the
difference of two neighbouring checkpoints of a weight is exact in it as long as they are within a factor of two of
each other (Sterbenz), and sums over elements leave it for float64 block by block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lab.settings import Invalid

Float32Array = NDArray[np.float32]

_ROWS_TOGETHER = 4  # Matrix kernels work on so many rows at a time; the last, incomplete group costs as much.


class Workspace:
    """Buffers of one thread, for blocks of up to `width` elements of `checkpoints` checkpoints."""

    def __init__(self, checkpoints: int, width: int) -> None:
        intervals = checkpoints - 1
        rows = -(-intervals // _ROWS_TOGETHER) * _ROWS_TOGETHER
        self.width = width
        self.offsets = np.empty((intervals, width), np.float32)
        self.increments = np.zeros((rows, width), np.float32)  # Rows beyond the last interval stay zero.
        self.per_element = np.empty((6, width), np.float32)
        self.bins = np.empty(width, np.intp)


class Block:
    """Elements of one tensor over all checkpoints.

    Args:
        values: float32 [checkpoint, element].
        start: place of the first element among those of the tensor that are looked at.
        workspace: buffers; a block is valid until the next one is made with the same workspace.
    """

    def __init__(self, values: Float32Array, start: int, workspace: Workspace) -> None:
        self.values = values
        self.start = start
        self.workspace = workspace
        self._offsets: Float32Array | None = None
        self._padded_increments: Float32Array | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.values.shape[1]

    @property
    def offsets(self) -> Float32Array:
        """Displacement since the first checkpoint, float32 [checkpoint - 1, element]."""
        if self._offsets is None:
            self._offsets = self.workspace.offsets[:, : self.size]
            np.subtract(self.values[1:], self.values[0], out=self._offsets)
        return self._offsets

    @property
    def padded_increments(self) -> Float32Array:
        """Increments between successive checkpoints, float32 [rows, element]; rows beyond the last are zero."""
        if self._padded_increments is None:
            self._padded_increments = self.workspace.increments[:, : self.size]
            intervals = len(self.values) - 1
            np.subtract(self.values[1:], self.values[:-1], out=self._padded_increments[:intervals])
        return self._padded_increments

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
