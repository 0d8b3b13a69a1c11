"""Forecasts of bfloat16 from two checkpoints in one call: the formula, each operation rounded by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.compiled import compiled, compiled_exactly
from lab.extrapolation.bfloat16_pair import forecast_pair
from lab.extrapolation.rounding import largest_storable

LARGEST = largest_storable("bfloat16").view(np.uint32)


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., tuple[bool, np.ndarray]]:
    def _call(
        first: torch.Tensor, second: torch.Tensor, factor: float, cut: int = 0
    ) -> tuple[bool, np.ndarray]:
        numbers = []
        for name, values in (("first", first), ("second", second)):
            raw = values.to(torch.bfloat16).view(torch.int16).numpy().tobytes()
            (tmp_path / name).write_bytes(b"head" + raw[: len(raw) - cut])
            numbers.append(os.open(tmp_path / name, os.O_RDONLY))
        count = len(first)
        out = np.zeros(count, np.uint16)
        done = forecast_pair(
            np.array(numbers, np.int32),
            np.array([4, 4]),
            np.float32(factor),
            LARGEST,
            np.empty((2, count), np.uint16),
            out,
        )
        for number in numbers:
            os.close(number)
        return done, out

    return _call


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 20_000])
@pytest.mark.parametrize("factor", [3.5, -0.75, 0.0])
def test_it_is_what_torch_computes_in_float32_and_rounds(
    call: Callable[..., tuple[bool, np.ndarray]], count: int, factor: float
) -> None:
    generator = torch.Generator().manual_seed(count)
    first = torch.randn(count, generator=generator).to(torch.bfloat16).float()
    second = (first + 0.01 * torch.randn(count, generator=generator)).to(torch.bfloat16).float()
    done, out = call(first, second, factor)
    expected = first + (second - first) * factor  # three operations, each a rounding of its own
    assert done
    assert np.array_equal(out, expected.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16))


def test_what_overflows_is_infinite_or_cut_short_is_not_used(
    call: Callable[..., tuple[bool, np.ndarray]],
) -> None:
    zero = torch.zeros(5000)
    for bad in (3e38, float("inf"), float("nan")):
        second = zero.clone()
        second[4999] = bad
        assert not call(zero, second, 3.5)[0]
    edge = torch.full((1,), 3.3895314e38)  # the largest that bfloat16 holds
    done, out = call(torch.zeros(1), edge, 1.0)
    assert done and out[0] == 0x7F7F
    assert not call(zero, zero, 3.5, cut=1)[0]


def test_exactly_means_without_fused_operations() -> None:
    def fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
        for place in range(len(a)):
            a[place] = a[place] * b[place] + c[place]

    x = np.float32(1 + 2**-12)
    square = np.full(64, x * x, np.float32)  # rounded, so that subtracting it leaves 0 or the rounding error
    values = np.full(64, x)
    compiled_exactly(fused)(values, values.copy(), -square)
    assert not values.any()
    values = np.full(64, x)
    compiled(fused)(values, values.copy(), -square)
    assert np.isin(values, [0.0, np.float32(float(x) ** 2 - float(x * x))]).all()
