"""How fast this machine multiplies matrices, for want of a data sheet."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch


def matrix_rate(sizes: Iterable[tuple[int, int, int]], seconds_each: float = 0.3) -> float:
    """Return floating-point operations a second of torch.mm in float32: the best call over all sizes.

    Args:
        sizes: (rows, inner, columns) of the products tried.
        seconds_each: how long each size is repeated.
    """
    best = 0.0
    for rows, inner, columns in sizes:
        left, right = torch.randn(rows, inner), torch.randn(inner, columns)
        out = torch.empty(rows, columns)
        torch.mm(left, right, out=out)
        end = time.perf_counter() + seconds_each
        while (started := time.perf_counter()) < end:
            torch.mm(left, right, out=out)
            best = max(best, 2.0 * rows * inner * columns / (time.perf_counter() - started))
    return best
