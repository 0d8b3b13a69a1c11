"""float32 to the type that is stored: to nearest, ties to even; what would overflow is refused, not made infinite."""

from __future__ import annotations

import numpy as np

STORED_TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Names of the types that can be written, to their names in a safetensors header."""

ITEM_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}

_LARGEST = {"float32": 0x7F7FFFFF, "bfloat16": 0x7F7F7FFF, "float16": 0x477FEFFF}
"""Bits of the largest float32 that rounds to a finite number: half a unit above the type's largest is the first
that does not (3.3961776e38 in bfloat16, 65520 in float16), since a tie goes to even, which is infinity here."""

LARGEST_FINITE = {"float32": 3.4028235e38, "bfloat16": 3.3895314e38, "float16": 65504.0}


def largest_storable(dtype: str) -> np.float32:
    """Return the largest float32 that rounds to a finite number of the type."""
    return np.uint32(_LARGEST[dtype]).view(np.float32)


_LIMITS = {dtype: largest_storable(dtype) for dtype in STORED_TYPES}
_SAFE_SQUARES = {
    dtype: min(0.999 * float(limit) ** 2, float(largest_storable("float32")))
    for dtype, limit in _LIMITS.items()
}
"""Rounding is monotone, so a sum of squares, in whatever order it was added up, is at least its largest term up to that
term's own rounding: one below this bound leaves no element beyond the limit."""


def first_unstorable(values: np.ndarray, dtype: str) -> int | None:
    """Return the first float32 element that is not finite, or would not be as `dtype`; None where all are."""
    if len(values) == 0:
        return None
    largest = _LIMITS[dtype]
    with np.errstate(over="ignore", invalid="ignore"):  # of a NaN, which no comparison lets through
        if np.dot(values, values) <= _SAFE_SQUARES[dtype]:  # one pass, which is enough nearly always
            return None
        if values.max() <= largest and values.min() >= -largest:
            return None
        return int(np.argmin(np.abs(values) <= largest))


def narrow(values: np.ndarray, dtype: str, out: np.ndarray) -> None:
    """Fill `out`, uint16, with the bits of `values`, float32, all storable, as bfloat16 or float16; all [number]."""
    if dtype == "float16":
        np.copyto(out.view(np.float16), values, casting="same_kind")
        return
    from lab import bfloat16

    bfloat16.narrow(values.view(np.uint32), out)
