"""Rounding to the stored type agrees with PyTorch's on every kind of number, and overflow is found, not stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lab.extrapolation.rounding import first_unstorable, largest_storable, narrow

TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def cases() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, size=300_000, dtype=np.uint32)
    ties = (rng.integers(0, 2**16, size=50_000, dtype=np.uint32) << np.uint32(16)) | np.uint32(0x8000)
    near = ties + rng.integers(-1, 2, size=50_000).astype(np.uint32)
    small = np.concatenate([rng.normal(size=1000) * 1e-40, rng.normal(size=1000) * 1e-7, [0.0, -0.0]])
    return np.concatenate([bits, ties, near]).view(np.float32), small.astype(np.float32)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_bits_are_pytorchs(dtype: str) -> None:
    values = np.concatenate(cases())
    stored = torch.from_numpy(values).to(TYPES[dtype])
    values = np.ascontiguousarray(values[torch.isfinite(stored).numpy() & np.isfinite(values)])
    assert first_unstorable(values, dtype) is None
    found = np.empty(len(values), dtype=np.uint16)
    narrow(values, dtype, found)
    wanted = torch.from_numpy(values).to(TYPES[dtype]).view(torch.int16).numpy()
    np.testing.assert_array_equal(found.view(np.int16), wanted)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_largest_storable_is_the_last_that_stays_finite(dtype: str) -> None:
    largest = largest_storable(dtype)
    beyond = (largest.view(np.uint32) + np.uint32(1)).view(np.float32)
    assert torch.isfinite(torch.tensor(largest).to(TYPES[dtype]))
    assert not torch.isfinite(torch.tensor(beyond).to(TYPES[dtype]))
    for sign in (1, -1):
        assert first_unstorable(np.array([0.0, sign * largest], dtype=np.float32), dtype) is None
        assert first_unstorable(np.array([0.0, sign * beyond], dtype=np.float32), dtype) == 1


@pytest.mark.parametrize("dtype", TYPES)
def test_every_kind_of_nan_is_found(dtype: str) -> None:
    nans = np.array([0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800000, 0xFF800000], dtype=np.uint32)
    for bits in nans:
        values = np.zeros(70_000, dtype=np.float32)
        values[65_600] = bits.view(np.float32)
        assert first_unstorable(values, dtype) == 65_600


def test_nothing_is_storable() -> None:
    assert first_unstorable(np.empty(0, dtype=np.float32), "bfloat16") is None


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("sign", [1, -1])
def test_many_large_numbers_hide_none_that_is_too_large(dtype: str, sign: int) -> None:
    """Sums over the elements overflow long before any of them does."""
    largest = largest_storable(dtype)
    values = np.random.default_rng(1).uniform(-1, 1, 70_000).astype(np.float32) * largest
    assert first_unstorable(values, dtype) is None
    values[[5, 69_999]] = sign * np.float32((largest.view(np.uint32) + np.uint32(1)).view(np.float32))
    assert first_unstorable(values, dtype) == 5
    assert first_unstorable(values[6:-1], dtype) is None
