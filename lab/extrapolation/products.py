"""One pass over all weights of a series: inner products of increments, for each tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from lab.linearity.checks import FloatArray
from lab.linearity.products import increment_products

if TYPE_CHECKING:
    from lab.trajectory.series import CheckpointSeries

SLICE_ELEMENTS = 2**18
"""(checkpoint, element) pairs read at a time: 1 MiB of float32, which stays in a core's cache."""


def slices(size: int, checkpoints: int) -> Iterable[tuple[int, int]]:
    """Yield the ranges of elements in which a tensor of `size` elements is gone through."""
    length = max(1, SLICE_ELEMENTS // checkpoints)
    for start in range(0, size, length):
        yield start, min(start + length, size)


def slice_products(values: NDArray[np.floating]) -> FloatArray:
    """Return `increment_products` of a slice, in the arithmetic of `values`, as float64 [interval, interval]."""
    return increment_products(cast(FloatArray, values)).astype(np.float64)


def gather_products(
    series: CheckpointSeries,
    progress: Callable[[int], None] | None = None,
    names: Iterable[str] | None = None,
) -> dict[str, FloatArray]:
    """Return the inner products of increments of each tensor, float64 [interval, interval].

    Increments are taken in float32, in which those of neighbouring checkpoints are nearly exact, multiplied in
    float32 within a slice and summed in float64.

    Args:
        series: to be read; every weight of the tensors once.
        progress: called with the bytes of each slice that was read.
        names: tensors; by default all.

    Raises:
        BadInput: a weight is not finite; the message names tensor and step.
    """
    from lab.trajectory.readers import require_finite

    count = len(series.steps)
    buffer = np.empty(SLICE_ELEMENTS, dtype=np.float32)
    found: dict[str, FloatArray] = {}
    for name in series.tensors if names is None else names:
        info = series.tensors[name]
        total = np.zeros((count - 1, count - 1))
        for start, stop in slices(info.size, count):
            values = buffer[: count * (stop - start)].reshape(count, -1)
            series.read_into(name, start, stop, values)
            with np.errstate(over="ignore", invalid="ignore"):
                products = slice_products(values)
            if not np.isfinite(products).all():
                require_finite(series, name, start, values)
                products = slice_products(values.astype(np.float64))
            total += products
            if progress is not None:
                progress(count * (stop - start) * info.nbytes // info.size)
        found[name] = total
    return found
