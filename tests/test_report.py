"""The page that a person reads: self-contained, everything escaped, numbers readable."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from lab.figures.style import save
from lab.report import Picture, Report, Row, format_number, write_report

EVIL = "<script>alert('x')</script>&\"'"


class Page(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """A page with one of everything, each text as hostile as can be."""
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], [0, 1])
    path = save(figure, {"x": np.array([0.0, 1.0]), "y": np.array([0.5])}, tmp_path / "figures", "line")
    return Report(
        title=f"title {EVIL}",
        verdict=f"verdict {EVIL}",
        introduction=[f"introduction {EVIL}"],
        columns=[f"column {EVIL}"],
        sections=[(f"heading {EVIL}", [Row(f"row {EVIL}", [0.25], f"meaning {EVIL}")])],
        pictures=[Picture(path, f"caption {EVIL}")],
        samples=[(f"label {EVIL}", [(f"prompt {EVIL}", f"completion {EVIL}")])],
        details=[(f"name {EVIL}", f"value {EVIL}")],
    )


def written(report: Report, folder: Path) -> str:
    """The page as text."""
    write_report(report, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_a_section_has_columns_of_its_own_and_none_for_meanings_that_it_lacks(
    report: Report, tmp_path: Path
) -> None:
    report.sections.append(("nulls", [Row("walk", [0.442], "")]))
    report.own_columns["nulls"] = [f"exact {EVIL}"]
    page = Page(written(report, tmp_path))
    assert page.text.count("what it means") == 1  # the other section explains its row
    assert page.text.count(f"exact {EVIL}") == 1 and page.text.count(f"column {EVIL}") == 1
    assert "script" not in {tag for tag, _ in page.tags}


def test_nothing_that_a_model_writes_becomes_markup(report: Report, tmp_path: Path) -> None:
    page = Page(written(report, tmp_path))
    assert "script" not in {tag for tag, _ in page.tags}
    for word in ("title", "verdict", "introduction", "column", "heading", "row", "meaning", "caption"):
        assert f"{word} {EVIL}" in page.text
    for word in ("label", "prompt", "completion", "name", "value"):
        assert f"{word} {EVIL}" in page.text


def test_the_page_loads_nothing_from_elsewhere(report: Report, tmp_path: Path) -> None:
    text = written(report, tmp_path)
    page = Page(text)
    loads = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert len(loads) == 1 and str(loads[0]).startswith("data:image/png;base64,")
    assert re.search(r"url\(|@import|https?://", text) is None


def test_pictures_are_embedded_whole(report: Report, tmp_path: Path) -> None:
    page = Page(written(report, tmp_path))
    source = next(attributes["src"] for tag, attributes in page.tags if tag == "img")
    assert base64.b64decode(str(source).split(",")[1]) == report.pictures[0].path.read_bytes()


def test_a_page_without_samples_has_no_empty_table(report: Report, tmp_path: Path) -> None:
    assert "What the model writes" in written(report, tmp_path)
    assert "What the model writes" not in written(replace(report, samples=[]), tmp_path)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (True, "yes"),
        (False, "no"),
        (0.0, "0.000"),
        (-0.0, "0.000"),
        (0.12345, "0.123"),
        (-1.5, "-1.500"),
        (0.0001234, "0.00012"),
        (123456.0, "1.2e+05"),
        (7, "7"),
        ("text", "text"),
    ],
)
def test_numbers_are_shown_as_people_read_them(value: object, shown: str) -> None:
    assert format_number(value) == shown


def test_a_figure_comes_as_png_pdf_and_data(tmp_path: Path, report: Report) -> None:
    folder = tmp_path / "figures"
    assert sorted(path.name for path in folder.iterdir()) == ["line.csv", "line.pdf", "line.png"]
    assert (folder / "line.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "line.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / "line.csv").read_text() == "x,y\n0,0.5\n1,\n"
