"""Re-grounding inside someone else's training: `transformers.Trainer`, TRL's trainers.

    from lab.integrations import RegroundingCallback

    trainer = GRPOTrainer(..., callbacks=[RegroundingCallback("fixed", block_steps=20, jump_steps=20)])

Options and keys are those of `lab train regrounding=OPTION`. A step is one of the trainer's optimiser steps. Where a
generation serves several optimiser steps (TRL: `steps_per_generation`), let `block_steps` be a multiple of it, so that
no jump comes between sampling and learning. What was done is in the trainer's log, under names `regrounding/...`, and
in a trajectory that `TrajectoryCallback` records.
"""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lab.composition import compose
from lab.errors import BadInput
from lab.files import write_atomic
from lab.integrations.foreign_optimizer import unwrapped
from lab.integrations.trajectory_callback import trained_parameters
from lab.regrounding.regrounder import Check, Regrounder
from lab.regrounding.settings import BlockSettings, build_regrounding_settings

FILE = "regrounding.pt"
"""Lies in the trainer's checkpoints: what is needed to go on from them in the middle of a block."""


class RegroundingCallback(TrainerCallback):
    """Do at the ends of blocks what an option of `regrounding` says.

    Args:
        option: `fixed`, `decaying`, `adaptive`, `lookahead`, `outer_nesterov`, `adam_reset` or `first_update`.
        check: for `adaptive`: given the step, scores the model as it is on held-out problems; two calls at one step
            should use the same random numbers.
        **changes: keys of the option that differ from its defaults.

    Raises:
        BadInput: an unknown option or key, or an impossible value. When training begins: weights of lower precision
            than float32 (load the model in float32 and set `bf16=True`), or split over processes; a checkpoint in the
            middle of a block that this callback did not write.
    """

    def __init__(self, option: str = "fixed", check: Check | None = None, **changes: Any) -> None:
        node = compose("train", [f"regrounding={option}"])["regrounding"]
        OmegaConf.set_struct(node, False)
        plain: Any = OmegaConf.to_container(OmegaConf.merge(node, changes), resolve=True)
        settings = build_regrounding_settings(plain)
        if not isinstance(settings, BlockSettings):
            raise BadInput(f"regrounding={option}: nothing that a trainer's callback could do")
        self.settings = settings
        self._check = check
        self._regrounder: Regrounder | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note where the first block starts, or take up what a checkpoint holds."""
        parameters = trained_parameters(kwargs["model"])
        self._regrounder = Regrounder(self.settings, parameters, check=self._check)
        if state.global_step > 0:
            self._restore(self._regrounder, args, state.global_step)
        self._regrounder.begin(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """At the end of a block: jump."""
        assert self._regrounder is not None
        outcome = self._regrounder.after_step(state.global_step, unwrapped(kwargs["optimizer"]))
        if outcome is None:
            return
        # In the log as the trainer's own numbers are, which its checkpoints keep.
        state.log_history.append({**outcome.metrics, "epoch": state.epoch or 0.0, "step": state.global_step})
        if outcome.message is not None and state.is_world_process_zero:
            print(f"regrounding: {outcome.message}", file=sys.stderr, flush=True)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put what the middle of a block needs into the checkpoint."""
        directory = _checkpoint(args, state.global_step)
        if not state.is_world_process_zero or not directory.is_dir():
            return
        assert self._regrounder is not None
        buffer = io.BytesIO()
        torch.save({"step": state.global_step, **self._regrounder.state_dict()}, buffer)
        write_atomic(directory / FILE, buffer.getvalue())

    def _restore(self, regrounder: Regrounder, args: TrainingArguments, step: int) -> None:
        """Load what `on_save` wrote, where it is; a checkpoint at the end of a block can do without."""
        given = args.resume_from_checkpoint
        places = [Path(given)] if isinstance(given, str) else []
        for file in (place / FILE for place in [*places, _checkpoint(args, step)]):
            if not file.is_file():
                continue
            try:
                saved = torch.load(file, weights_only=True, map_location="cpu")
                if saved["step"] != step:
                    continue
                regrounder.load_state_dict(saved)
            except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
                raise BadInput(f"{file}: cannot be read ({error}); resume from another checkpoint") from error
            return


def _checkpoint(args: TrainingArguments, step: int) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{step}"
