"""Checkpoints named one by one: a list of PATH@STEP, or a file with a step and a path on each line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.errors import BadInput
from lab.trajectory.readers.layouts.entry import Entry, Found, step_in_name, step_number
from lab.trajectory.readers.layouts.model import locate
from lab.trajectory.readers.source_file import unreadable

STRUCTURED = (".json", ".yaml", ".yml")
LIST_FILES = (*STRUCTURED, ".txt", ".csv", ".tsv")
"""Endings of files that list checkpoints."""


def find_list(source: Sequence[Any]) -> Found:
    """Return the checkpoints that a list names; each item is PATH, PATH@STEP, or a pair of step and path.

    Raises:
        BadInput: the list is empty, or an item has no step or no weights.
    """
    if not source:
        raise BadInput("checkpoints: an empty list; give at least one PATH@STEP")
    return Found(tuple(_item(item, Path()) for item in source))


def find_list_file(path: Path) -> Found | None:
    """Return the checkpoints that a file lists; None where its ending is not one of `LIST_FILES`.

    Paths in it are relative to its own directory. JSON and YAML hold {step: path}, or a list as `find_list` takes it;
    other endings a step and a path on each line, `#` beginning a comment.

    Raises:
        BadInput: the file cannot be read or understood; the message names the line.
    """
    if not path.is_file() or path.suffix not in LIST_FILES:
        return None
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not text ({error}); expected a step and a path on each line") from None
    items = _structured(path, text) if path.suffix in STRUCTURED else _lines(path, text)
    found = tuple(_item(item, path.parent, f"{path}: ") for item in items)
    if not found:
        raise BadInput(f"{path}: lists no checkpoints; expected a step and a path on each line")
    return Found(found)


def _structured(path: Path, text: str) -> Iterable[Any]:
    import yaml

    try:
        content = yaml.safe_load(text)  # JSON is YAML
    except yaml.YAMLError as error:
        raise BadInput(
            f"{path}: not valid {path.suffix[1:].upper()} ({str(error).splitlines()[0]})"
        ) from None
    if isinstance(content, Mapping):
        return list(content.items())
    if isinstance(content, list):
        return content
    raise BadInput(f"{path}: expected steps with paths, such as {{100: run/checkpoint-100}}")


def _lines(path: Path, text: str) -> Iterable[Any]:
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.split("#", 1)[0].strip()
        if not content:
            continue
        words = content.replace(",", " ", 1).split(maxsplit=1)
        if len(words) != 2 or step_number(words[0]) is None:
            raise BadInput(f"{path}: line {number}: expected a step and a path, got {content!r}")
        yield words


def _item(item: Any, folder: Path, where: str = "checkpoints: ") -> Entry:
    if isinstance(item, (str, Path)):
        text = str(item)
        path, at, step_text = text.rpartition("@")
        if not at or _path(folder, text).exists():  # a path may hold an @ of its own
            path, step = text, step_in_name(Path(text).name)
            if step is None:
                raise BadInput(f"{where}{text}: no step number in the name; write {text}@STEP")
            return Entry(step, locate(_existing(_path(folder, path))))
    elif isinstance(item, Mapping) and set(item) == {"step", "path"}:
        step_text, path = item["step"], item["path"]
    elif isinstance(item, (list, tuple)) and len(item) == 2:
        step_text, path = item
    else:
        raise BadInput(f"{where}expected PATH@STEP or a step with a path, got {item!r}")
    step = step_number(str(step_text))
    if step is None:
        raise BadInput(f"{where}{path}: the step must be a whole number of at least 0, got {step_text!r}")
    return Entry(step, locate(_existing(_path(folder, str(path)))))


def _path(folder: Path, text: str) -> Path:
    return folder / Path(text).expanduser()


def _existing(path: Path) -> Path:
    try:
        path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return path
