"""Re-grounding as a Lightning callback of `lab.module.LabModule`; it stands before the recorder, which then sees the
weights after a jump."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import pytorch_lightning as pl

from lab.module import LabModule
from lab.regrounding.averaging import CheckpointAverage
from lab.regrounding.regrounder import Regrounder
from lab.regrounding.settings import BlockSettings, CheckpointAverageSettings, RegroundingSettings


class Regrounding(pl.Callback):
    """Call `Regrounder` at the ends of blocks; they must be ends of Lightning's batches.

    Args:
        regrounder: over the parameters that the module trains.
    """

    def __init__(self, regrounder: Regrounder) -> None:
        self._regrounder = regrounder

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, LabModule)
        self._regrounder.begin(pl_module.step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LabModule)
        outcome = self._regrounder.after_step(pl_module.step, pl_module.torch_optimizer)
        if outcome is None:
            return
        pl_module.effective_step += outcome.steps
        pl_module.batch_metrics[-1] |= outcome.metrics
        if outcome.message is not None and trainer.is_global_zero:
            print(f"regrounding: {outcome.message}", file=sys.stderr, flush=True)

    def state_dict(self) -> dict[str, Any]:
        return self._regrounder.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._regrounder.load_state_dict(state_dict)


def build_callback(settings: RegroundingSettings, module: LabModule) -> pl.Callback | None:
    """Return the callback that does what `settings` say, None where there is nothing to do.

    Raises:
        BadInput: the weights are of too low precision, or the task has too few problems for the check.
    """
    if isinstance(settings, CheckpointAverageSettings):
        return CheckpointAverage(settings, module)
    if not isinstance(settings, BlockSettings):
        return None
    objective = module.objective
    parts: dict[str, Any] = {"updates_per_step": objective.updates_per_step}
    if not objective.independent_replicates:
        from lab.objectives.language_model import LanguageModelObjective
        from lab.regrounding.reward_check import RewardCheck, outputs_are_finite

        if isinstance(objective, LanguageModelObjective):
            parts["probe"] = partial(outputs_are_finite, objective)
            if settings.check is not None:
                parts["check"] = RewardCheck(objective, settings.check, module.draw)
    return Regrounding(Regrounder(settings, module.trained_parameters, **parts))
