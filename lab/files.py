"""Writing files so that a kill at any moment leaves either the old one or the new one, never half."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.errors import BadInput


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write `data` to `path` through a temporary file in the same directory; text is UTF-8.

    Raises:
        OSError: the directory is missing, not writable, or the disk is full; `path` is as before.
    """
    path = Path(path)
    temporary = _sibling(path)
    content = data.encode() if isinstance(data, str) else data
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def plain(value: Any) -> Any:
    """Return `value` made of mappings, lists, text, numbers and None, as JSON and YAML know them.

    Arrays become lists, array scalars Python numbers, paths text, tuples lists.

    Raises:
        TypeError: a value has no such form; turning it into text silently would lose what it is.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # arrays and their scalars, without importing their library
        return plain(value.tolist())
    raise TypeError(f"cannot be written as plain data: {value!r} of type {type(value).__name__}")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, atomically and in its own key order; NaN and infinities become null.

    Raises:
        TypeError: a value has no plain form.
        OSError: as `write_atomic`.
    """
    text = json.dumps(_without_nan(plain(value)), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """Return what the JSON file holds.

    Raises:
        BadInput: the file is missing, unreadable or not JSON; the message names it.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise BadInput(f"{path}: not valid JSON ({error})") from None


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a new directory to fill; it takes the name `path` only once the block has ended well.

    A directory already at `path` is replaced at that moment; on an exception it stays as it was
    and the half-filled one is removed.

    Raises:
        OSError: the parent is missing or not writable, or the disk is full.
    """
    path = Path(path)
    temporary = _sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        for folder, _, names in os.walk(temporary, topdown=False):
            for name in names:
                sync(Path(folder, name))
            sync(Path(folder))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if path.exists():
        remove_tree(path)
    os.rename(temporary, path)
    sync(path.parent)


def remove_tree(path: str | Path) -> None:
    """Remove a directory and all in it; its name is free at once, before the slow removal starts.

    Raises:
        OSError: it is missing or may not be removed.
    """
    path = Path(path)
    doomed = _sibling(path)
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def remove_unfinished(*directories: Path) -> None:
    """Remove what a killed process left half-written or half-removed right in these directories."""
    for directory in directories:
        for leftover in directory.glob(".*.partial"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def require_free_space(path: str | Path, bytes_needed: int, what: str) -> None:
    """Refuse to start what would fill the disk that `path` is, or would be, on.

    Raises:
        BadInput: fewer than `bytes_needed` bytes are free; the message says how many there are.
    """
    existing = Path(path).absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < bytes_needed:
        raise BadInput(
            f"{what} needs {_readable(bytes_needed)} of disk, {_readable(free)} are free at {existing}; "
            "free some, or set runs_dir to a larger disk"
        )


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")


def sync(path: Path) -> None:
    """Wait until what was written to a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _readable(size: int) -> str:
    amount, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.0f} {units[0]}" if amount >= 10 else f"{amount:.1f} {units[0]}"
