"""Recording a trajectory inside someone else's training: `transformers.Trainer`, TRL's trainers.

    from lab.integrations import TrajectoryCallback

    trainer = GRPOTrainer(..., callbacks=[TrajectoryCallback("runs/grpo/first", every=10)])

The directory becomes a run like the lab's own: `lab measure run=runs/grpo/first` reads it. A step is one of the
trainer's optimiser steps (its `global_step`). What is kept is sampled weights with the moments of torch's Adam, AdamW
or SGD, and what the trainer logs; gradients of single updates, log-probs and evaluations are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lab.errors import BadInput
from lab.files import remove_unfinished, write_json
from lab.integrations.foreign_optimizer import ForeignOptimizer
from lab.provenance import provenance
from lab.runs import Run, RunSettings, open_run
from lab.settings import build
from lab.trajectory.metrics_file import MetricsFile
from lab.trajectory.parts import STATIC, Arrays, forget_after, part_path, recorded_steps, write_arrays
from lab.trajectory.sampled_weights import SampledWeights
from lab.trajectory.settings import SamplingSettings
from lab.trajectory.store import FILE_NAME, merge, write_store

RECORDS = "records"
ARGUMENTS = "training_arguments.json"
EXTRA_STEPS = "regrounding/jump_steps"
"""Name under which a jump's steps stand in the trainer's log."""


class TrajectoryCallback(TrainerCallback):
    """Record the run of a Transformers trainer into a run directory.

    When the trainer goes on from its own checkpoint, the same callback goes on with the recording: what lies after
    that checkpoint is dropped. When training ends, the store and a summary are written.

    Args:
        directory: of the run, best `runs/EXPERIMENT/NAME`; made, or continued where a recording was not finished.
        every: steps between recorded points; the first and the last are always recorded.
        sample_fraction: share of each tensor's coordinates that is followed.
        sample_minimum: at least so many of each; smaller tensors whole.
        seed: decides which coordinates.
        clean: remove a finished run of this name and start anew.

    Raises:
        BadInput: an impossible value. When training begins: the directory holds a finished run, or one of another
            model or other settings; a weight is split over processes (FSDP, DeepSpeed ZeRO-3).
    """

    def __init__(
        self,
        directory: str | Path,
        every: int = 10,
        sample_fraction: float = 0.01,
        sample_minimum: int = 200,
        seed: int = 0,
        clean: bool = False,
    ) -> None:
        node = {"every": every, "sample_fraction": sample_fraction, "sample_minimum": sample_minimum}
        self.settings = build(SamplingSettings, node)
        self.directory = Path(directory).absolute()
        self._where = build(
            RunSettings,
            {
                "name": self.directory.name,
                "runs_dir": str(self.directory.parent.parent),
                "resume": "auto",
                "clean": clean,
                "experiment": self.directory.parent.name,
            },
        )
        self._node = node
        self._seed = seed
        self._run: Run | None = None
        self._last = -1

    # ---- the trainer's hooks ---------------------------------------------------------------------

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the run and tidy up what lies after the step that training goes on from."""
        if not state.is_world_process_zero:
            return
        model, parameters = kwargs["model"], trained_parameters(kwargs["model"])
        if self._run is not None:  # an earlier training of this process was broken off
            self._run.close()
        self._run = open_run(self._where, self._config(model, parameters))
        write_json(self.directory / ARGUMENTS, _plain(args.to_sanitized_dict()))
        records = self._records
        records.mkdir(exist_ok=True)
        remove_unfinished(self.directory, records)
        forget_after(records, state.global_step if state.global_step > 0 else -1)
        known = recorded_steps(records)
        self._last = known[-1] if known else -1
        self._metrics = MetricsFile(self.directory / "metrics.csv", max(self._last, 0))
        self._optimizer = ForeignOptimizer(kwargs["optimizer"])
        self._assumed_momentum = float(args.adam_beta1)
        self._dtype = str(next(iter(parameters.values())).dtype).removeprefix("torch.")
        self._precision = "bf16-mixed" if args.bf16 else "16-mixed" if args.fp16 else self._dtype
        self._sampled = SampledWeights(
            parameters, self._seed, self.settings.sample_fraction, self.settings.sample_minimum
        )
        write_arrays(records / STATIC, self._sampled.labels())

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the learning rate before the scheduler moves on."""
        if self._run is not None:
            self._optimizer.note_rates()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record the step that is done: whatever was logged about it is in the log by now."""
        self._record_if_due(state)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record before a kill could part the trainer's checkpoint from its record."""
        self._record_if_due(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record the last step, and write store and summary."""
        if self._run is None:
            return
        if self._last != state.global_step:
            self._record(state)
        tree = merge(self._records, self._attributes())
        write_store(tree, self.directory / FILE_NAME)
        steps = recorded_steps(self._records)
        self._run.write_summary(
            {
                "source": "transformers.Trainer",
                "steps": state.global_step,
                "recorded_points": len(steps),
                "effective_steps": effective_steps(state),
                "result": f"{state.global_step} steps of a Transformers trainer, {len(steps)} recorded",
            }
        )
        self._run.finish()
        self._run.close()
        self._run = None

    # ---- what is kept ----------------------------------------------------------------------------

    @property
    def _records(self) -> Path:
        return self.directory / RECORDS

    def _record_if_due(self, state: TrainerState) -> None:
        if self._run is None or state.global_step == self._last:
            return
        if state.global_step % self.settings.every == 0 or self._last < 0:
            self._record(state)

    def _record(self, state: TrainerState) -> None:
        step = state.global_step
        arrays: Arrays = {"step": np.array(step), "update": np.array(step)}
        arrays["effective_step"] = np.array(effective_steps(state))
        weights = self._sampled.read(self._optimizer.moments, self._optimizer.displacement)
        arrays |= {f"weights/{name}": values for name, values in weights.items()}
        rows = logged_rows(state, first=max(self._last, 0) + 1)
        names = dict.fromkeys(name for row in rows for name in row)
        arrays |= {f"metrics/{name}": np.array([row.get(name, np.nan) for row in rows]) for name in names}
        write_arrays(part_path(self._records, step), arrays)
        self._metrics.append(rows)
        self._last = step

    def _attributes(self) -> dict[str, Any]:
        momentum = self._optimizer.momentum
        assert self._run is not None
        return {
            **provenance(),
            "config": self._run.config,
            "seed": self._seed,
            "source_dtype": self._dtype,
            "storage_dtype": "float32",
            "arithmetic_dtype": self._precision,
            "momentum": self._assumed_momentum if momentum is None else momentum,
            "updates_per_step": 1,
            "optimizer": type(self._optimizer.inner).__name__,
        }

    def _config(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[str, Any]:
        """Return what a recording has to have in common with the one it goes on with."""
        return {
            "source": "transformers.Trainer",
            "recorder": self._node,
            "seed": self._seed,
            "model": {
                "class": type(model).__name__,
                "tensors": len(parameters),
                "parameters": sum(parameter.numel() for parameter in parameters.values()),
            },
        }


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained by name, tied ones once.

    Raises:
        BadInput: one is split over processes, or there is none.
    """
    found = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for name, value in found.items():
        if value.numel() == 0 or hasattr(value, "full_tensor") or hasattr(value, "ds_id"):
            raise BadInput(
                f"{name}: this weight is split over processes (FSDP, DeepSpeed ZeRO-3), so it cannot be followed "
                "here; save checkpoints and use lab measure checkpoints=PATH"
            )
    if not found:
        raise BadInput("the model has no trained parameters")
    return found


def effective_steps(state: TrainerState) -> float:
    """Return the steps done plus the steps that jumps went, as the trainer's log tells."""
    return state.global_step + sum(float(entry.get(EXTRA_STEPS, 0.0)) for entry in state.log_history)


def logged_rows(state: TrainerState, first: int) -> list[dict[str, float]]:
    """Return a row for each step from `first` to the present one, with the numbers that were logged about it.

    They come from the trainer's log, which its checkpoints keep, so a resumed recording lacks none. What is logged
    of the training as a whole, once it is done, is left out.
    """
    rows: dict[int, dict[str, float]] = {step: {"step": step} for step in range(first, state.global_step + 1)}
    for entry in reversed(state.log_history):
        step = int(entry.get("step", 0))
        if step < first:
            break
        if step in rows and "train_runtime" not in entry:
            numbers = {name: value for name, value in entry.items() if isinstance(value, (int, float))}
            rows[step] = {**numbers, **rows[step]}
    return list(rows.values())


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the training arguments as JSON holds them."""
    simple = (str, int, float, bool, type(None))
    return {name: value if isinstance(value, simple) else str(value) for name, value in values.items()}
