"""Where the weights go at the end of a block: a jump, or what an outer optimiser makes of the block's displacement.

Each rule returns the move that is added to the weights at the block's end, one tensor for each parameter. With d the
displacement of the block (end - start):

    jump             damping (n/m) d
    lookahead        (alpha - 1) d             Zhang et al. 2019: slow weights go a share alpha of the way
    outer Nesterov   lr (d + mu b) - d         Douillard et al. 2023 (DiLoCo), b <- mu b + d, SGD on the gradient -d
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor


class OuterStep(ABC):
    """One rule; it may keep tensors between blocks."""

    extrapolates: bool = False
    """Whether the steps that the schedule names count as done: `effective_step` grows by them."""

    @abstractmethod
    def move(self, displacement: Sequence[Tensor], share: float) -> list[Tensor]:
        """Return the move from the block's end, same shapes.

        Args:
            displacement: of the block, one tensor for each parameter; left as it is.
            share: n/m, steps to jump over steps of the block.
        """

    def commit(self) -> None:
        """Keep what the last `move` would have to remember; not called when that move was taken back."""
        return None

    def buffers(self) -> list[Tensor]:
        """Return the tensors kept between blocks, none before the first."""
        return []

    def load_buffers(self, buffers: Sequence[Tensor]) -> None:
        """Take up what `buffers` returned."""
        return None


class Jump(OuterStep):
    """Go on along the block's displacement."""

    extrapolates = True

    def __init__(self, damping: float) -> None:
        self.damping = damping

    def move(self, displacement: Sequence[Tensor], share: float) -> list[Tensor]:
        return [part * (self.damping * share) for part in displacement]


class Lookahead(OuterStep):
    """Go back to a share alpha of the way from the block's start; alpha above 1 goes on instead."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def move(self, displacement: Sequence[Tensor], share: float) -> list[Tensor]:
        return [part * (self.alpha - 1) for part in displacement]


class OuterNesterov(OuterStep):
    """SGD with Nesterov momentum, as torch defines it, from block start to block start."""

    def __init__(self, learning_rate: float, momentum: float) -> None:
        self.learning_rate, self.momentum = learning_rate, momentum
        self._buffers: list[Tensor] = []
        self._pending: list[Tensor] = []

    def move(self, displacement: Sequence[Tensor], share: float) -> list[Tensor]:
        if self._buffers:
            pairs = zip(self._buffers, displacement, strict=True)
            self._pending = [buffer * self.momentum + part for buffer, part in pairs]
        else:
            self._pending = [part.clone() for part in displacement]
        pairs = zip(self._pending, displacement, strict=True)
        return [(part + buffer * self.momentum) * self.learning_rate - part for buffer, part in pairs]

    def commit(self) -> None:
        self._buffers, self._pending = self._pending, []

    def buffers(self) -> list[Tensor]:
        return list(self._buffers)

    def load_buffers(self, buffers: Sequence[Tensor]) -> None:
        self._buffers = list(buffers)
