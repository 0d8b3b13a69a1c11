"""The two sums over all elements that a pass consists of, each in one reading of a block, and both over open files.

Elements are done tile by tile, as many at a time as fit a core's first cache with what is made of them. Arithmetic is
float32, the type that weights come in: the difference of two neighbouring checkpoints of a weight is exact in it as
long as they are within a factor of two of each other (Sterbenz). Sums over a tile's elements leave it for float64;
tiles whose squares leave its range are done in float64 altogether.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lab.bfloat16 import widen
from lab.compiled import compiled
from lab.linearity.checks import FloatArray
from lab.positioned_read import read_rows

_TILE = 512
_SMALLEST_SQUARES = 1e-28
"""Below it, sums of squares of float32 differences lose digits or vanish."""
_LARGEST = float(np.finfo(np.float32).max)

_Float32 = NDArray[np.float32]


@compiled
def add_products(values: _Float32, products: FloatArray) -> None:
    """Add the inner products of the increments of a block to those of the blocks before.

    Args:
        values: float32 [checkpoint, element].
        products: float64 [interval, interval], added to.
    """
    intervals, size = values.shape[0] - 1, values.shape[1]
    increments = np.empty((intervals, _TILE), np.float32)
    of_tile = np.empty((intervals, intervals), np.float32)
    for start in range(0, size, _TILE):
        width = min(_TILE, size - start)
        for row in range(intervals):
            earlier, later = values[row, start : start + width], values[row + 1, start : start + width]
            increment = increments[row]
            for place in range(width):
                increment[place] = later[place] - earlier[place]
        _upper_products(increments, width, of_tile)
        trace = np.float32(0.0)
        for row in range(intervals):
            trace += of_tile[row, row]
        if _SMALLEST_SQUARES < trace < np.inf:
            for row in range(intervals):
                products[row, row] += of_tile[row, row]
                for column in range(row + 1, intervals):
                    products[row, column] += of_tile[row, column]
                    products[column, row] = products[row, column]
        elif _any_moved(increments, width):
            _add_exact_products(values, start, start + width, products)


@compiled
def _upper_products(increments: _Float32, width: int, products: _Float32) -> None:
    """Products of rows with rows, two by two, so that each number that is loaded is used twice."""
    rows = increments.shape[0]
    for row in range(0, rows - 1, 2):
        first, second = increments[row], increments[row + 1]
        for column in range(row, rows - 1, 2):
            third, fourth = increments[column], increments[column + 1]
            a = b = c = d = np.float32(0.0)
            for place in range(width):
                a += first[place] * third[place]
                b += first[place] * fourth[place]
                c += second[place] * third[place]
                d += second[place] * fourth[place]
            products[row, column], products[row, column + 1] = a, b
            products[row + 1, column], products[row + 1, column + 1] = c, d
    if rows % 2:
        last = increments[rows - 1]
        for row in range(rows):
            first, a = increments[row], np.float32(0.0)
            for place in range(width):
                a += first[place] * last[place]
            products[row, rows - 1] = a


@compiled
def _any_moved(increments: _Float32, width: int) -> bool:
    for row in range(increments.shape[0]):
        for place in range(width):
            if increments[row, place] != 0.0:  # NaN is unequal too
                return True
    return False


@compiled
def _add_exact_products(values: _Float32, start: int, stop: int, products: FloatArray) -> None:
    """As `add_products`, of elements `start` to `stop`, in float64."""
    intervals = values.shape[0] - 1
    increment = np.empty(intervals)
    for place in range(start, stop):
        for row in range(intervals):
            increment[row] = np.float64(values[row + 1, place]) - np.float64(values[row, place])
        for row in range(intervals):
            for column in range(intervals):
                products[row, column] += increment[row] * increment[column]


@compiled
def count_r_squared(values: _Float32, times: FloatArray, counts: NDArray[np.int64]) -> None:
    """Count the elements of a block by their R².

    With y_k = x_k - x_0 and centred steps t,

        R² = (sum_k t_k y_k)² / (sum_k t_k² (sum_k y_k² - (sum_k y_k)² / n)).

    Since y_0 = 0, the last bracket is at least sum_k y_k² / n, so float32 loses no more than a factor n of its
    precision: R² is good to about n x 1e-7. Elements whose squares, times the number of bins, leave float32 are done in
    float64.

    Args:
        values: float32 [checkpoint, element], finite.
        times: steps less their mean, float64 [checkpoint], any unit.
        counts: int64 [bin + 1], added to; bins of equal width on [0, 1], and last those whose values are all equal.
    """
    checkpoints, size = values.shape
    bins = len(counts) - 1
    top = np.float32(bins - 1)
    scaled = (times * np.sqrt(bins / np.sum(times * times))).astype(np.float32)
    share = np.float32(1.0 / checkpoints)
    # (sum t y)² <= bins sum y² with times scaled so, and (sum y)² <= n sum y²; half of it leaves room for rounding.
    limit = np.float32(_LARGEST / (2 * max(bins, checkpoints)))
    squares, along = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    total, found = np.empty(_TILE, np.float32), np.empty(_TILE, np.int32)
    for start in range(0, size, _TILE):
        width = min(_TILE, size - start)
        _moments(values, start, width, scaled, squares, along, total)
        _bins(squares, along, total, share, top, found, width)
        if not _inside(squares, limit, width):
            for place in range(width):
                if not _SMALLEST_SQUARES < squares[place] < limit:
                    found[place] = _exact_bin(values, start + place, times, bins)
        for place in range(width):
            counts[np.uint32(found[place])] += 1


@compiled
def _bins(
    squares: _Float32,
    along: _Float32,
    total: _Float32,
    share: np.float32,
    top: np.float32,
    found: NDArray[np.int32],
    width: int,
) -> None:
    for place in range(width):
        binned = along[place] * along[place] / (squares[place] - share * total[place] * total[place])
        found[place] = np.int32(binned if binned < top else top)


@compiled
def _inside(squares: _Float32, limit: np.float32, width: int) -> bool:
    """Whether no square leaves the range in which float32 serves, which ends at `limit`."""
    smallest, largest = np.float32(np.inf), np.float32(0.0)
    for place in range(width):
        square = squares[place]
        smallest = square if square < smallest else smallest
        largest = square if square > largest else largest
    return bool(smallest > _SMALLEST_SQUARES and largest < limit)


@compiled
def _moments(
    values: _Float32,
    start: int,
    width: int,
    times: _Float32,
    squares: _Float32,
    along: _Float32,
    total: _Float32,
) -> None:
    """Find sum y², sum t y and sum y of each element, four checkpoints at a time."""
    checkpoints = values.shape[0]
    origin = values[0, start : start + width]
    for place in range(width):
        squares[place] = along[place] = total[place] = 0.0
    row = 1
    while row + 3 < checkpoints:
        first, second = values[row, start : start + width], values[row + 1, start : start + width]
        third, fourth = values[row + 2, start : start + width], values[row + 3, start : start + width]
        s, t, u, v = times[row], times[row + 1], times[row + 2], times[row + 3]
        for place in range(width):
            a, b = first[place] - origin[place], second[place] - origin[place]
            c, d = third[place] - origin[place], fourth[place] - origin[place]
            squares[place] += (a * a + b * b) + (c * c + d * d)
            along[place] += (s * a + t * b) + (u * c + v * d)
            total[place] += (a + b) + (c + d)
        row += 4
    while row < checkpoints:
        first, s = values[row, start : start + width], times[row]
        for place in range(width):
            a = first[place] - origin[place]
            squares[place] += a * a
            along[place] += s * a
            total[place] += a
        row += 1


@compiled
def _exact_bin(values: _Float32, place: int, times: FloatArray, bins: int) -> int:
    """Bin of R² of one element, in float64; `bins` where its values are all equal."""
    largest, mean = 0.0, 0.0
    origin = np.float64(values[0, place])
    for row in range(len(times)):
        largest = max(largest, abs(np.float64(values[row, place]) - origin))
    if not largest > 0.0:
        return bins
    for row in range(len(times)):
        mean += (np.float64(values[row, place]) - origin) / largest / len(times)
    squares, along, of_times = 0.0, 0.0, 0.0
    for row in range(len(times)):
        offset = (np.float64(values[row, place]) - origin) / largest - mean
        squares += offset * offset
        along += times[row] * offset
        of_times += times[row] * times[row]
    return min(int(bins * (along * along / (of_times * squares))), bins - 1)


@compiled
def observe_files(
    descriptors: NDArray[np.int32],
    offsets: NDArray[np.int64],
    size: int,
    numbers: NDArray[np.uint16] | _Float32,
    values: _Float32,
    times: FloatArray,
    products: FloatArray,
    counts: NDArray[np.int64],
    places: NDArray[np.int64],
    sample: _Float32,
) -> bool:
    """Do `add_products` and `count_r_squared` of elements that lie in open files, and keep some of them.

    A few thousand elements at a time go through all of it, so that nothing leaves a core's second cache.

    Args:
        descriptors: int32 [checkpoint].
        offsets: byte of the first element in each, int64 [checkpoint].
        size: number of elements.
        numbers: buffer for what is stored, [checkpoint x width]: uint16 for bfloat16; `values` itself for float32.
        values: buffer, float32 [checkpoint x width].
        times: see `count_r_squared`.
        products: see `add_products`.
        counts: see `count_r_squared`.
        places: elements to keep, counted from the first, int64 [kept], sorted.
        sample: float32 [checkpoint, kept], filled.

    Returns:
        Whether all could be read; if not, nothing of what was written is to be used.
    """
    checkpoints = len(descriptors)
    width = len(values) // checkpoints
    kept = 0
    for start in range(0, size, width):
        count = min(width, size - start)
        stored = numbers[: checkpoints * count].reshape(checkpoints, count)
        block = values[: checkpoints * count].reshape(checkpoints, count)
        if not read_rows(descriptors, offsets + start * numbers.itemsize, stored):
            return False
        if numbers.itemsize == 2:
            widen(stored.view(np.uint16), block.view(np.uint32))
        add_products(block, products)
        count_r_squared(block, times, counts)
        while kept < len(places) and places[kept] < start + count:
            sample[:, kept] = block[:, places[kept] - start]
            kept += 1
    return True
