"""The same states as `one_pass.Observer` makes, of files of plain numbers, each part of a tensor in one compiled call.

A block at a time, two threads spend as long on handing the interpreter to each other as on the numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from lab.linearity.streaming.accumulator import Accumulator, State
from lab.linearity.streaming.histogram import BINS
from lab.linearity.streaming.increment_products import IncrementProducts
from lab.linearity.streaming.r_squared_counts import RSquaredCounts
from lab.linearity.streaming.sample import PLACES, Sample
from lab.linearity.streaming.selection import Observe, Selection

_BLOCK_BYTES = 2**18  # Of float32: it and the increments of a tile fit a core's second cache.
_LEAST_WIDTH = 2048  # Shorter reads cost more than the cache saves.
_TYPES: dict[str, type[np.generic]] = {"float32": np.float32, "bfloat16": np.uint16}


class Rows(Protocol):
    """Where the checkpoints of one tensor lie, see `lab.trajectory.readers.stored.PlainRows`."""

    @property
    def descriptors(self) -> np.ndarray:
        """Open files, int32 [checkpoint]."""
        ...

    @property
    def offsets(self) -> np.ndarray:
        """Byte of the first element, int64 [checkpoint]."""
        ...

    @property
    def dtype(self) -> str:
        """Stored type of all of them."""
        ...


class DirectObserver:
    """Observes parts of tensors that lie in files as plain numbers, and leaves all others to another observer.

    Args:
        series: where values come from. If it has a method `plain_rows(tensor)`, that says where the tensor lies, as
            `Rows`, or gives None.
        checkpoints: number of checkpoints.
        accumulators: see `scan`. Unless they are products, counts without filter and any number of samples, in this
            order, all is left to the other observer.
        otherwise: the other observer. It also looks again at parts that could not be read or hold a number that is
            not finite, to say where.
    """

    def __init__(
        self, series: Any, checkpoints: int, accumulators: Sequence[Accumulator], otherwise: Observe
    ) -> None:
        self._otherwise = otherwise
        self._locate: Callable[[str], Rows | None] | None = None
        self._local = threading.local()
        self._width = max(_LEAST_WIDTH, _BLOCK_BYTES // (4 * checkpoints)) // 512 * 512
        self._buffer_size = checkpoints * self._width
        match list(accumulators):
            case [IncrementProducts() as products, RSquaredCounts(plain=True) as counts, *rest]:
                samples = [each for each in rest if isinstance(each, Sample)]
                if len(samples) == len(rest):
                    self._locate = getattr(series, "plain_rows", None)
                    self._products, self._counts, self._samples = products, counts, samples

    def __call__(self, selection: Selection, start: int, stop: int) -> list[State]:
        """Return the states of elements `start` to `stop` of one tensor."""
        found = None
        if self._locate is not None and selection.indices is None:
            rows = self._locate(selection.name)
            if rows is not None and rows.dtype in _TYPES:
                found = self._observe(rows, selection, start, stop)
        return self._otherwise(selection, start, stop) if found is None else found

    def _observe(self, rows: Rows, selection: Selection, start: int, stop: int) -> list[State] | None:
        """Return the states, None where another has to look."""
        from lab.linearity.streaming.kernels import observe_files

        numbers, values = self._buffers(_TYPES[rows.dtype])
        accumulators: list[Accumulator] = [self._products, self._counts, *self._samples]
        states = [each.init(selection.name, selection.count) for each in accumulators]
        counts = np.zeros(BINS + 1, np.int64)
        spans = [Sample.span(state, start, stop) for state in states[2:]]
        places = [state[PLACES][span] - start for state, span in zip(states[2:], spans, strict=True)]
        kept = np.concatenate([np.zeros(0, np.int64), *places])
        order = np.argsort(kept)
        sample = np.empty((len(rows.descriptors), len(kept)), np.float32)
        read = observe_files(
            rows.descriptors,
            rows.offsets + start * numbers.itemsize,
            stop - start,
            numbers,
            values,
            self._counts.times,
            states[0]["products"],
            counts,
            kept[order],
            sample,
        )
        if not read or not np.isfinite(states[0]["products"].trace()):
            return None
        self._counts.add(states[1], counts)
        in_turn = np.empty_like(sample)
        in_turn[:, order] = sample
        ends = np.cumsum([len(each) for each in places])
        for each, state, span, end in zip(self._samples, states[2:], spans, ends, strict=True):
            state[each.name][:, span] = in_turn[:, end - (span.stop - span.start) : end]
        return states

    def _buffers(self, stored: type[np.generic]) -> tuple[np.ndarray, np.ndarray]:
        """Return this thread's buffers of stored numbers and of float32; the same one where nothing is widened."""
        if not hasattr(self._local, "values"):
            self._local.values = np.empty(self._buffer_size, np.float32)
            self._local.numbers = np.empty(self._buffer_size, np.uint16)
        values: np.ndarray = self._local.values
        return (values if stored is np.float32 else self._local.numbers), values
