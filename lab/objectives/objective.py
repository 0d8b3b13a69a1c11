"""The interface between a source of noisy gradients and the module that trains on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from lab.distributed import Shard
from lab.draw import Draw

LOWER_THE_RATE = "lower optimizer.learning_rate or set optimizer.clip_norm; the last good checkpoint is kept"
"""What to do about numbers that are not finite."""


@dataclass
class Batch:
    """What one step collected; an objective adds what its losses need."""

    metrics: dict[str, float] = field(default_factory=dict, kw_only=True)
    """Scalars of the step for the log; `losses` may add to them."""


class Objective(nn.Module, ABC):
    """Owns the trainable parameters and says how their gradient is made.

    An objective must be deterministic given (step, draw): a step replayed after a resume is the same step.
    """

    updates_per_step: int = 1
    independent_replicates: bool = False
    """Whether the parameters are those of independent runs, so that a norm over all of them means nothing: none is
    computed, and clipping to one is refused."""
    shard: Shard = Shard()
    """Which share of a step this process does; the module sets it where there are several."""

    @abstractmethod
    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters by canonical name, tied ones once."""

    def check(self, draw: Draw) -> None:
        """Refuse what a first look shows to be impossible, before anything is computed or written.

        Raises:
            BadInput: the parts do not fit each other.
        """

    @abstractmethod
    def collect(self, step: int, draw: Draw) -> Any:
        """Gather a step's `Batch`: rollouts, verification, controlled noise. No gradient."""

    @abstractmethod
    def losses(self, batch: Any, update: int) -> Iterator[Tensor]:
        """Yield micro-batch losses of one update, all over one global denominator."""

    def shard_weights(self) -> None:
        """Cut the trained parameters up over all processes, in place; an objective without a model refuses."""
        raise TypeError(f"{type(self).__name__} has no model that could be cut up")

    def whole_state(self) -> Mapping[str, Tensor] | None:
        """Return the model's tensors where its weights are cut up, gathered by all processes together; else None."""
        return None

    def write_gradients(self, batch: Any, update: int) -> bool:
        """Put the gradient of an update into each parameter's `.grad`, where no differentiation is needed.

        Returns:
            whether that was done; if not, `losses` is differentiated.
        """
        return False

    def learning_rates(self, common: float) -> dict[str, float]:
        """Return the peak learning rate of each parameter by name, in the order of `trainable`, given the optimiser's;
        each then has a parameter group of its own. Empty: all share the optimiser's."""
        return {}

    def coordinate_labels(self, name: str, flat_index: np.ndarray) -> dict[str, np.ndarray]:
        """Return labels of some coordinates of a parameter, int64 [coordinate] each, for the store."""
        return {}

    def mechanism(self) -> dict[str, np.ndarray]:
        """Return what is known exactly of the process at the present parameters; undefined is NaN.

        Arrays are float [cell, replicate] or [cell, replicate, prompt].
        """
        return {}

    def prepare_probes(self, draw: Draw) -> dict[str, np.ndarray]:
        """Return the fixed probes of the run (computed once, before the first step)."""
        return {}

    def observe(self, probes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return output-space quantities at the present parameters, one array for each name."""
        return {}

    def evaluate(self, draw: Draw) -> dict[str, np.ndarray]:
        """Return held-out results at the present parameters; the same problems at every call.

        Either `correct` [problem, rollout], or `pass_rate` [cell, replicate] where that is known exactly.
        """
        return {}

    def save_pretrained(self, directory: Any, state: Mapping[str, Tensor] | None = None) -> None:
        """Write a checkpoint that other tools load; an objective without one refuses.

        Args:
            directory: where.
            state: what `whole_state` returned; needed where the weights are cut up.
        """
        raise TypeError(f"{type(self).__name__} has no model that could be saved")
