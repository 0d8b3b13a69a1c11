"""Stored results besides a figure's own source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.files import read_json

_ROOT = Path(__file__).resolve().parents[1]


def stored(path: str) -> Mapping[str, Any] | None:
    """Return the results at a path relative to the checkout; None where they are not stored."""
    place = _ROOT / path
    if not place.exists():
        return None
    found: Mapping[str, Any] = read_json(place)
    return found
