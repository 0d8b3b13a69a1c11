"""Several processes on one run: who owns which prompts, and how their sums are put together.

Every process holds the whole model and draws the whole step's random numbers; it samples and differentiates its
own share of the prompts. Losses are over global denominators, so gradients are summed, not averaged, and the
trajectory is that of a single process up to the order of summation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1

    def own(self, count: int, updates: int = 1) -> np.ndarray:
        """Return which of `count` prompts are this process's, int64, in increasing order.

        Each of the `updates` consecutive shares of the prompts is split evenly among the processes.
        """
        indices = np.arange(count).reshape(updates, self.world, -1)
        return indices[:, self.rank].flatten()

    def gather(self, values: np.ndarray, updates: int = 1) -> np.ndarray:
        """Put the rows that each process owns together, in the order of the prompts.

        Args:
            values: [own prompt, ...].
            updates: as in `own`.

        Returns:
            [prompt, ...], the same in every process.
        """
        if self.world == 1:
            return values
        parts: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(parts, values)
        split = [part.reshape(updates, -1, *part.shape[1:]) for part in parts]
        return np.concatenate(split, axis=1).reshape(-1, *values.shape[1:])

    def sum(self, *numbers: float) -> tuple[float, ...]:
        """Return the sum of each number over the processes."""
        if self.world == 1:
            return numbers
        total = torch.tensor(numbers, dtype=torch.float64, device=_device())
        torch.distributed.all_reduce(total)
        return tuple(total.tolist())

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add the gradients of all processes, in place."""
        if self.world == 1:
            return
        gradients: list[Tensor] = [value.grad for value in parameters if value.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        offset = 0
        for gradient in gradients:
            gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
            offset += gradient.numel()


def _device() -> torch.device:
    backend = torch.distributed.get_backend()
    return torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
