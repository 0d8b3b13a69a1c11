"""The one LightningModule: an objective and an optimiser policy; it trains language models and synthetic
models alike.

Optimisation is manual. The module counts its own RL steps, optimiser updates and effective steps; data
position follows from the step alone, never from a loader's progress.
"""

from __future__ import annotations

import time
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from lab.distributed import Shard
from lab.draw import Draw
from lab.errors import RunFailed
from lab.objectives.objective import LOWER_THE_RATE, Objective
from lab.optimizers import OptimizerSettings


@runtime_checkable
class UpdateObserver(Protocol):
    """A callback that wants to see every optimiser update."""

    def before_update(self, module: LabModule) -> None:
        """Called with the raw gradient (before clipping) in place."""
        ...

    def after_update(self, module: LabModule) -> None:
        """Called when the parameters have moved."""
        ...


class LabModule(pl.LightningModule):
    """Train an objective.

    Args:
        objective: owns the parameters and makes the losses.
        optimizer: which optimiser, learning rate, clipping and schedule.
        draw: randomness of the run.
        total_steps: steps of the whole run, for schedules that end.

    Attributes:
        step: RL steps done.
        update: optimiser updates done.
        effective_step: steps done plus steps extrapolated.
        learning_rate: rate of the last update.
        last_metrics: scalars of the last step.
    """

    def __init__(
        self, objective: Objective, optimizer: OptimizerSettings, draw: Draw, total_steps: int
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.objective = objective
        self.optimizer_settings = optimizer
        self.draw = draw
        self.total_steps = total_steps
        self.step = 0
        self.update = 0
        self.effective_step = 0.0
        self.learning_rate = optimizer.learning_rate
        self.last_metrics: dict[str, float] = {}
        self._trained = objective.trainable()
        self._pending_optimizer_state: dict[str, Any] | None = None

    @property
    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The trained parameters by canonical name."""
        return self._trained

    @property
    def torch_optimizer(self) -> Optimizer:
        """The optimiser itself, without Lightning's wrapper."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        return optimizer

    def configure_optimizers(self) -> Optimizer:
        optimizer = self.optimizer_settings.build(list(self._trained.values()))
        if self._pending_optimizer_state is not None:
            optimizer.load_state_dict(self._pending_optimizer_state)
            self._pending_optimizer_state = None
        return optimizer

    def on_fit_start(self) -> None:
        """Learn which of the run's processes this is."""
        self.objective.shard = Shard(self.global_rank, self.trainer.world_size)

    def train_dataloader(self) -> DataLoader:
        """One item for each step that is left; what a step does follows from `self.step`."""
        return DataLoader(range(self.step, self.total_steps), batch_size=None)  # type: ignore[arg-type]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Do one step: collect, then the objective's updates."""
        started = time.perf_counter()
        collected = self.objective.collect(self.step, self.draw)
        norms: list[float] = []
        losses: list[float] = []
        for update in range(self.objective.updates_per_step):
            loss, norm = self._update(collected, update)
            losses.append(loss)
            norms.append(norm)
        self.step += 1
        self.effective_step += 1.0
        self.last_metrics = {
            **collected.metrics,
            "loss": sum(losses) / len(losses),
            "grad_norm": sum(norms) / len(norms),
            "learning_rate": self.learning_rate,
            "step_time": time.perf_counter() - started,
        }

    def _update(self, collected: Any, update: int) -> tuple[float, float]:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        parameters = list(self._trained.values())
        optimizer.zero_grad(set_to_none=False)
        total = 0.0
        for loss in self.objective.losses(collected, update):
            total += float(loss.detach())
            if self.objective.shard.world == 1:
                self.manual_backward(loss)
            else:
                loss.backward()  # Lightning's would average over the processes, one collective a micro-batch
        (total,) = self.objective.shard.sum(total)
        if not _finite(total):
            raise RunFailed(f"step {self.step}: the loss is {total}; {LOWER_THE_RATE}")
        for parameter in parameters:
            # A step without signal still moves along its momentum, so its gradient is zero and not absent.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.objective.shard.sum_gradients(parameters)
        observers = [callback for callback in self._callbacks() if isinstance(callback, UpdateObserver)]
        for observer in observers:
            observer.before_update(self)
        norm = self._clip(parameters)
        if not _finite(norm):
            raise RunFailed(f"step {self.step}: the gradient norm is {norm}; {LOWER_THE_RATE}")
        total_updates = self.total_steps * self.objective.updates_per_step
        share = self.optimizer_settings.schedule.share(self.update, total_updates)
        self.learning_rate = self.optimizer_settings.learning_rate * share
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate
        optimizer.step()
        self.update += 1
        for observer in observers:
            observer.after_update(self)
        return total, norm

    def _clip(self, parameters: list[torch.nn.Parameter]) -> float:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm: Tensor = torch.nn.utils.get_total_norm(gradients)
        limit = self.optimizer_settings.clip_norm
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return float(norm)

    def _callbacks(self) -> list[Any]:
        return list(getattr(self.trainer, "callbacks", []))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["lab_counters"] = {
            "step": self.step,
            "update": self.update,
            "effective_step": self.effective_step,
            "learning_rate": self.learning_rate,
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Take up a checkpoint that this module saved: weights, optimiser, counters.

        Lightning's loop progress is left out on purpose: the loader yields the steps that are left.

        Raises:
            KeyError, RuntimeError: the checkpoint is not of such a module.
        """
        self.load_state_dict(checkpoint["state_dict"])
        self._pending_optimizer_state = checkpoint["optimizer_states"][0]
        counters = checkpoint["lab_counters"]
        self.step, self.update = int(counters["step"]), int(counters["update"])
        self.effective_step = float(counters["effective_step"])
        self.learning_rate = float(counters["learning_rate"])


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")
