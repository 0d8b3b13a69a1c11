"""Reading the same range of many files in machine code, without asking for the interpreter in between."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from lab.compiled import compiled

_pread = types.ExternalFunction("pread", types.int64(types.int32, types.voidptr, types.int64, types.int64))
"""POSIX.1-2017, `ssize_t pread(int, void *, size_t, off_t)`."""


@compiled
def read_rows(descriptors: NDArray[np.int32], offsets: NDArray[np.int64], out: NDArray[Any]) -> bool:
    """Fill row after row, each from its own open file.

    Args:
        descriptors: int32 [row], open for reading.
        offsets: int64 [row], byte of the first number.
        out: [row, number] in C order, of the type that is stored.

    Returns:
        Whether all rows came whole; what the others lack, the caller has to find out.
    """
    count = out.shape[1] * out.itemsize
    for row in range(len(descriptors)):
        if _pread(descriptors[row], out[row].ctypes.data, count, offsets[row]) != count:
            return False
    return True
