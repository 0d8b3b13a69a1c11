"""What every statistic of this package asks of a trajectory before it computes anything.

A trajectory is `values[checkpoint, element]` with `steps[checkpoint]`: the training step at which each
checkpoint was taken. Steps may be unequally spaced and are never a row index.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lab.settings import Invalid, require

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MINIMUM_CHECKPOINTS = 3  # Two points always lie on a line.


def check_steps(steps: ArrayLike) -> FloatArray:
    """Return `steps` as float64, shape [checkpoint].

    Raises:
        Invalid: not one-dimensional, fewer than 3 checkpoints, not finite, or not strictly increasing.
    """
    times = _as_floats(steps, "steps")
    require(times.ndim == 1, "steps", f"expected one dimension [checkpoint], got shape {times.shape}")
    require(
        len(times) >= MINIMUM_CHECKPOINTS,
        "steps",
        f"expected at least {MINIMUM_CHECKPOINTS} checkpoints, got {len(times)}",
    )
    require(bool(np.isfinite(times).all()), "steps", "every step must be finite")
    require(bool((np.diff(times) > 0).all()), "steps", "steps must increase strictly")
    return times


def check_trajectory(values: ArrayLike, steps: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return (values, steps) as float64 arrays of shapes [checkpoint, element] and [checkpoint].

    Raises:
        Invalid: as `check_steps`; or `values` is not two-dimensional, has no element, has another number
            of checkpoints than `steps`, or holds NaN or infinity.
    """
    times = check_steps(steps)
    table = _as_floats(values, "values")
    require(
        table.ndim == 2, "values", f"expected two dimensions [checkpoint, element], got shape {table.shape}"
    )
    require(
        table.shape[0] == len(times),
        "values",
        f"expected one row for each of the {len(times)} checkpoints in steps, got {table.shape[0]} rows",
    )
    require(table.shape[1] > 0, "values", "expected at least one element")
    finite = np.isfinite(table)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise Invalid("values", f"not finite at checkpoint {row} (step {times[row]:g}), element {column}")
    return table, times


def _as_floats(array: ArrayLike, name: str) -> FloatArray:
    try:
        return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise Invalid(name, f"expected an array of real numbers ({error})") from None
