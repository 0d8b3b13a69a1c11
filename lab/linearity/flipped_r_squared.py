"""R² of paths whose increments had their signs flipped, for many patterns of signs."""

from __future__ import annotations

import numpy as np

from lab.compiled import compiled
from lab.linearity.checks import FloatArray

_TILE = 256  # Elements at a time, so that their running sums stay in a core's first cache.


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
        """Return R², float64 [pattern, element], for signs [pattern, interval], +1 or -1."""
        result = np.empty((len(signs), self._increments.shape[1]))
        _fill(self._increments, self._times, np.ascontiguousarray(signs, np.float64), result)
        return result


@compiled
def _fill(increments: FloatArray, times: FloatArray, signs: FloatArray, result: FloatArray) -> None:
    """Follow each path from 0 along its increments: sums of its squares, of itself, and of itself times steps."""
    intervals, size = increments.shape
    share = 1.0 / len(times)
    path, squares = np.empty(_TILE), np.empty(_TILE)
    total, along = np.empty(_TILE), np.empty(_TILE)
    for start in range(0, size, _TILE):
        width = min(_TILE, size - start)
        for pattern in range(len(signs)):
            for place in range(width):
                path[place] = squares[place] = total[place] = along[place] = 0.0
            for row in range(0, intervals - 1, 2):
                _advance_twice(
                    increments[row, start : start + width],
                    increments[row + 1, start : start + width],
                    signs[pattern, row],
                    signs[pattern, row + 1],
                    times[row + 1],
                    times[row + 2],
                    path,
                    squares,
                    total,
                    along,
                )
            if intervals % 2:
                last = increments[intervals - 1, start : start + width]
                for place in range(width):
                    position = path[place] + signs[pattern, intervals - 1] * last[place]
                    squares[place] += position * position
                    total[place] += position
                    along[place] += times[intervals] * position
            found = result[pattern, start : start + width]
            for place in range(width):
                explained = along[place] * along[place]
                r2 = explained / (squares[place] - share * total[place] * total[place])
                found[place] = r2 if r2 < 1.0 else 1.0


@compiled
def _advance_twice(
    first: FloatArray,
    second: FloatArray,
    first_sign: float,
    second_sign: float,
    first_time: float,
    second_time: float,
    path: FloatArray,
    squares: FloatArray,
    total: FloatArray,
    along: FloatArray,
) -> None:
    for place in range(len(first)):
        one = path[place] + first_sign * first[place]
        two = one + second_sign * second[place]
        path[place] = two
        squares[place] += one * one + two * two
        total[place] += one + two
        along[place] += first_time * one + second_time * two
