"""What plugs the lab into other libraries' training loops and generation."""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "ExtrapolatedLogits": "lab.integrations.logits_processor",
    "RegroundingCallback": "lab.integrations.regrounding_callback",
    "TrajectoryCallback": "lab.integrations.trajectory_callback",
}

__all__ = ["ExtrapolatedLogits", "RegroundingCallback", "TrajectoryCallback"]


def __getattr__(name: str) -> Any:
    """Import the module behind a public name the first time the name is asked for: Transformers is slow to import.

    Raises:
        AttributeError: `name` is not public.
    """
    if name not in _LAZY:
        raise AttributeError(f"module 'lab.integrations' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
