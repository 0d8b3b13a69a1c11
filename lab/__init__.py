"""A lab for one claim: training on verifiable rewards moves in straight lines, and can be extrapolated.

The command line is `lab VERB`; `lab.open`, `lab.measure` and `lab.forecast` do the same from Python.
Importing the package imports neither torch nor any other heavy library.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "open": ("lab.trajectory.store", "open_store"),
    "open_series": ("lab.trajectory.readers", "open_series"),
    "measure": ("lab.measurement", "measure"),
    "forecast": ("lab.measurement", "forecast"),
}

__all__ = ["__version__", "forecast", "measure", "open", "open_series"]


def __getattr__(name: str) -> Any:
    """Import the module behind a public name the first time the name is asked for.

    Raises:
        AttributeError: `name` is not public.
    """
    if name not in _LAZY:
        raise AttributeError(f"module 'lab' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
