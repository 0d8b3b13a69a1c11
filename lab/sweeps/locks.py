"""Locks of files that end with the process that holds them, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def try_hold(path: Path) -> IO[bytes] | None:
    """Return the locked file, which holds the lock until it is closed; None where another process has it.

    Raises:
        OSError: the directory is missing or not writable.
    """
    file = open(path, "ab")  # noqa: SIM115  (stays open as long as the lock is held)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold the lock while the block runs, waiting for it as long as it takes.

    Raises:
        OSError: the directory is missing or not writable.
    """
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the lock; a missing file is held by nobody."""
    if not path.exists():
        return False
    file = try_hold(path)
    if file is None:
        return True
    file.close()
    return False
