"""The one LightningModule: an objective and an optimiser policy; it trains language models and synthetic
models alike.

Optimisation is manual. The module counts its own RL steps, optimiser updates and effective steps; data
position follows from the step alone, never from a loader's progress.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
from lab.sharded_weights import cut_like, optimizer_state_with, whole


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
        steps_per_batch: steps that make one of Lightning's batches, ended at multiples of this number; callbacks
            are called once a batch. What Lightning does for a batch takes longer than a small synthetic step.

    Attributes:
        step: RL steps done.
        update: optimiser updates done.
        effective_step: steps done plus steps extrapolated.
        learning_rate: rate of the last update.
        weights_are_sharded: whether each process holds only a share of every weight.
        batch_metrics: for each step of the last batch its scalars, `step` (from 1) among them.
        evaluation_weights: makes a context in which held-out evaluation is to be done; a callback that lends other
            weights to it sets it.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: OptimizerSettings,
        draw: Draw,
        total_steps: int,
        steps_per_batch: int = 1,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.objective = objective
        self.optimizer_settings = optimizer
        self.draw = draw
        self.total_steps = total_steps
        self.steps_per_batch = steps_per_batch
        self.step = 0
        self.update = 0
        self.effective_step = 0.0
        self.learning_rate = optimizer.learning_rate
        self.batch_metrics: list[dict[str, float]] = []
        self.evaluation_weights: Callable[[], AbstractContextManager[None]] = nullcontext
        self.weights_are_sharded = False
        self._trained = objective.trainable()
        self._peak_rates = objective.learning_rates(optimizer.learning_rate)
        self._observers: list[UpdateObserver] = []
        self._pending_optimizer_state: dict[str, Any] | None = None

    @property
    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The trained parameters by canonical name."""
        return self._trained

    def shard_weights(self) -> None:
        """Cut the weights up over all processes (see `lab.sharded_weights`), before there is an optimiser."""
        self.objective.shard_weights()
        self.weights_are_sharded = True
        self._trained = self.objective.trainable()

    @property
    def torch_optimizer(self) -> Optimizer:
        """The optimiser itself, without Lightning's wrapper."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        return optimizer

    def configure_optimizers(self) -> Optimizer:
        optimizer = self.optimizer_settings.build(self._parameter_groups())
        if self._pending_optimizer_state is not None:
            parameters = list(self._trained.values())
            own = optimizer_state_with(
                self._pending_optimizer_state, lambda index, value: cut_like(value, parameters[index])
            )
            optimizer.load_state_dict(own)
            self._pending_optimizer_state = None
        return optimizer

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return torch's parameter groups: one, or one for each parameter that has a learning rate of its own."""
        if not self._peak_rates:
            return [{"params": list(self._trained.values())}]
        return [{"params": [parameter]} for parameter in self._trained.values()]

    def peak_learning_rate(self, name: str) -> float:
        """Return the peak learning rate of one parameter."""
        return self._peak_rates.get(name, self.optimizer_settings.learning_rate)

    def learning_rate_of(self, name: str) -> float:
        """Return the rate of the last update of one parameter."""
        if not self._peak_rates or self.update == 0:
            return self.learning_rate
        return self.peak_learning_rate(name) * self._share(self.update - 1)

    def _share(self, update: int) -> float:
        """Return the schedule's factor on all peak learning rates for the update number `update` (from 0)."""
        return self.optimizer_settings.schedule.share(
            update, self.total_steps * self.objective.updates_per_step
        )

    def on_fit_start(self) -> None:
        """Learn which of the run's processes this is, and who watches its updates."""
        self.objective.shard = Shard(self.global_rank, self.trainer.world_size)
        callbacks = list(getattr(self.trainer, "callbacks", []))
        self._observers = [callback for callback in callbacks if isinstance(callback, UpdateObserver)]

    @property
    def last_metrics(self) -> dict[str, float]:
        """Scalars of the last step."""
        return {name: value for name, value in self.batch_metrics[-1].items() if name != "step"}

    def train_dataloader(self) -> DataLoader:
        """One item for each batch that is left; what a step does follows from `self.step`."""
        whole = self.steps_per_batch
        left = range(self.step // whole, -(-self.total_steps // whole))
        return DataLoader(left, batch_size=None)  # type: ignore[arg-type]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Do the steps of one batch."""
        whole = self.steps_per_batch
        end = min((self.step // whole + 1) * whole, self.total_steps)
        self.batch_metrics = [self._step() for _ in range(self.step, end)]
        if self.objective.independent_replicates:
            self._require_finite_weights()

    def _step(self) -> dict[str, float]:
        """Do one step: collect, then the objective's updates. Return its scalars."""
        started = time.perf_counter()
        collected = self.objective.collect(self.step, self.draw)
        norms: list[float] = []
        losses: list[float] = []
        for update in range(self.objective.updates_per_step):
            loss, norm = self._update(collected, update)
            losses += [] if loss is None else [loss]
            norms += [] if norm is None else [norm]
        self.step += 1
        self.effective_step += 1.0
        return {
            "step": self.step,
            **collected.metrics,
            **({"loss": sum(losses) / len(losses)} if losses else {}),
            **({"grad_norm": sum(norms) / len(norms)} if norms else {}),
            "learning_rate": self.learning_rate,
            "step_time": time.perf_counter() - started,
        }

    def _update(self, collected: Any, update: int) -> tuple[float | None, float | None]:
        """Do one update; return its loss and the norm of its gradient, where there are such."""
        optimizer = self.torch_optimizer  # Lightning's wrapper adds nothing here but a tenth of a millisecond
        parameters = list(self._trained.values())
        written = self.objective.write_gradients(collected, update)
        total = None if written else self._differentiate(collected, update, parameters)
        if total is not None and not _finite(total):
            raise RunFailed(f"step {self.step}: the loss is {total}; {LOWER_THE_RATE}")
        for observer in self._observers:
            observer.before_update(self)
        norm = None if self.objective.independent_replicates else self._clip(parameters)
        if norm is not None and not _finite(norm):
            raise RunFailed(f"step {self.step}: the gradient norm is {norm}; {LOWER_THE_RATE}")
        share = self._share(self.update)
        self.learning_rate = self.optimizer_settings.learning_rate * share
        peaks = [self.peak_learning_rate(name) for name in self._peak_rates]
        for group, peak in zip(
            optimizer.param_groups, peaks or [self.optimizer_settings.learning_rate], strict=True
        ):
            group["lr"] = peak * share
        optimizer.step()
        self.update += 1
        for observer in self._observers:
            observer.after_update(self)
        return total, norm

    def _differentiate(self, collected: Any, update: int, parameters: list[torch.nn.Parameter]) -> float:
        """Leave the gradient of the objective's losses in the parameters; return their sum."""
        self.torch_optimizer.zero_grad(set_to_none=False)
        total = 0.0
        for loss in self.objective.losses(collected, update):
            total += float(loss.detach())
            if self.weights_are_sharded:
                # Its mean over the processes is taken where the shares are put together.
                (loss * self.objective.shard.world).backward()
            elif self.objective.shard.world == 1:
                self.manual_backward(loss)
            else:
                loss.backward()  # Lightning's would average over the processes, one collective a micro-batch
        (total,) = self.objective.shard.sum(total)
        if not _finite(total):
            return total
        for parameter in parameters:
            # A step without signal still moves along its momentum, so its gradient is zero and not absent.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if not self.weights_are_sharded:
            self.objective.shard.sum_gradients(parameters)
        return total

    def _clip(self, parameters: list[torch.nn.Parameter]) -> float:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm: Tensor = torch.nn.utils.get_total_norm(gradients)
        limit = self.optimizer_settings.clip_norm
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return float(whole(norm))

    @torch.no_grad()
    def _require_finite_weights(self) -> None:
        """Look once a batch, in place of at every loss: a pass over all replicates takes as long as much of a step."""
        for name, parameter in self._trained.items():
            if not _finite(float(parameter.sum())):
                raise RunFailed(f"step {self.step}: the weights of {name} are not finite; {LOWER_THE_RATE}")

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
