"""Optimisers and learning-rate schedules: settings (torch-free) and what is built from them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lab.linearity.momentum import pending_updates
from lab.settings import build, choose, option_name, require

if TYPE_CHECKING:
    from torch import nn, optim


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate as a share of `learning_rate`, a pure function of the update number."""

    name: Literal["constant", "linear", "cosine"]
    """What follows the warm-up: nothing, or a decay that reaches `final_share` just after the last update."""
    warmup_updates: int
    """Updates over which the rate rises linearly from zero."""
    final_share: float
    """Where a decay ends."""

    def __post_init__(self) -> None:
        require(self.warmup_updates >= 0, "warmup_updates", "must not be negative")
        require(0 <= self.final_share <= 1, "final_share", f"must lie in [0, 1], got {self.final_share}")

    def share(self, update: int, total_updates: int) -> float:
        """Return the factor for the update number `update` (from 0) of `total_updates`."""
        if update < self.warmup_updates:
            return (update + 1) / self.warmup_updates
        if self.name == "constant":
            return 1.0
        span = max(total_updates - self.warmup_updates, 1)
        progress = min((update - self.warmup_updates) / span, 1.0)
        remaining = 1 - progress if self.name == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
        return self.final_share + (1 - self.final_share) * remaining


@dataclass(frozen=True)
class OptimizerSettings(ABC):
    """Keys that every optimiser has."""

    name: str
    """Registered name of the optimiser."""
    learning_rate: float
    """Peak learning rate."""
    weight_decay: float
    """Decoupled for AdamW, added to the gradient for SGD."""
    clip_norm: float | None
    """Largest global norm of the gradient of an update; null leaves it alone."""
    schedule: ScheduleSettings
    """How the learning rate changes."""

    def __post_init__(self) -> None:
        require(self.learning_rate >= 0, "learning_rate", f"must not be negative, got {self.learning_rate}")
        require(self.weight_decay >= 0, "weight_decay", f"must not be negative, got {self.weight_decay}")
        require(
            self.clip_norm is None or self.clip_norm > 0, "clip_norm", "must be positive, or null for none"
        )

    @abstractmethod
    def build(self, parameters: list[nn.Parameter] | list[dict[str, Any]]) -> optim.Optimizer:
        """Return the torch optimiser over `parameters`, or over torch's parameter groups."""

    @abstractmethod
    def moments(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tensors of one parameter's optimiser state that the recorder keeps, by name."""

    @abstractmethod
    def momentum_displacement(self, moments: Mapping[str, Any], learning_rate: float, update: int) -> Any:
        """Return what the momentum already gathered would still add to a position (arrays or tensors).

        Position plus displacement is the momentum-free position z of `lab.linearity.momentum`: under pure
        noise its increments are uncorrelated, which those of w are not. Only for an optimiser with momentum.

        Args:
            moments: what `moments` returned.
            learning_rate: rate of the last update.
            update: number of updates done, at least 1.
        """

    @property
    @abstractmethod
    def moment_names(self) -> tuple[str, ...]:
        """Names of what `moments` returns."""

    @property
    @abstractmethod
    def momentum(self) -> float:
        """Decay of the first moment for an update; 0 for none."""


@dataclass(frozen=True)
class AdamWSettings(OptimizerSettings):
    """AdamW (Loshchilov & Hutter 2019)."""

    beta1: float
    """Decay of the first moment."""
    beta2: float
    """Decay of the second moment."""
    epsilon: float
    """Added to the root of the second moment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("beta1", "beta2"):
            require(0 <= getattr(self, field) < 1, field, f"must lie in [0, 1), got {getattr(self, field)}")
        require(self.epsilon >= 0, "epsilon", "must not be negative")

    def build(self, parameters: list[nn.Parameter] | list[dict[str, Any]]) -> optim.Optimizer:
        from torch.optim import AdamW

        return AdamW(
            parameters,
            lr=self.learning_rate,
            betas=(self.beta1, self.beta2),
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            fused=True,
        )

    def moments(self, state: Mapping[str, Any]) -> dict[str, Any]:
        return {"first_moment": state["exp_avg"], "second_moment": state["exp_avg_sq"]}

    @property
    def moment_names(self) -> tuple[str, ...]:
        return ("first_moment", "second_moment")

    def momentum_displacement(self, moments: Mapping[str, Any], learning_rate: float, update: int) -> Any:
        pending = float(pending_updates(self.beta1, np.array(float(update))))
        second = moments["second_moment"] / (1 - self.beta2**update)
        return -learning_rate * pending * moments["first_moment"] / (second**0.5 + self.epsilon)

    @property
    def momentum(self) -> float:
        return self.beta1


@dataclass(frozen=True)
class SGDSettings(OptimizerSettings):
    """Stochastic gradient descent, with or without heavy-ball momentum."""

    heavy_ball: float
    """Momentum mu: buffer = mu buffer + gradient; 0 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.heavy_ball < 1, "heavy_ball", f"must lie in [0, 1), got {self.heavy_ball}")

    def build(self, parameters: list[nn.Parameter] | list[dict[str, Any]]) -> optim.Optimizer:
        from torch.distributed.tensor import DTensor
        from torch.optim import SGD

        optimizer = SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.heavy_ball,
            weight_decay=self.weight_decay,
            fused=True,
        )
        for group in optimizer.param_groups:  # the fused form does not know parameters that are cut up
            group["fused"] = not isinstance(group["params"][0], DTensor)
        return optimizer

    def moments(self, state: Mapping[str, Any]) -> dict[str, Any]:
        return {"first_moment": state["momentum_buffer"]} if self.heavy_ball else {}

    @property
    def moment_names(self) -> tuple[str, ...]:
        return ("first_moment",) if self.heavy_ball else ()

    def momentum_displacement(self, moments: Mapping[str, Any], learning_rate: float, update: int) -> Any:
        return -learning_rate * self.heavy_ball / (1 - self.heavy_ball) * moments["first_moment"]

    @property
    def momentum(self) -> float:
        return self.heavy_ball


OPTIMIZERS: dict[str, type[OptimizerSettings]] = {"adamw": AdamWSettings, "sgd": SGDSettings}


def build_optimizer_settings(node: Mapping[str, Any], key: str = "optimizer") -> OptimizerSettings:
    """Build the settings of the optimiser that the configuration group `node` names.

    Raises:
        BadInput: unknown optimiser, unknown key or impossible value, named by its full key.
    """
    return build(choose(OPTIMIZERS, option_name(node, key), f"{key}.name"), node, key)
