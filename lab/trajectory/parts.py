"""The small files that a run leaves behind as it goes: one for each recorded step, written atomically.

They are what makes a kill safe: a step that is replayed after a resume overwrites its own file, and files
of steps that a resumed run has not reached yet are removed. `store` merges them at the end.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np

from lab.errors import BadInput
from lab.files import write_atomic

Arrays = dict[str, np.ndarray]

_PATTERN = re.compile(r"^step_(\d{8})\.npz$")
STATIC = "static.npz"


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write named arrays (numbers, booleans, text) to an uncompressed .npz file, atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def read_arrays(path: Path) -> Arrays:
    """Read what `write_arrays` wrote.

    Raises:
        BadInput: the file is missing, truncated or no such file; the message names it.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise BadInput(
            f"{path}: cannot be read as recorded arrays ({error}); restore it, or start anew with clean=true"
        ) from error


def part_path(directory: Path, step: int) -> Path:
    """Return the path of the file of one recorded step."""
    return directory / f"step_{step:08d}.npz"


def recorded_steps(directory: Path) -> list[int]:
    """Return the steps that have a file, in order."""
    matches = [_PATTERN.match(path.name) for path in directory.iterdir()] if directory.is_dir() else []
    return sorted(int(match.group(1)) for match in matches if match)


def forget_after(directory: Path, step: int) -> None:
    """Remove the files of the steps after `step`, which a resumed run will do again."""
    for recorded in recorded_steps(directory):
        if recorded > step:
            part_path(directory, recorded).unlink()
