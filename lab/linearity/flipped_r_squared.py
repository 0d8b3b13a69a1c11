"""R² of paths whose increments had their signs flipped, for many patterns of signs."""

from __future__ import annotations

import numpy as np

from lab.compiled import compiled
from lab.linearity.checks import FloatArray

_TILE = 128  # Elements at a time: few enough that the sums after the last few increments stay in a core's first cache.


class FlippedRSquared:
    """R² of every element under any sign patterns; no cast, no filter.

    Args:
        values: float64 [checkpoint, element]; every element has to move: zero variance would give 0 / 0.
        steps: [checkpoint].
    """

    def __init__(self, values: FloatArray, steps: FloatArray) -> None:
        self._increments = np.diff(np.ascontiguousarray(values), axis=0)
        self._increments /= np.abs(self._increments).max(axis=0)
        times = (steps - steps.mean()) / (steps[-1] - steps[0])
        self._times = times / np.sqrt(times @ times)

    def __call__(self, signs: FloatArray) -> FloatArray:
        """Return R², float64 [pattern, element], for signs [pattern, interval], +1 or -1.

        Patterns in lexicographic order take least time: each is followed from where it parts from the one before.
        """
        result = np.empty((len(signs), self._increments.shape[1]))
        _fill(self._increments, self._times, np.ascontiguousarray(signs, np.float64), result)
        return result


@compiled
def _fill(increments: FloatArray, times: FloatArray, signs: FloatArray, result: FloatArray) -> None:
    """Follow each path from 0 along its increments, from where it parts from the path before it."""
    intervals, size = increments.shape
    share = 1.0 / len(times)
    sums = np.empty((intervals + 1, 4, _TILE))  # after each increment: the path, and sums of x, x² and time x
    sums[0] = 0.0
    for start in range(0, size, _TILE):
        stop = min(start + _TILE, size)
        for pattern in range(len(signs)):
            shared = 0
            if pattern > 0:
                while shared < intervals and signs[pattern, shared] == signs[pattern - 1, shared]:
                    shared += 1
            for row in range(shared, intervals):
                _advance(
                    increments[row, start:stop], signs[pattern, row], times[row + 1], sums[row], sums[row + 1]
                )
            total, squares, along = sums[intervals, 1], sums[intervals, 2], sums[intervals, 3]
            found = result[pattern, start:stop]
            for place in range(stop - start):
                explained = along[place] * along[place]
                r2 = explained / (squares[place] - share * total[place] * total[place])
                found[place] = r2 if r2 < 1.0 else 1.0


@compiled
def _advance(increment: FloatArray, sign: float, time: float, before: FloatArray, after: FloatArray) -> None:
    for place in range(len(increment)):
        position = before[0, place] + sign * increment[place]
        after[0, place] = position
        after[1, place] = before[1, place] + position
        after[2, place] = before[2, place] + position * position
        after[3, place] = before[3, place] + time * position
