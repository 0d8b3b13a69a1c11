"""Figures drawn in processes of their own while this one goes on: a figure takes a second or two, all of it Python."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from multiprocessing.process import BaseProcess
from pathlib import Path

from matplotlib.figure import Figure

from lab.figures.style import Columns, save

Draw = Callable[[], tuple[Figure, Columns]]

_PATIENCE = 60.0
"""Seconds after which a process that has not finished is given up."""
_PR_SET_PDEATHSIG = 1  # prctl(2)


@contextmanager
def drawn_meanwhile(figures: Mapping[str, Draw], directory: Path, cores: int) -> Iterator[None]:
    """Draw figures and `lab.figures.style.save` them while the block runs; when it has ended well, all are there.

    A figure that did not come about in its process is drawn once more in this one, where it raises what it raises.
    With one core, and on systems where forking a process is not safe, all are drawn here, after the block.

    Args:
        figures: by name, what makes each; nothing that it changes is seen outside.
        directory: where they go.
        cores: how many may be busy.
    """
    started: dict[str, BaseProcess] = {}
    try:
        if cores > 1 and sys.platform == "linux":
            forked = multiprocessing.get_context("fork")
            for name, draw in figures.items():
                started[name] = forked.Process(target=_draw, args=(draw, directory, name), daemon=True)
                started[name].start()
        yield
        for name, draw in figures.items():
            process = started.get(name)
            if process is not None:
                process.join(_PATIENCE)
            if process is None or process.exitcode != 0:
                save(*draw(), directory, name)
    finally:
        for process in started.values():
            process.kill()
            process.join()


def _draw(draw: Draw, directory: Path, name: str) -> None:
    """Be the forked process; signals and errors are its parent's business, whose end is its own."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # it would hold the run's lock
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(os.devnull, "w") as nothing, redirect_stderr(nothing):
        try:
            save(*draw(), directory, name)
        except Exception:
            sys.exit(1)
