"""Loops over elements as machine code, where NumPy would need a pass over memory for every operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    # Sums may be taken in any order and products be fused with them; NaN, infinity and division stay exact.
    "fastmath": {"reassoc", "contract", "nsz"},
    "error_model": "numpy",
}


def compiled(function: Function) -> Function:
    """Return `function` compiled by Numba at its first call; other threads may run meanwhile.

    The machine code is kept beside the source or in the user's cache directory, so that only the first process
    compiles; where neither can be written, every process does. It holds that of the functions that are called, and
    is made anew when the function's own file changes: what may change together belongs in one file.
    """
    return _compiled(function, _OPTIONS)


def compiled_exactly(function: Function) -> Function:
    """As `compiled`, each operation rounded by itself, as written."""
    return _compiled(function, _OPTIONS | {"fastmath": False})


def _compiled(function: Function, options: dict[str, Any]) -> Function:
    try:
        return cast(Function, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no place for the cache
        return cast(Function, numba.njit(**options)(function))
