"""The forecast of a bfloat16 tensor from two checkpoints, from the files to what is stored in one compiled call.

The same as reading float32, `lab.extrapolation.combination.Combiner` and `lab.extrapolation.rounding.narrow`, bit for
bit; each of those is a passage through memory, which takes longer than the arithmetic.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lab.bfloat16 import narrow, widen_row
from lab.compiled import compiled_exactly
from lab.positioned_read import read_rows

_TILE = 2048


@compiled_exactly
def forecast_pair(
    descriptors: NDArray[np.int32],
    offsets: NDArray[np.int64],
    factor: np.float32,
    largest: np.uint32,
    numbers: NDArray[np.uint16],
    out: NDArray[np.uint16],
) -> bool:
    """Fill `out` with x_0 + factor (x_1 - x_0), each operation rounded to float32, the result to bfloat16.

    Args:
        descriptors: files of the checkpoint from which the forecast is computed and of the other one, int32 [2].
        offsets: byte of the first number in each, int64 [2].
        factor: weight of the second checkpoint.
        largest: bits of the largest float32 that bfloat16 can hold, rounded.
        numbers: buffer, uint16 [2, number].
        out: uint16 [number], filled.

    Returns:
        Whether all could be read and can be stored; if not, `out` is not to be used.
    """
    if not read_rows(descriptors, offsets, numbers):
        return False
    base, other = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    bits = base.view(np.uint32)
    for start in range(0, len(out), _TILE):
        stop = min(start + _TILE, len(out))
        count = stop - start
        widen_row(numbers[0][start:stop], bits)
        widen_row(numbers[1][start:stop], other.view(np.uint32))
        most = np.uint32(0)
        for place in range(count):
            base[place] = base[place] + factor * (other[place] - base[place])
        for place in range(count):
            most = max(most, np.uint32(bits[place] & np.uint32(0x7FFFFFFF)))
        if most > largest:  # infinity and NaN have the largest bits of all
            return False
        narrow(bits[:count], out[start:stop])
    return True
