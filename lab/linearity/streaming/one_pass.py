"""One pass over the weights of a series: tensor by tensor, a slice of all checkpoints at a time, on a few threads.

Memory is a few buffers a thread, whatever the size of the model and the number of checkpoints; the result does not
depend on the number of threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import numpy as np

from lab.linearity.streaming.accumulator import Accumulator, State
from lab.linearity.streaming.block import Block, Float32Array, NotFinite
from lab.linearity.streaming.direct import DirectObserver
from lab.linearity.streaming.selection import Selection

_BLOCK_VALUES = 2**21  # Of a block over all checkpoints: 8 MiB, so that reads are few and long.
_BLOCKS_OF_A_TASK = 6
_TASKS_AHEAD = 4  # Of each thread; bounds the states that wait to be merged.


class Reader(Protocol):
    """What a pass asks of a series of checkpoints."""

    def read_into(self, name: str, start: int, stop: int, out: Float32Array) -> None:
        """Fill `out`, float32 [checkpoint, stop - start], with elements of one tensor."""
        ...


Finish = Callable[[Selection, list[State]], State]
_Part = tuple[Selection, int, int, bool]


def scan(
    series: Reader,
    checkpoints: int,
    selections: Iterable[Selection],
    accumulators: Sequence[Accumulator],
    finish: Finish,
    workers: int = 1,
    progress: Callable[[Selection, int], None] = lambda selection, elements: None,
) -> Iterator[tuple[Selection, State]]:
    """Observe every selected element and yield each tensor, in order, with what `finish` made of its states.

    Args:
        series: where values come from; read from several threads at a time.
        checkpoints: number of checkpoints.
        selections: the tensors, in the order in which results are wanted.
        accumulators: what is computed; they see the same blocks, in this order.
        finish: makes a tensor's result from its final states, one for each accumulator; called on the threads.
        workers: threads.
        progress: called with a tensor and how many more of its elements have been read.

    Raises:
        NotFinite: a value is NaN or infinite.
        BadInput: the series cannot be read. Tensors that were finished before an error are still yielded.
    """
    observer = Observer(series, checkpoints, accumulators)
    observe = DirectObserver(series, checkpoints, accumulators, observer)
    parts = _parts(selections, observer.width * _BLOCKS_OF_A_TASK)
    pool = ThreadPoolExecutor(workers)
    ahead = workers * _TASKS_AHEAD
    observed: deque[tuple[_Part, Future[list[State]]]] = deque()
    finished: deque[tuple[Selection, Future[State]]] = deque()
    states: list[State] | None = None
    try:
        while True:
            for part in islice(parts, ahead - len(observed)):
                observed.append((part, pool.submit(observe, *part[:3])))
            if not observed:
                break
            (selection, start, stop, is_last), future = observed.popleft()
            states = _merged(accumulators, states, future.result())
            progress(selection, stop - start)
            if is_last:
                finished.append((selection, pool.submit(finish, selection, states)))
                states = None
            while finished and (len(finished) > ahead or finished[0][1].done()):
                selection, result = finished.popleft()
                yield selection, result.result()
    except Exception:
        for selection, result in finished:  # What is done is not lost: the caller may store it.
            yield selection, result.result()
        raise
    else:
        for selection, result in finished:
            yield selection, result.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Observer:
    """Reads a part of a tensor and shows it to the accumulators, with buffers of each thread's own."""

    def __init__(self, series: Reader, checkpoints: int, accumulators: Sequence[Accumulator]) -> None:
        self._series, self._checkpoints, self._accumulators = series, checkpoints, accumulators
        self.width = max(512, _BLOCK_VALUES // (checkpoints + 2) // 512 * 512)
        self._local = threading.local()

    def __call__(self, selection: Selection, start: int, stop: int) -> list[State]:
        """Return the states of elements `start` to `stop` of one tensor."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = np.empty(self._checkpoints * self.width, np.float32)
        states = [accumulator.init(selection.name, selection.count) for accumulator in self._accumulators]
        try:
            if selection.indices is None:
                for left, values in self._slices(selection.name, start, stop):
                    self._show(states, values, left)
            else:
                first, last = (int(place) for place in np.searchsorted(selection.indices, (start, stop)))
                chosen = selection.indices[first:last]
                gathered = np.empty((self._checkpoints, last - first), np.float32)
                for left, values in self._slices(selection.name, start, stop):
                    begin, end = np.searchsorted(chosen, (left, left + values.shape[1]))
                    gathered[:, begin:end] = values[:, chosen[begin:end] - left]
                for offset in range(0, last - first, self.width):
                    self._show(states, gathered[:, offset : offset + self.width], first + offset)
        except NotFinite as error:
            element = error.element
            flat = element if selection.indices is None else int(selection.indices[element])
            raise NotFinite(error.checkpoint, flat, error.value, selection.name) from None
        return states

    def _slices(self, name: str, start: int, stop: int) -> Iterator[tuple[int, Float32Array]]:
        """Flat index of the first element and float32 [checkpoint, element]; valid until the next one."""
        for left in range(start, stop, self.width):
            size = min(self.width, stop - left)
            values = self._local.buffer[: self._checkpoints * size].reshape(self._checkpoints, size)
            self._series.read_into(name, left, left + size, values)
            yield left, values

    def _show(self, states: list[State], values: Float32Array, first: int) -> None:
        block = Block(values, first)
        for accumulator, state in zip(self._accumulators, states, strict=True):
            accumulator.observe(state, block)


def _parts(selections: Iterable[Selection], longest: int) -> Iterator[_Part]:
    """(tensor, start, stop, whether it is the tensor's last part); the cut does not depend on the threads."""
    for selection in selections:
        for start in range(0, max(selection.size, 1), longest):
            stop = min(start + longest, selection.size)
            yield selection, start, stop, stop == selection.size


def _merged(
    accumulators: Sequence[Accumulator], states: list[State] | None, later: list[State]
) -> list[State]:
    if states is None:
        return later
    for accumulator, state, addition in zip(accumulators, states, later, strict=True):
        accumulator.merge(state, addition)
    return states
