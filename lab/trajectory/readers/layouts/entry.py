"""What a layout finds: the directory of each checkpoint with its step."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BadInput

PATTERNS = {
    "checkpoint-N": re.compile(r"^checkpoint-(.+)$"),
    "global_step_N": re.compile(r"^global_steps?_(.+)$"),
    "step_N": re.compile(r"^step[_-](.+)$"),
}
"""Names that carry a step: Transformers, TRL and the lab's own; verl; revisions and folders by hand."""


@dataclass(frozen=True)
class Entry:
    """One checkpoint that a layout found."""

    step: int
    path: Path


@dataclass(frozen=True)
class Found:
    """The checkpoints that a layout found, in any order, and what a person should know of it."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()


def step_number(text: str) -> int | None:
    """Return the step that `text` is, None where it is no whole number."""
    return int(text) if text.isascii() and text.isdigit() else None


def step_in_name(name: str) -> int | None:
    """Return the step that a directory's or revision's name carries, None where it carries none."""
    for pattern in PATTERNS.values():
        match = pattern.match(name)
        if match:
            return step_number(match.group(1))
    return None


def in_order(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Return the entries in numeric order of their steps.

    Raises:
        BadInput: two have the same step, or one directory is given two steps.
    """
    ordered = tuple(sorted(entries, key=lambda entry: entry.step))
    for one, other in zip(ordered, ordered[1:], strict=False):
        if one.step == other.step:
            raise BadInput(f"two checkpoints of step {one.step}: {one.path} and {other.path}; leave one out")
    seen: dict[str, Entry] = {}
    for entry in ordered:
        first = seen.setdefault(os.path.realpath(entry.path), entry)
        if first is not entry:
            raise BadInput(
                f"{entry.path}: given as step {first.step} and as step {entry.step}; leave one out"
            )
    return ordered
