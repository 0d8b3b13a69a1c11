"""How many CPU threads the numerical libraries use.

Two OpenMP threads that wait actively on two busy cores make small models slower by two orders of
magnitude, so waiting is passive and one thread is the default. The libraries read these variables
when they are first imported: call `set_threads` before anything imports torch.
"""

from __future__ import annotations

import os
import sys

from lab.errors import BadInput

_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def set_threads(count: int) -> None:
    """Let the numerical libraries use `count` threads; the configuration wins over the environment.

    Raises:
        BadInput: `count` is not a whole number of at least one.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise BadInput(f"threads: expected a whole number of at least 1, got {count!r}")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in _COUNTS:
        os.environ[name] = str(count)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)
