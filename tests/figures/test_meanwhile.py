"""Figures drawn in other processes: they are those that this one would draw, and nothing goes missing."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from lab.figures.meanwhile import drawn_meanwhile
from lab.figures.style import Columns, save, style


def line(slope: float) -> tuple[Figure, Columns]:
    with style():
        figure = Figure(figsize=(2.0, 1.5))
        axis = figure.subplots()
        axis.plot([0, 1], [0, slope])
        axis.set(xlabel="step", title=f"slope {slope}")
    return figure, {"x": np.arange(2.0), "y": np.array([0.0, slope])}


def one() -> tuple[Figure, Columns]:
    return line(1.0)


def two() -> tuple[Figure, Columns]:
    return line(2.0)


@pytest.mark.parametrize("cores", [1, 2])
def test_every_figure_is_there_when_the_block_ends(tmp_path: Path, cores: int) -> None:
    for name, draw in (("one", one), ("two", two)):
        save(*draw(), tmp_path / "here", name)
    reached = False
    with drawn_meanwhile({"one": one, "two": two}, tmp_path / "there", cores):
        reached = True
    assert reached
    expected = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()} == expected
    assert sorted(expected) == [
        f"{name}.{ending}" for name in ("one", "two") for ending in ("csv", "pdf", "png")
    ]


@pytest.mark.parametrize("cores", [1, 2])
def test_what_drawing_raises_is_raised_here(
    tmp_path: Path, cores: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken() -> tuple[Figure, Columns]:
        raise ZeroDivisionError("no scale")

    with pytest.raises(ZeroDivisionError, match="no scale"):  # noqa: SIM117
        with drawn_meanwhile({"broken": broken}, tmp_path, cores):
            pass
    assert capfd.readouterr().err == ""


def test_a_process_that_dies_is_made_up_for(tmp_path: Path) -> None:
    parent = os.getpid()

    def dying() -> tuple[Figure, Columns]:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return line(3.0)

    with drawn_meanwhile({"dying": dying}, tmp_path, 2):
        pass
    assert (tmp_path / "dying.png").exists()


@pytest.mark.parametrize("allowed", [0, 1])
def test_what_no_process_can_be_started_for_is_drawn_here(
    tmp_path: Path, allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, forks = os.fork, 0

    def fork() -> int:
        nonlocal forks
        forks += 1
        if forks > allowed:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return real()

    monkeypatch.setattr(os, "fork", fork)
    with drawn_meanwhile({"one": one, "two": two}, tmp_path, 2):
        pass
    assert forks == (2 if sys.platform == "linux" else 0)
    assert {path.name for path in tmp_path.glob("*.png")} == {"one.png", "two.png"}


def test_a_process_that_may_have_no_children_draws_by_itself(tmp_path: Path) -> None:
    def draw() -> None:
        with drawn_meanwhile({"one": one, "two": two}, tmp_path, 2):
            pass

    process = multiprocessing.get_context("fork").Process(target=draw, daemon=True)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert {path.name for path in tmp_path.glob("*.png")} == {"one.png", "two.png"}


def test_an_error_in_the_block_waits_for_no_figure(tmp_path: Path) -> None:
    def endless() -> tuple[Figure, Columns]:
        signal.pause()
        raise AssertionError

    with pytest.raises(KeyError), drawn_meanwhile({"endless": endless}, tmp_path, 2):
        raise KeyError("store")
    assert list(tmp_path.iterdir()) == []
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process is started")
def test_no_process_outlives_the_one_that_started_it(tmp_path: Path) -> None:
    def endless() -> tuple[Figure, Columns]:
        (tmp_path / "pid").write_text(str(os.getpid()))
        signal.pause()
        raise AssertionError

    starter = os.fork()
    if starter == 0:
        with drawn_meanwhile({"endless": endless}, tmp_path, 2):
            signal.pause()
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    os.kill(starter, signal.SIGKILL)
    os.waitpid(starter, 0)
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not running(pid))


def running(pid: int) -> bool:
    """Whether a process is there and has not ended; nobody may have waited for it yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_saved_figures_have_their_size_and_fonts(tmp_path: Path) -> None:
    from PIL import Image

    path = save(*one(), tmp_path, "one")
    assert Image.open(path).size == (600, 450)  # 300 dots an inch
    pdf = (tmp_path / "one.pdf").read_bytes()
    assert b"/MediaBox [ 0 0 144 108 ]" in pdf  # 72 points an inch
    assert b"/Type3" not in pdf and b"/CIDFontType2" in pdf  # outlines of TrueType, as publishers ask
    assert (tmp_path / "one.csv").read_text() == "x,y\n0,0\n1,1\n"


def test_what_is_rasterised_in_a_pdf_has_the_dots_of_the_picture(tmp_path: Path) -> None:
    with style():
        figure = Figure(figsize=(2.0, 1.5), layout="none")
        axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axis.pcolormesh(np.arange(12.0).reshape(3, 4), rasterized=True)
        axis.set_axis_off()
    before = figure.dpi
    save(figure, {"x": np.arange(2.0)}, tmp_path, "mesh")
    pdf = (tmp_path / "mesh.pdf").read_bytes()
    width, height = (int(re.search(rb"/%s (\d+)" % side, pdf)[1]) for side in (b"Width", b"Height"))
    assert abs(width - 600) <= 2 and abs(height - 450) <= 2  # 300 dots an inch
    assert figure.dpi == before
