"""When a run stops: while it trains, SIGTERM and Ctrl-C are held back until the step is done, so that it can save."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lab.errors import Interrupted


class TimeLimit:
    """Whether the minutes that a process was given are over, counted from when this was made.

    Args:
        minutes: None for no limit.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self._ends = None if minutes is None else time.monotonic() + 60 * minutes

    def __call__(self) -> bool:
        return self._ends is not None and time.monotonic() >= self._ends


class StopRequest:
    """Whether a signal has asked the run to stop after the present step."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __call__(self) -> bool:
        return self.received is not None


@contextmanager
def stop_after_step() -> Iterator[StopRequest]:
    """Note SIGTERM and the first SIGINT instead of raising; a second Ctrl-C stops at once.

    A request that came too late to be acted upon goes to the handler from before when the block ends.
    Outside the main thread no handler can be installed and nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request.received is not None and number == signal.SIGINT:
            raise Interrupted("stopped in the middle of a step")
        request.received = number

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    if request.received is not None:
        signal.raise_signal(request.received)
