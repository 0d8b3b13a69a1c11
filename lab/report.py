"""The HTML page that a person reads: one self-contained file, figures embedded, everything escaped."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lab.files import write_atomic


@dataclass(frozen=True)
class Row:
    """One number of the table: its name, its value for each run, and what it means in a sentence."""

    name: str
    values: list[Any]
    meaning: str


@dataclass(frozen=True)
class Picture:
    """A figure with its caption."""

    path: Path
    caption: str


@dataclass
class Report:
    """What goes on the page.

    Attributes:
        title: heading of the page.
        verdict: the one line that answers the question.
        introduction: what was done, a paragraph or two.
        columns: labels of the runs compared.
        own_columns: by heading, labels of the sections whose values are something else.
        sections: (heading, rows) of the table.
        pictures: figures in order.
        samples: (label, [(prompt, completion)]) for people to read; escaped.
        details: provenance, name and value.
    """

    title: str
    verdict: str
    introduction: list[str]
    columns: list[str]
    sections: list[tuple[str, list[Row]]]
    pictures: list[Picture]
    samples: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    details: list[tuple[str, str]] = field(default_factory=list)
    own_columns: dict[str, list[str]] = field(default_factory=dict)


def write_report(report: Report, path: Path) -> None:
    """Write the page, whole or not at all."""
    environment = Environment(
        loader=PackageLoader("lab", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = format_number
    environment.filters["embed"] = _embed
    environment.filters["width"] = _shown_width
    write_atomic(path, environment.get_template("report.html").render(report=report))


def format_number(value: Any) -> str:
    """Return a number as people read it; a dash where it is undefined."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value + 0.0:.3f}" if 0.0005 <= abs(value) < 1000 or value == 0 else f"{value:.2g}"
    return str(value)


def _embed(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _shown_width(path: Path) -> int:
    """Return the width on the page in CSS pixels: a third of the picture's own, which has 300 dots an inch."""
    return int.from_bytes(path.read_bytes()[16:20], "big") // 3  # the width stands in a PNG's first chunk
