"""How fast this machine multiplies matrices and moves memory, for want of a data sheet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch


def matrix_rate(
    sizes: Iterable[tuple[int, int, int]],
    seconds_each: float = 0.3,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> float:
    """Return floating-point operations a second of torch.mm: the best call over all sizes.

    Args:
        sizes: (rows, inner, columns) of the products tried.
        seconds_each: how long each size is repeated.
        device: where.
        dtype: of the factors and the product.
    """
    best = 0.0
    for rows, inner, columns in sizes:
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(inner, columns, device=device).to(dtype)
        out = torch.empty(rows, columns, device=device, dtype=dtype)

        def product(left: torch.Tensor = left, right: torch.Tensor = right, out: torch.Tensor = out) -> None:
            torch.mm(left, right, out=out)

        best = max(best, 2.0 * rows * inner * columns / _best_seconds(product, seconds_each, out.device))
    return best


def memory_rate(nbytes: int, seconds: float = 0.3, device: torch.device | str = "cpu") -> float:
    """Return bytes a second that a copy reads and writes, each counted: the best of those that fit in the time.

    Args:
        nbytes: size of what is copied; several times the caches.
        seconds: how long it is repeated.
        device: where.
    """
    source = torch.ones(nbytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * nbytes / _best_seconds(lambda: target.copy_(source), seconds, source.device)


def _best_seconds(call: Callable[[], object], seconds: float, device: torch.device) -> float:
    settle = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    call()
    settle()
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        settle()
        best = min(best, time.perf_counter() - started)
    return best
