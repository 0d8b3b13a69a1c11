"""Reading bytes of a weight file at an offset, without mapping it: pages stay in the page cache, not in the
process, so that memory does not grow with the number of files.
"""

from __future__ import annotations

import errno
import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from lab.errors import BadInput

OPEN_FILES = 256
"""Descriptors kept open at a time; a long series of sharded models has more files than a process may open."""

_TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)

_Identity = tuple[int, int, int, int]


class Descriptor:
    """An open file that closes itself once neither the cache nor a reading thread holds it."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.number, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@lru_cache(maxsize=OPEN_FILES)
def _descriptor(path: str, identity: _Identity) -> Descriptor:
    opened = Descriptor(path)
    if _identity(os.fstat(opened.number)) != identity:
        raise BadInput(f"{path}: the file changed while it was read; wait until its writer is done")
    return opened


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class SourceFile:
    """One file of weights, as it was when it was first looked at.

    Args:
        path: the file.

    Raises:
        BadInput: it is missing, no plain file, or may not be read; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._name = path, os.fspath(path)
        try:
            found = os.stat(path)
        except OSError as error:
            raise unreadable(path, error) from None
        self.size = found.st_size
        self._identity = _identity(found)
        self.read(0, 0)  # opens it, so that what may not be read is refused before any work

    def descriptor(self) -> Descriptor | None:
        """Return the open file, to be held as long as its number is used; None where no more files may be open.

        Raises:
            BadInput: the file is gone or changed.
        """
        try:
            return self._opened()
        except OSError as error:
            if error.errno in _TOO_MANY_OPEN:
                return None
            raise unreadable(self.path, error) from None

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`.

        Raises:
            BadInput: as `read_into`.
        """
        buffer = np.empty(count, dtype=np.uint8)
        self.read_into(offset, buffer)
        return buffer.tobytes()

    def read_into(self, offset: int, buffer: np.ndarray) -> None:
        """Fill the contiguous `buffer` with the bytes from `offset`; threads may call it at once.

        Raises:
            BadInput: the file is gone, changed, too short, or the disk fails.
        """
        try:
            descriptor = self._opened()
            done = os.preadv(descriptor.number, [buffer.data], offset)
            while done < buffer.nbytes:  # not all came at once
                count = os.preadv(descriptor.number, [buffer.view(np.uint8)[done:].data], offset + done)
                if count == 0:
                    raise BadInput(
                        f"{self.path}: ends at byte {offset + done}, expected {offset + buffer.nbytes}; copy it again"
                    )
                done += count
        except OSError as error:
            raise unreadable(self.path, error) from None

    def _opened(self) -> Descriptor:
        try:
            return _descriptor(self._name, self._identity)
        except OSError as error:
            if error.errno not in _TOO_MANY_OPEN:
                raise
        _descriptor.cache_clear()  # closes those that no thread holds
        return _descriptor(self._name, self._identity)


def unreadable(path: Path, error: OSError) -> BadInput:
    """Return the refusal of a path that the operating system would not open or read."""
    reasons = {
        errno.ENOENT: "no such file or directory",
        errno.EACCES: "permission denied; ask its owner for read access",
        errno.ELOOP: "a loop of symbolic links; point it at a real file",
        errno.EISDIR: "a directory where a file was expected",
        errno.ENOTDIR: "a file where a directory was expected",
        errno.EIO: "the disk failed while reading it",
    }
    return BadInput(f"{path}: {reasons.get(error.errno or 0, error.strerror or str(error))}")
