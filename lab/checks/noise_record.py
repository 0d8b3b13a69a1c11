"""What a simulation of Adam remembers of its noise: control variates of known variance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class NoiseRecord:
    """Sums over parts of a run of the standard normals xi it draws, and of xi^2 - 1; and how the two meet.

    With u a moving average of past xi^2 - 1 (the fluctuation of Adam's second moment under pure noise), the sum of
    xi_t u_{t-1} has mean zero, is uncorrelated with the others, and is most of what a linear account leaves out. Where
    the run goes on from an earlier one, the averages of xi and xi^2 - 1 that it starts with are controls too.
    """

    def __init__(self, replicates: int, beta2: float, *, corrected: bool) -> None:
        """Start with nothing remembered.

        Args:
            replicates: of the run.
            beta2: decay of the averages.
            corrected: whether they are corrected for their start from zero, as an optimiser's are.
        """
        self._replicates = replicates
        self._beta2 = beta2
        self._corrected = corrected
        self._updates = 0
        self._linear = np.zeros(replicates)  # moving average of xi
        self._quadratic = np.zeros(replicates)  # and of xi^2 - 1
        self._square = np.empty(replicates)
        self.begin(1)

    def begin(self, parts: int) -> None:
        """Forget the sums, not the averages; a window of so many parts begins."""
        self._sums = np.zeros((parts, 2, self._replicates))
        self._sizes = np.zeros(parts)
        self._meeting = np.zeros(self._replicates)
        self._meeting_variance = 0.0
        self._start = (self._linear.copy(), self._quadratic.copy(), self._share_of_squares())

    def add(self, xi: Array, part: int) -> None:
        """Record the noise of one update, float64 [replicate]."""
        correction = 1 - self._beta2**self._updates if self._corrected and self._updates else 1.0
        np.multiply(xi, self._quadratic, out=self._square)
        self._square /= correction
        self._meeting += self._square
        self._meeting_variance += 2 * self._share_of_squares() / correction**2
        self._sums[part, 0] += xi
        self._sizes[part] += 1
        np.multiply(xi, xi, out=self._square)
        self._square -= 1
        self._sums[part, 1] += self._square
        self._square *= 1 - self._beta2
        self._quadratic *= self._beta2
        self._quadratic += self._square
        np.multiply(xi, 1 - self._beta2, out=self._square)
        self._linear *= self._beta2
        self._linear += self._square
        self._updates += 1

    def controls(self) -> Array:
        """Of this window, float64 [replicate, control]."""
        linear, quadratic, share = self._start
        carried = [linear, quadratic] if share > 0 else []
        return np.stack([*self._sums[:, 0], self._meeting, *self._sums[:, 1], *carried], axis=1)

    def variances(self) -> Array:
        """Of the controls, known, float64 [control]."""
        share = self._start[2]
        carried = [share, 2 * share] if share > 0 else []
        return np.array([*self._sizes, self._meeting_variance, *(2 * self._sizes), *carried])

    def signs(self) -> Array:
        """What a control is multiplied by when the noise is mirrored, -1 or 1, float64 [control]."""
        carried = [-1.0, 1.0] if self._start[2] > 0 else []
        return np.array([*np.full(len(self._sizes) + 1, -1.0), *np.ones(len(self._sizes)), *carried])

    def _share_of_squares(self) -> float:
        """Variance of the moving average of xi after the updates so far: a sum of squared weights."""
        beta2 = self._beta2
        return float((1 - beta2) / (1 + beta2) * (1 - beta2 ** (2 * self._updates)))
