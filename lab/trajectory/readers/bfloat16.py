"""bfloat16, which NumPy does not have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lab.compiled import compiled


@compiled
def shift(bits: NDArray[np.uint16], out: NDArray[np.uint32]) -> None:
    """Write bfloat16 numbers as float32: a bfloat16 is the upper half of one.

    Args:
        bits: uint16 [number].
        out: uint32 [number], the bits of the same numbers as float32.
    """
    for place in range(len(bits)):
        out[place] = np.uint32(bits[place]) << np.uint32(16)
