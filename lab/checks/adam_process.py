"""Adam on many independent coordinates at once: what the simulations of `theory.adam` act out.

Long runs of few coordinates are dominated by the cost of a call, which is ten times higher for a torch optimiser
than for these array operations; the tests hold both against each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class AdamProcess:
    """Positions under Adam (Kingma & Ba 2015) without epsilon, weight decay or clipping, in float64.

    Attributes:
        position: float64 [..., replicate], changed in place by `update`.
        updates: how many have been done.
    """

    def __init__(
        self,
        position: Array,
        learning_rate: ArrayLike,
        beta1: float,
        beta2: float,
        moments: tuple[float, float] | None = None,
    ) -> None:
        """Start a run.

        Args:
            position: where each replicate starts, float64 [..., replicate]; copied.
            learning_rate: of all updates; broadcast against `position`.
            beta1: decay of the first moment.
            beta2: decay of the second moment.
            moments: None starts both moments from zero with bias correction, as an optimiser does; (m, v)
                starts them there without correction, as of a run that began long ago.
        """
        self.position = np.array(position, dtype=np.float64)
        self.updates = 0
        self._rate = np.asarray(learning_rate, dtype=np.float64)
        self._betas = (beta1, beta2)
        self._corrected = moments is None
        first, second = moments or (0.0, 0.0)
        self._first = np.full(self.position.shape, first)
        self._second = np.full(self.position.shape, second)
        self._buffer = np.empty_like(self.position)

    def update(self, gradient: Array) -> None:
        """Move every position by one update; `gradient` has the shape of `position` and is overwritten."""
        self.updates += 1
        beta1, beta2 = self._betas
        share1, share2 = 1.0, 1.0
        if self._corrected:
            share1, share2 = 1 - beta1**self.updates, 1 - beta2**self.updates
        np.multiply(gradient, gradient, out=self._buffer)
        self._buffer *= 1 - beta2
        self._second *= beta2
        self._second += self._buffer
        gradient *= 1 - beta1
        self._first *= beta1
        self._first += gradient
        np.sqrt(self._second, out=self._buffer)
        np.divide(self._first, self._buffer, out=self._buffer)
        self._buffer *= self._rate * (np.sqrt(share2) / share1)
        self.position -= self._buffer
