"""A worker's side of the conversation with `lab bench`: steps are done when asked for, and timed.

Standard library only: every worker uses this one clock, in whatever environment it runs.

The worker says `READY` after the warm-up, then for each line `MODE STEPS` it does that many steps and
answers with one line of JSON; at the end of its input it leaves.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO


def claim_stdout() -> TextIO:
    """Return the real standard output and send all else that is printed to standard error."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return channel


def say(channel: TextIO, word: str, content: dict[str, Any]) -> None:
    """Write one line: a word and JSON."""
    channel.write(f"{word} {json.dumps(content)}\n")
    channel.flush()


class Pace:
    """Call `step_done` after every step, wherever a framework offers a hook.

    Args:
        channel: where answers go.
        warmup: steps before `READY`.
        ready: what to say with it.
        begin: called with the mode before its first step; what it does is not timed.
        end: called with the mode after its last step; what it returns joins the answer.
        settle: waits for what a device still has to do; called before the clock is read.
    """

    def __init__(
        self,
        channel: TextIO,
        warmup: int,
        ready: dict[str, Any],
        begin: Callable[[str], None],
        end: Callable[[str, int], dict[str, Any]],
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._channel = channel
        self._begin, self._end, self._settle = begin, end, settle
        self._ready: dict[str, Any] | None = ready
        self._mode, self._steps, self._left = "warmup", warmup, warmup
        self._wall, self._cpu = 0.0, 0.0

    def step_done(self) -> None:
        """Count a step; at the end of a block answer, wait for the next order, and start the clock.

        Raises:
            SystemExit: no further order will come.
        """
        self._left -= 1
        if self._left > 0:
            return
        self._settle()
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        found = self._end(self._mode, self._steps)
        if self._ready is not None:
            say(self._channel, "READY", self._ready)
            self._ready = None
        else:
            answer = {"steps": self._steps, "wall": wall, "cpu": cpu, "peak_mb": _peak_mb()}
            say(self._channel, "DONE", {**answer, **found})
        order = sys.stdin.readline().split()
        if len(order) != 2:
            raise SystemExit(0)
        self._mode, self._steps = order[0], int(order[1])
        self._left = self._steps
        self._begin(self._mode)
        self._settle()
        self._wall, self._cpu = time.perf_counter(), time.process_time()


def _peak_mb() -> float:
    """Largest resident memory of this process so far; of the GPU, where one is in use, its largest allocation."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e3 if sys.platform != "darwin" else peak / 1e6
