"""Averaging of checkpoints at evaluation: training does not notice, held-out evaluation is of the average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lab.module import LabModule
from lab.regrounding.settings import CheckpointAverageSettings


class CheckpointAverage(pl.Callback):
    """Keep an average of past weights and lend it to every evaluation.

    Args:
        settings: which average.
        module: what is trained; its `evaluation_weights` is set.
    """

    def __init__(self, settings: CheckpointAverageSettings, module: LabModule) -> None:
        self._settings = settings
        self._module = module
        self._kept: list[list[Tensor]] = []
        module.evaluation_weights = self.lent

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        parameters = list(self._module.trained_parameters.values())
        self._kept = [
            [kept.to(parameter) for kept, parameter in zip(weights, parameters, strict=True)]
            for weights in self._kept
        ]
        if not self._kept:
            self._keep()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._module.step % self._settings.every == 0:
            self._keep()

    @torch.no_grad()
    def _keep(self) -> None:
        now = [value.detach().clone() for value in self._module.trained_parameters.values()]
        if self._settings.count is not None:
            self._kept = [*self._kept, now][-self._settings.count :]
            return
        assert self._settings.decay is not None
        if not self._kept:
            self._kept = [now]
            return
        for average, value in zip(self._kept[0], now, strict=True):
            average.lerp_(value, 1 - self._settings.decay)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Put the average into the parameters for as long as the block lasts, then the weights back exactly."""
        parameters = list(self._module.trained_parameters.values())
        own = [parameter.detach().clone() for parameter in parameters]
        try:
            with torch.no_grad():
                for parameter, *kept in zip(parameters, *self._kept, strict=True):
                    parameter.copy_(torch.stack([value.double() for value in kept]).mean(0))
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(parameters, own, strict=True):
                    parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"kept": [list(weights) for weights in self._kept]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._kept = [list(weights) for weights in state_dict["kept"]]
