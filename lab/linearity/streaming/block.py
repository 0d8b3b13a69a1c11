"""A run of elements over all checkpoints: what every accumulator of one pass looks at together.

Differences between checkpoints are made strip by strip, as wide as a core's cache can hold, in one buffer that all of
them share. Arithmetic is float32, the type that weights come in: the difference of two neighbouring checkpoints of a
weight is exact in it as long as they are within a factor of two of each other (Sterbenz), and sums over elements leave
it for float64 strip by strip.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lab.settings import Invalid

Float32Array = NDArray[np.float32]

_STRIP_VALUES = 2**18  # Of a strip over all checkpoints: 1 MiB, and as much for their differences.
_ROWS_TOGETHER = 4  # Matrix kernels work on so many rows at a time; the last, incomplete group costs as much.


class Workspace:
    """Buffers of one thread, for blocks of up to `width` elements of `checkpoints` checkpoints.

    Attributes:
        width: elements of the widest block.
        strip: elements whose differences are made at a time.
    """

    def __init__(self, checkpoints: int, width: int) -> None:
        intervals = checkpoints - 1
        rows = -(-intervals // _ROWS_TOGETHER) * _ROWS_TOGETHER
        self.width = width
        self.strip = min(width, max(64, _STRIP_VALUES // (checkpoints + 2) // 64 * 64))
        # Rows beyond the last interval stay zero.
        self.differences = np.zeros((rows, self.strip), np.float32)
        self.per_element = np.empty((3, self.strip), np.float32)
        self.whole_numbers = np.empty(self.strip, np.int32)
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

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.values.shape[1]

    def strips(self) -> Iterator[slice]:
        """Yield the columns of one strip after the other."""
        for start in range(0, self.size, self.workspace.strip):
            yield slice(start, min(start + self.workspace.strip, self.size))

    def offsets(self, columns: slice) -> Float32Array:
        """Return displacements since the first checkpoint, float32 [checkpoint - 1, element of the strip].

        Valid until differences are asked for again.
        """
        values = self.values[:, columns]
        found = self.workspace.differences[: len(values) - 1, : values.shape[1]]
        np.subtract(values[1:], values[0], out=found)
        return found

    def padded_increments(self, columns: slice) -> Float32Array:
        """Return increments between successive checkpoints, float32 [rows, element of the strip].

        Rows beyond the last interval are zero. Valid until differences are asked for again.
        """
        values = self.values[:, columns]
        found = self.workspace.differences[:, : values.shape[1]]
        np.subtract(values[1:], values[:-1], out=found[: len(values) - 1])
        return found

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
