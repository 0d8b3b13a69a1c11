"""One style for every figure: colour-blind palette (Okabe & Ito), embedded fonts, data beside each figure."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from lab.files import write_atomic

matplotlib.use("Agg")

BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, YELLOW, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#000000",
)

_RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 300,
}

Columns = Mapping[str, np.ndarray]


@contextmanager
def style() -> Iterator[None]:
    """Apply the style to what is drawn inside."""
    with matplotlib.rc_context(_RC):
        yield


def save(figure: Figure, data: Columns, directory: Path, name: str) -> Path:
    """Write `name`.png, .pdf and the data as .csv into `directory`; return the path of the PNG.

    The figure is arranged once, not again for each format: `Figure.savefig` would draw it twice for either.
    """
    directory.mkdir(parents=True, exist_ok=True)
    layout = figure.get_layout_engine()
    with style():
        if layout is not None:
            layout.execute(figure)
            figure.set_layout_engine("none")
        for ending, render in (("pdf", _pdf), ("png", _png)):
            buffer = io.BytesIO()
            render(figure, buffer)
            write_atomic(directory / f"{name}.{ending}", buffer.getvalue())
    write_atomic(directory / f"{name}.csv", _to_csv(data))
    return directory / f"{name}.png"


def _pdf(figure: Figure, buffer: io.BytesIO) -> None:
    with _printed(figure):  # what is rasterised in it
        FigureCanvasPdf(figure).print_pdf(buffer, metadata={"CreationDate": None})


def _png(figure: Figure, buffer: io.BytesIO) -> None:
    with _printed(figure):
        FigureCanvasAgg(figure).print_png(buffer)


@contextmanager
def _printed(figure: Figure) -> Iterator[None]:
    """Give a figure the dots per inch of what is saved."""
    before, figure.dpi = figure.dpi, _RC["savefig.dpi"]
    try:
        yield
    finally:
        figure.dpi = before


def _to_csv(data: Columns) -> str:
    names = list(data)
    longest = max((len(values) for values in data.values()), default=0)
    lines = [",".join(names)]
    for row in range(longest):
        cells = [f"{data[name][row]:.9g}" if row < len(data[name]) else "" for name in names]
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"
