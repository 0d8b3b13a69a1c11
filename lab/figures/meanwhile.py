"""Figures drawn in processes of their own while this one goes on: a figure takes a second or two, all of it Python."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
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
    One for which no process can be started is drawn here, after the block; so are all with one core, in a process that
    may have no children, and on systems where forking a process is not safe.

    Args:
        figures: by name, what makes each; nothing that it changes is seen outside.
        directory: where they go.
        cores: how many may be busy.
    """
    started: dict[str, BaseProcess] = {}
    try:
        if cores > 1 and sys.platform == "linux" and not multiprocessing.current_process().daemon:
            forked = multiprocessing.get_context("fork")
            for name, draw in figures.items():
                drawing = forked.Process(target=_draw, args=(draw, directory, name), daemon=True)
                with suppress(OSError, AssertionError):  # no more processes, no memory, no children allowed
                    drawing.start()
                    started[name] = drawing
        yield
        for name, draw in figures.items():
            if name in started:
                started[name].join(_PATIENCE)
            if name not in started or started[name].exitcode != 0:
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
