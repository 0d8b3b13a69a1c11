"""SIGTERM and Ctrl-C become one exception in the main thread, so that a run can save and leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from lab.errors import Interrupted


@dataclass
class Interruption:
    """Whether a signal has asked the run to stop; it stays known if a library swallows the exception."""

    signal_name: str | None = None


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Raise `Interrupted` at the first SIGTERM or SIGINT while the block runs, in the main thread.

    After the first one, SIGTERM is ignored while the run saves, and a second Ctrl-C raises
    KeyboardInterrupt. Outside the main thread no handler can be installed and nothing changes.
    """
    state = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if state.signal_name is None:
            state.signal_name = signal.Signals(number).name
            raise Interrupted(f"stopped by {state.signal_name}")
        if number == signal.SIGINT:
            raise KeyboardInterrupt

    previous = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, handle)
    try:
        yield state
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
