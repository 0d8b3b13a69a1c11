"""What the lab can say about the moments of an optimiser that it did not make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from lab.optimizers import AdamWSettings, OptimizerSettings, ScheduleSettings, SGDSettings

_CONSTANT = ScheduleSettings(name="constant", warmup_updates=0, final_share=1.0)


class ForeignOptimizer:
    """Moments and momentum displacement of torch's Adam, AdamW and SGD; of any other optimiser nothing is known.

    Not followed either: AMSGrad, Nesterov momentum, dampening, and settings that differ between parameter groups
    in more than learning rate and weight decay.

    Args:
        optimizer: torch's own, or wrapped with the own one as `.optimizer` (as by Accelerate).
    """

    def __init__(self, optimizer: Any) -> None:
        self.inner: Optimizer = unwrapped(optimizer)
        self._group_of = {
            id(parameter): group for group in self.inner.param_groups for parameter in group["params"]
        }
        self._rates: dict[int, float] = {}
        kinds = {repr(_settings(self.inner, group)) for group in self.inner.param_groups}
        self._settings = _settings(self.inner, self.inner.param_groups[0]) if len(kinds) == 1 else None

    @property
    def momentum(self) -> float | None:
        """Decay of the first moment; 0 for none, None where it is not known."""
        return None if self._settings is None else self._settings.momentum

    def note_rates(self) -> None:
        """Remember the learning rates of the update that was just done, before a scheduler changes them."""
        self._rates = {id(group): float(group["lr"]) for group in self.inner.param_groups}

    def moments(self, name: str, parameter: nn.Parameter) -> Mapping[str, Tensor]:
        """See `lab.trajectory.sampled_weights.Moments`; zeros before the first update."""
        if self._settings is None:
            return {}
        state = self.inner.state.get(parameter)
        if state:
            found: Mapping[str, Tensor] = self._settings.moments(state)
            return found
        return {kind: torch.zeros_like(parameter) for kind in self._settings.moment_names}

    def displacement(
        self, name: str, parameter: nn.Parameter, moments: Mapping[str, Tensor]
    ) -> Tensor | None:
        """See `lab.trajectory.sampled_weights.Displacement`."""
        if not self.momentum:
            return None
        assert self._settings is not None
        state = self.inner.state.get(parameter)
        group = self._group_of.get(id(parameter))
        if not state or group is None:
            return torch.zeros_like(next(iter(moments.values())))
        rate = self._rates.get(id(group), float(group["lr"]))
        # SGD does not count its updates, nor does its displacement depend on how many there were.
        displacement: Tensor = self._settings.momentum_displacement(moments, rate, int(state.get("step", 1)))
        return displacement


def unwrapped(optimizer: Any) -> Optimizer:
    """Return the torch optimiser inside the wrappers that training libraries put around it."""
    while not isinstance(optimizer, Optimizer) or type(optimizer).__module__.startswith("accelerate"):
        optimizer = optimizer.optimizer
    return optimizer


def _settings(optimizer: Optimizer, group: Mapping[str, Any]) -> OptimizerSettings | None:
    """Return the settings of one parameter group, learning rate and weight decay left out; None if not known."""
    common: dict[str, Any] = {"learning_rate": 0.0, "weight_decay": 0.0, "clip_norm": None}
    if type(optimizer) in (Adam, AdamW) and not group["amsgrad"]:
        beta1, beta2 = (float(beta) for beta in group["betas"])
        return AdamWSettings(
            name="adamw", beta1=beta1, beta2=beta2, epsilon=group["eps"], schedule=_CONSTANT, **common
        )
    if type(optimizer) is SGD and not group["nesterov"] and group["dampening"] == 0:
        return SGDSettings(name="sgd", heavy_ball=float(group["momentum"]), schedule=_CONSTANT, **common)
    return None
