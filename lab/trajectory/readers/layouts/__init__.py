"""Where the checkpoints of a run lie: one file a layout, all in one registry.

To add a layout of files on this machine, write a function from a path to what it found (None where the path is of
another layout) and name it in `LAYOUTS` with what it looks for, in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.errors import BadInput
from lab.trajectory.readers.layouts.entry import Entry, Found, in_order
from lab.trajectory.readers.layouts.hub import PREFIX, HubApi, download_revision, find_hub
from lab.trajectory.readers.layouts.listed import LIST_FILES, find_list, find_list_file
from lab.trajectory.readers.layouts.model import find_model, locate
from lab.trajectory.readers.layouts.numbered import find_numbered
from lab.trajectory.readers.source_file import unreadable
from lab.trajectory.readers.weights import SINGLE_FILES, without_weights

__all__ = ["LAYOUTS", "Entry", "Found", "HubApi", "find", "find_base", "in_order"]

LAYOUTS: dict[str, Callable[[Path], Found | None]] = {
    "directories checkpoint-N, global_step_N or step_N in it": find_numbered,
    "a model's files in it": find_model,
    "a list of steps and paths": find_list_file,
}
"""How a path is looked at, in turn."""


def find(source: str | Path | Sequence[Any] | Mapping[int, Any], hub: HubApi | None = None) -> Found:
    """Return the checkpoints that `source` names, in any order.

    Raises:
        BadInput: nothing is there, or it is no checkpoint; the message says what was looked for.
    """
    if isinstance(source, Mapping):
        return find_list(list(source.items()))
    if not isinstance(source, (str, Path)):
        return find_list(source)
    text = str(source)
    if text.startswith(PREFIX):
        return find_hub(text, hub)
    path = Path(text).expanduser()
    try:
        path.stat()
    except FileNotFoundError as error:
        if "@" in path.name:
            return find_list([text])
        raise unreadable(path, error) from None
    except OSError as error:
        raise unreadable(path, error) from None
    for layout in LAYOUTS.values():
        found = layout(path)
        if found is not None:
            return found
    if path.is_file():
        endings = ", ".join((*SINGLE_FILES, *LIST_FILES))
        raise BadInput(
            f"{path}: a file, neither weights nor a list of checkpoints (known endings: {endings})"
        )
    raise BadInput(f"{without_weights(path)}; looked for {', '.join(LAYOUTS)}")


def find_base(source: str | Path, hub: HubApi | None = None) -> Path:
    """Return the directory or file with the weights of the one model that `base` names.

    Raises:
        BadInput: nothing is there, or it is no single model.
    """
    if str(source).startswith(PREFIX):
        return download_revision(str(source), hub)
    path = Path(source).expanduser()
    try:
        path.stat()
    except OSError as error:
        raise BadInput(f"base: {unreadable(path, error)}") from None
    if find_model(path) is None:
        found = without_weights(path) if path.is_dir() else f"{path}: a file, but none of weights"
        raise BadInput(f"base: {found}; base is one model's directory or file")
    return locate(path)
