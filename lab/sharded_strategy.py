"""Lightning's side of weights that are cut up over processes: when that happens, and what a checkpoint of them holds.

A checkpoint holds whole tensors, so it is the same file whatever number of processes wrote it.
"""

from __future__ import annotations

from typing import Any

from pytorch_lightning.strategies import DDPStrategy
from torch.optim import Optimizer

from lab.module import LabModule
from lab.sharded_weights import optimizer_state_with, whole, whole_state


class ShardedStrategy(DDPStrategy):
    """One process for each device, each with its share of prompts and weights."""

    def configure_ddp(self) -> None:
        """Cut the weights up, once they are on their devices and before the optimiser sees them."""
        self._module.shard_weights()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return whole_state(self._module)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return optimizer_state_with(optimizer.state_dict(), lambda _, value: whole(value))

    @property
    def _module(self) -> LabModule:
        module = self.lightning_module
        assert isinstance(module, LabModule)
        return module
