"""SIGTERM and Ctrl-C become one exception in the main thread, so that a run can save and leave."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from lab.errors import Interrupted

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_AGAIN_AFTER = 0.01
"""Seconds until a signal is sent again that came while Python could not raise."""


@dataclass
class Interruption:
    """Whether a signal has asked the run to stop; it stays known if a library swallows the exception."""

    signal_name: str | None = None


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Raise `Interrupted` at the first SIGTERM or SIGINT while the block runs, in the main thread.

    After the first one, SIGTERM is ignored while the run saves, and a second Ctrl-C raises
    KeyboardInterrupt. Python drops what is raised in a finaliser or another callback of its collector: a signal that
    came then is sent again. Outside the main thread no handler can be installed and nothing changes.
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

    inside = True

    def again(number: int) -> None:
        time.sleep(_AGAIN_AFTER)
        if inside:
            os.kill(os.getpid(), number)

    def unraisable(dropped: UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, Interrupted) or state.signal_name is None:
            hook(dropped)
            return
        number, state.signal_name = signal.Signals[state.signal_name], None
        # Not threading.Thread: the finaliser may have come while this thread holds that module's locks.
        _thread.start_new_thread(again, (number,))

    previous = {}
    hook = sys.unraisablehook
    sys.unraisablehook = unraisable
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, handle)
    try:
        yield state
    finally:
        inside = False
        sys.unraisablehook = hook
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
