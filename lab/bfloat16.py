"""bfloat16, which NumPy does not have: the upper half of a float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lab.compiled import compiled


@compiled
def widen(bits: NDArray[np.uint16], out: NDArray[np.uint32]) -> None:
    """Write bfloat16 numbers as float32, exactly.

    Args:
        bits: uint16 [row, number], as stored.
        out: uint32 [row, number], the bits of the same numbers as float32.
    """
    for row in range(len(bits)):
        widen_row(bits[row], out[row])


@compiled
def widen_row(bits: NDArray[np.uint16], out: NDArray[np.uint32]) -> None:
    """As `widen`, one row, [number]; contiguous ones take a fraction of the time."""
    for place in range(len(bits)):
        out[place] = np.uint32(bits[place]) << np.uint32(16)


@compiled
def narrow(values: NDArray[np.uint32], out: NDArray[np.uint16]) -> None:
    """Round float32 numbers to bfloat16, to nearest, ties to even; NaN is not provided for.

    Args:
        values: uint32 [number], the bits of float32 numbers.
        out: uint16 [number], filled.
    """
    for place in range(len(values)):
        # Just under half a unit is added, and one more where the last bit that is kept is odd.
        odd = (values[place] >> np.uint32(16)) & np.uint32(1)
        out[place] = np.uint16((values[place] + np.uint32(0x7FFF) + odd) >> np.uint32(16))
