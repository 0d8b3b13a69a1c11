"""Compiled loops: the same numbers as in Python, NaN and infinity included, with or without a place for a cache."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
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


CHAIN = {
    "leaf": "@compiled\ndef leaf(x):\n    return x + 1\n",
    "middle": "from leaf import leaf\n@compiled\ndef middle(x):\n    return 10 * leaf(x)\n",
    "caller": "from middle import middle\n@compiled\ndef caller(x):\n    return middle(x) + 5\n",
}
"""Files of one compiled function each, which calls that of the one before."""


def _caller(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the files as a new process would and return `caller`."""
    for name in CHAIN:
        module, path = ModuleType(name), folder / f"{name}.py"
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(path.read_text(), path, "exec"), module.__dict__)
    return sys.modules["caller"].caller  # type: ignore[attr-defined]


def test_an_edit_reaches_callers_in_other_files_and_nothing_else_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, body in CHAIN.items():
        (tmp_path / f"{name}.py").write_text("from lab.compiled import compiled\n" + body)
    assert _caller(tmp_path, monkeypatch)(2) == 35
    unchanged = _caller(tmp_path, monkeypatch)
    assert unchanged(2) == 35 and unchanged.stats.cache_hits
    leaf = tmp_path / "leaf.py"
    leaf.write_text(leaf.read_text().replace("x + 1", "x + 3"))
    edited = _caller(tmp_path, monkeypatch)
    assert edited(2) == 55 and not edited.stats.cache_hits
