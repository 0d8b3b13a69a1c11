"""A forecast as weights on the checkpoints, and the same as a jump along the increments.

Every extrapolator here predicts `sum_k c_k x_k` with weights that sum to one, so that moving the origin of weight
space moves the forecast with it. With d_j = x_(j+1) - x_j the same forecast is `x_last + sum_j a_j d_j`: the weights
a (the jump) are what the inner products of increments (`lab.linearity.products`) turn into lengths and errors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lab.linearity.checks import FloatArray


def jump_of_combination(combination: FloatArray) -> FloatArray:
    """Return a [..., interval] of the combination c [..., checkpoint]: a_j = -(c_0 + ... + c_j)."""
    jump: FloatArray = -np.cumsum(combination, axis=-1)[..., :-1]
    return jump


def combination_of_jump(jump: FloatArray) -> FloatArray:
    """Return c [..., checkpoint], which sums to one, of the jump a [..., interval] from the last checkpoint."""
    zero = np.zeros((*jump.shape[:-1], 1))
    combination: FloatArray = 0.0 - np.diff(jump, axis=-1, prepend=zero, append=zero)
    combination[..., -1] += 1.0
    return combination


def apply_combination(
    values: NDArray[np.floating], combination: FloatArray, reference: int = -1
) -> NDArray[np.floating]:
    """Return sum_k c_k x_k, computed as x_r + sum_k c_k (x_k - x_r), shape [element].

    Differences of neighbouring checkpoints are nearly exact, so the rounding error grows with the jump and not
    with the weights c, which may be large and of opposite sign. Overflow gives infinity, which the caller checks.

    Args:
        values: [checkpoint, element], float32 or float64; the arithmetic is done in this type.
        combination: [checkpoint], sums to one.
        reference: the checkpoint r.

    Returns:
        [element], of the type of `values`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return Combiner(combination, reference, values.dtype).in_place(values.copy())


class Combiner:
    """The weights of one forecast, made ready for many blocks of values; see `apply_combination`.

    Args:
        combination: [checkpoint], sums to one.
        reference: the checkpoint from which the forecast is computed.
        dtype: of the values, and of the arithmetic.
    """

    def __init__(
        self, combination: FloatArray, reference: int = -1, dtype: np.typing.DTypeLike = np.float32
    ) -> None:
        self._reference = reference % len(combination)
        self._moved = [row for row in np.flatnonzero(combination).tolist() if row != self._reference]
        self._factors = combination.astype(dtype)
        self._factors[self._reference] = 1.0

    @property
    def pair(self) -> tuple[int, int] | None:
        """Rows of the reference and of the other checkpoint with a weight; None unless there is exactly one."""
        return (self._reference, self._moved[0]) if len(self._moved) == 1 else None

    def factor(self, row: int) -> np.floating:
        """Return the weight of a row's difference from the reference, in the type of the arithmetic."""
        factor: np.floating = self._factors[row]
        return factor

    def in_place(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the forecast in the row of the reference of `values` [checkpoint, element]; other rows are lost."""
        base = values[self._reference]
        for row in self._moved:
            np.subtract(values[row], base, out=values[row])
        if len(self._moved) == 1:  # each operation rounded by itself, as written in the formula
            only = values[self._moved[0]]
            np.multiply(only, self._factors[self._moved[0]], out=only)
            np.add(base, only, out=base)
        elif self._moved:
            base[:] = self._factors @ values
        return base
