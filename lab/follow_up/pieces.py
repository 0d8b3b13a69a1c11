"""Pieces of work, each stored as soon as it is finished, so that a run given again does only what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.errors import BadInput, Interrupted
from lab.files import read_json, remove_tree, remove_unfinished, write_json

_SECONDS = "seconds"


class Pieces:
    """The finished pieces of one run.

    What a killed process left half-written is removed first.

    Args:
        directory: holds a file `NAME.json` for each finished piece; made with the first. What lies in directories
            within it belongs to unfinished pieces.
        stop_requested: asked between pieces; when it says yes, the run is interrupted. At least one piece is done in
            each process, so that any limit gets the run to its end.
    """

    def __init__(self, directory: Path, stop_requested: Callable[[], bool] = lambda: False) -> None:
        self.directory = directory
        self._stop_requested = stop_requested
        self._worked = False
        self.seconds: dict[str, float] = {}
        """What each piece asked for so far has taken, in whichever process did it."""
        remove_unfinished(directory)
        for leftover in directory.glob("*/"):
            remove_tree(leftover)

    def get(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return a piece: the stored one, or a new one, which is stored first.

        Args:
            name: of the piece.
            compute: makes it, of what `lab.files.write_json` can write. Undefined numbers are None when they come back.

        Raises:
            BadInput: the stored file is damaged.
            Interrupted: a stop was requested before the piece was begun.
        """
        file = self.directory / f"{name}.json"
        if not file.exists():
            if self._worked and self._stop_requested():
                raise Interrupted(f"stopped before {name}; run the same command again to go on")
            started = time.perf_counter()
            found = compute()
            self.directory.mkdir(exist_ok=True)
            write_json(file, {**found, _SECONDS: time.perf_counter() - started})
            self._worked = True
        try:
            stored = read_json(file)  # as a resumed run sees it
        except BadInput as error:
            raise BadInput(f"{error}; delete it to have it made again") from None
        if not isinstance(stored, dict) or not isinstance(stored.get(_SECONDS), (int, float)):
            raise BadInput(f"{file}: not a finished piece of this run; delete it to have it made again")
        self.seconds[name] = float(stored.pop(_SECONDS))
        return stored
