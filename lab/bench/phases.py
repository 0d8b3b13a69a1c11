"""Where the time of a step goes: timers put around calls, each phase without those inside it.

Processor time, not the clock on the wall: on a busy machine the latter says how busy it is. A GPU works while the
processor goes on, so there it is the clock on the wall, read once the GPU has settled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from inspect import isgenerator
from typing import Any


class PhaseTimer:
    """Time calls by phase; the phases add up to the outermost calls.

    Args:
        settle: waits for what a device still has to do, for the clock on the wall; None for processor time.

    Attributes:
        seconds: time by phase, the phases called from within left out.
    """

    def __init__(self, settle: Callable[[], None] | None = None) -> None:
        self._settle = settle
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = []
        self._replaced: list[tuple[Any, str, bool, Any]] = []

    def watch(self, owner: Any, attribute: str, phase: str) -> None:
        """Time every call of `owner.attribute` until `release`; a generator is timed while it works."""
        here = attribute in vars(owner)
        original = getattr(owner, attribute)
        self._replaced.append((owner, attribute, here, original))

        def timed(*arguments: Any, **keywords: Any) -> Any:
            result = self._call(phase, lambda: original(*arguments, **keywords))
            return self._resumed(phase, iter(result)) if isgenerator(result) else result

        setattr(owner, attribute, timed)

    def release(self) -> None:
        """Put back what was there."""
        for owner, attribute, here, original in reversed(self._replaced):
            if here:
                setattr(owner, attribute, original)
            else:
                delattr(owner, attribute)
        self._replaced = []

    def _resumed(self, phase: str, items: Iterator[Any]) -> Iterator[Any]:
        ended = object()
        while True:
            item = self._call(phase, lambda: next(items, ended))
            if item is ended:
                return
            yield item

    def _call(self, phase: str, call: Callable[[], Any]) -> Any:
        self._inner.append(0.0)
        started = self._now()
        try:
            return call()
        finally:
            spent = self._now() - started
            self.seconds[phase] = self.seconds.get(phase, 0.0) + spent - self._inner.pop()
            if self._inner:
                self._inner[-1] += spent

    def _now(self) -> float:
        if self._settle is None:
            return time.process_time()
        self._settle()
        return time.perf_counter()
