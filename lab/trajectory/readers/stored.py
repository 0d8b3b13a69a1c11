"""One tensor of one checkpoint, wherever its bytes lie: a range of its elements as float32 or float64."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from lab.trajectory.readers.source_file import Descriptor, SourceFile
from lab.trajectory.series import FLOAT_BYTES

SCRATCH_BYTES = 2**22
"""Stored numbers of all checkpoints that are widened at a time."""
_MOST_FILES = 100
"""Files that each of a few threads may hold open at once."""


class StoredTensor(Protocol):
    """What a series reads of one checkpoint."""

    @property
    def path(self) -> Path:
        """File that holds the values."""
        ...

    @property
    def dtype(self) -> str:
        """Stored floating-point type."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole tensor."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes read from disk for the whole tensor."""
        ...

    def __hash__(self) -> int: ...

    def read_into(self, start: int, stop: int, out: np.ndarray) -> None:
        """Fill `out`, float32 or float64 [stop - start], contiguous, with elements in row-major order."""
        ...


@dataclass(frozen=True)
class FileTensor:
    """A tensor that lies in a file as plain little-endian numbers in row-major order.

    Attributes:
        file: where it lies.
        offset: byte of its first element.
        dtype: one of `lab.trajectory.series.FLOAT_BYTES`.
        shape: of the whole tensor.
    """

    file: SourceFile
    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def path(self) -> Path:
        """File that holds the values."""
        return self.file.path

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor in the file."""
        return math.prod(self.shape) * FLOAT_BYTES[self.dtype]

    def read_into(self, start: int, stop: int, out: np.ndarray) -> None:
        """See `StoredTensor.read_into`.

        Raises:
            BadInput: the file is gone, changed or too short.
        """
        read_rows([self], start, stop, out[None])

    def read_raw(self, start: int, raw: np.ndarray) -> None:
        """Fill `raw`, of `RAW_TYPES[dtype]`, contiguous, with the stored numbers from element `start`."""
        self.file.read_into(self.offset + start * FLOAT_BYTES[self.dtype], raw)


@dataclass(frozen=True)
class PlainRows:
    """One tensor of all checkpoints, each in an open file as plain little-endian numbers of one type.

    Attributes:
        descriptors: int32 [checkpoint]; open as long as this is held.
        offsets: byte of the first element in each file, int64 [checkpoint].
        dtype: one of `lab.trajectory.series.FLOAT_BYTES`.
    """

    descriptors: np.ndarray
    offsets: np.ndarray
    dtype: str
    held: tuple[Descriptor, ...]


def plain_rows(tensors: Sequence[StoredTensor]) -> PlainRows | None:
    """Open the files of one tensor's checkpoints; None where they hold anything else, or are too many to be open.

    Raises:
        BadInput: a file is gone or changed.
    """
    plain = [tensor for tensor in tensors if isinstance(tensor, FileTensor)]
    if not len(tensors) == len(plain) <= _MOST_FILES or len({tensor.dtype for tensor in plain}) != 1:
        return None
    held: list[Descriptor] = []
    for tensor in plain:
        opened = tensor.file.descriptor()
        if opened is None:
            return None
        held.append(opened)
    return PlainRows(
        np.array([each.number for each in held], np.int32),
        np.array([tensor.offset for tensor in plain], np.int64),
        plain[0].dtype,
        tuple(held),
    )


def read_rows(tensors: Sequence[StoredTensor], start: int, stop: int, out: np.ndarray) -> None:
    """Fill `out`, float32 or float64 [tensor, stop - start] in C order, with the same elements of each tensor.

    Tensors of one narrow type are widened together, in one call that leaves other threads alone.

    Raises:
        BadInput: a file is gone, changed or too short.
    """
    plain = [tensor for tensor in tensors if isinstance(tensor, FileTensor)]
    if len(plain) < len(tensors) or len({tensor.dtype for tensor in plain}) != 1:
        for each, row in zip(tensors, out, strict=True):
            each.read_into(start, stop, row)
        return
    dtype = plain[0].dtype
    if out.dtype.type is RAW_TYPES[dtype]:
        for tensor, row in zip(plain, out, strict=True):
            tensor.read_raw(start, row)
        return
    columns = max(1, SCRATCH_BYTES // (len(plain) * FLOAT_BYTES[dtype]))
    for begin in range(0, stop - start, columns):
        part = out[:, begin : begin + columns]
        raw = _scratch(part.shape, RAW_TYPES[dtype])
        for tensor, row in zip(plain, raw, strict=True):
            tensor.read_raw(start + begin, row)
        widen(raw, dtype, part)


_thread = threading.local()


def _scratch(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Return an array that the same thread used before: fresh memory would cost more than the conversion."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if getattr(_thread, "bytes", None) is None or _thread.bytes.size < size:
        _thread.bytes = np.empty(max(size, SCRATCH_BYTES), dtype=np.uint8)
    buffer: np.ndarray = _thread.bytes[:size]
    return buffer.view(dtype).reshape(shape)


@dataclass(frozen=True)
class OtherTensor:
    """A tensor whose type is not one that weights are measured in."""

    path: Path
    dtype: str
    shape: tuple[int, ...]


RAW_TYPES: dict[str, type[np.generic]] = {
    "float64": np.float64,
    "float32": np.float32,
    "bfloat16": np.uint16,
    "float16": np.float16,
}
"""NumPy type under which the stored numbers are read; NumPy has no bfloat16, so its bits are."""


def widen(raw: np.ndarray, dtype: str, out: np.ndarray) -> None:
    """Convert what was read as `RAW_TYPES[dtype]` to the type of `out`, exactly where that is wider."""
    with np.errstate(invalid="ignore"):  # NaN passes through; whoever uses the values says where it is
        if dtype != "bfloat16":
            np.copyto(out, raw, casting="same_kind")
        elif out.dtype == np.float32:
            from lab import bfloat16

            bfloat16.widen(raw, out.view(np.uint32))
        else:
            np.copyto(out, np.multiply(raw, np.uint32(65_536), dtype=np.uint32).view(np.float32))
