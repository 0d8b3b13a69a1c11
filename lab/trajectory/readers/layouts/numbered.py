"""A folder of checkpoints whose names carry their step: `checkpoint-N`, `global_step_N`, `step_N`."""

from __future__ import annotations

import stat
from pathlib import Path

from lab.errors import BadInput
from lab.trajectory.readers.layouts.entry import PATTERNS, Entry, Found, step_number
from lab.trajectory.readers.layouts.model import locate
from lab.trajectory.readers.source_file import unreadable
from lab.trajectory.readers.weights import entries, has_weights


def find_numbered(folder: Path) -> Found | None:
    """Return the checkpoints of a folder, None where no name in it carries a step.

    Raises:
        BadInput: two kinds of names are mixed, none carries a number, or a checkpoint has no weights.
    """
    if not folder.is_dir():
        return None
    by_pattern: dict[str, list[str]] = {}
    nameless: list[str] = []
    for name in entries(folder):
        for pattern, expression in PATTERNS.items():
            match = expression.match(name)
            if match and step_number(match.group(1)) is not None:
                by_pattern.setdefault(pattern, []).append(name)
            elif match and (folder / name).is_dir():
                nameless.append(name)
    if len(by_pattern) > 1:
        raise BadInput(
            f"{folder}: holds {' and '.join(by_pattern)}; give the checkpoints of one run as a list of PATH@STEP"
        )
    if not by_pattern:
        if nameless and not has_weights(folder):
            raise BadInput(
                f"{folder}: {', '.join(nameless)}: no step number in the name; give checkpoints as a list of PATH@STEP"
            )
        return None
    ((pattern, names),) = by_pattern.items()
    notes = [f"{folder / name}: no step number in its name, left out" for name in nameless]
    if has_weights(folder):
        notes.append(f"{folder}: the weights beside its {pattern} directories have no step, left out")
    found = []
    for name in names:
        path = folder / name
        try:
            kind = path.stat().st_mode
        except OSError as error:
            raise unreadable(path, error) from None
        if not stat.S_ISDIR(kind):
            notes.append(f"{path}: not a directory, left out")
            continue
        match = PATTERNS[pattern].match(name)
        step = step_number(match.group(1)) if match else None
        assert step is not None  # the name was kept because it has one
        found.append(Entry(step, locate(path)))
    return Found(tuple(found), tuple(notes)) if found else None
