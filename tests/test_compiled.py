"""Compiled loops: the same numbers as in Python, NaN and infinity included, with or without a place for a cache."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from lab import bfloat16
from lab.compiled import compiled


def _undefined(values: np.ndarray) -> int:
    count = 0
    for value in values:
        if value != value or value - value != 0.0:
            count += 1
    return count


def test_nan_and_infinity_stay_what_they_are() -> None:
    values = np.array([1.0, np.nan, -np.inf, 0.0, np.inf])
    with np.errstate(invalid="ignore"):
        assert compiled(_undefined)(values) == _undefined(values) == 3


def test_without_a_place_for_the_cache_it_compiles_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    real = numba.njit

    def nowhere(cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba, "njit", nowhere)
    assert compiled(_undefined)(np.array([np.nan, 2.0])) == 1


def test_every_bfloat16_comes_back() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    wide = np.empty((1, len(bits)), np.uint32)
    bfloat16.widen(bits[None], wide)
    assert np.array_equal(wide[0].view(np.uint16)[1::2], bits) and not wide[0].view(np.uint16)[::2].any()
    back = np.empty_like(bits)
    bfloat16.narrow(wide[0], back)
    numbers = ~np.isnan(wide[0].view(np.float32))
    assert np.array_equal(back[numbers], bits[numbers])
