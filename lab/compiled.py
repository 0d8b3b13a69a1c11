"""Loops over elements as machine code, where NumPy would need a pass over memory for every operation."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.dispatcher import Dispatcher

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
    is made anew when the function's own file changes, this one, or one from which it imports a compiled function by
    name, at whatever remove.
    """
    return _compiled(function, _OPTIONS)


def compiled_exactly(function: Function) -> Function:
    """As `compiled`, each operation rounded by itself, as written."""
    return _compiled(function, _OPTIONS | {"fastmath": False})


def _compiled(function: Function, options: dict[str, Any]) -> Function:
    try:
        # Part of the name of the file of machine code. By itself, Numba looks at the function's own file alone.
        function.__qualname__ = f"{function.__name__}-{_digest_of_sources(function)}"
        return cast(Function, numba.njit(cache=True, **options)(function))
    except (OSError, RuntimeError):  # no file of its own, or no place for the cache
        return cast(Function, numba.njit(**options)(function))


def _digest_of_sources(function: Callable[..., Any]) -> str:
    """Digest of this file, the function's and, by their names, those of the compiled functions that it finds there."""
    digest = hashlib.sha256(Path(__file__).read_bytes() + Path(inspect.getfile(function)).read_bytes())
    for value in function.__globals__.values():
        if isinstance(value, Dispatcher):
            digest.update(value.py_func.__qualname__.encode())
    return digest.hexdigest()[:16]
