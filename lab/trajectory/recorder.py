"""The recorder: a Lightning callback that keeps a run's path and what is needed to resume it.

At every recorded step it writes one small file (weights at the sampled coordinates with the optimiser's
moments there, output-space probes, held-out evaluation, and the metrics and update probes since the last
recorded step), then the metrics table. A checkpoint to resume from carries what has been buffered since
the last recorded step, so it can be written after any step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from lab.errors import Interrupted, RunFailed
from lab.files import remove_unfinished, sync
from lab.module import LabModule
from lab.objectives.objective import LOWER_THE_RATE
from lab.trajectory.checkpoints import write_checkpoint
from lab.trajectory.metrics_file import MetricsFile
from lab.trajectory.parts import (
    STATIC,
    Arrays,
    forget_after,
    part_path,
    read_arrays,
    recorded_steps,
    write_arrays,
)
from lab.trajectory.sampled_weights import SampledWeights
from lab.trajectory.settings import RecorderSettings
from lab.trajectory.update_probe import UpdateProbe

RECORDS = "records"
RESUME = "resume.ckpt"


class Recorder(pl.Callback):
    """Record a run into its directory.

    Args:
        settings: what to keep and how often.
        directory: the run directory; files go into `records/`, `metrics.csv`, `resume.ckpt` and, when asked,
            `checkpoint-N`.
        stop_requested: asked after every step; when it says yes, the run saves and is interrupted.
    """

    def __init__(
        self,
        settings: RecorderSettings,
        directory: Path,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self.settings = settings
        self.directory = directory
        self.records = directory / RECORDS
        self.pass_rate: float | None = None
        self._stop_requested = stop_requested
        self._metric_rows: list[dict[str, float]] = []
        self._update_rows: list[dict[str, np.ndarray]] = []
        self._writes = True
        self._takes_part = True
        self._probe: UpdateProbe | None = None

    # ---- Lightning's hooks -------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module = _lab_module(pl_module)
        self._writes = trainer.is_global_zero
        # Weights that are cut up are read by all processes together; one writes them down.
        self._takes_part = self._writes or module.weights_are_sharded
        if self._takes_part:
            self._prepare(trainer, module)
        if module.step == 0:
            self._save(trainer)

    def _prepare(self, trainer: pl.Trainer, module: LabModule) -> None:
        """Set up what is recorded, tidy what a kill has left, and record step 0 of a new run."""
        parameters = module.trained_parameters
        watched = self.settings.update_coordinates or self.settings.projections
        self._probe = (
            UpdateProbe(
                parameters, module.draw.seed, self.settings.update_coordinates, self.settings.projections
            )
            if watched
            else None
        )
        self._sampled = SampledWeights(
            parameters, module.draw.seed, self.settings.sample_fraction, self.settings.sample_minimum
        )
        if self._writes:
            self.records.mkdir(parents=True, exist_ok=True)
            remove_unfinished(self.directory, self.records)
            forget_after(self.records, module.step if module.step > 0 else -1)
            self._metrics_file = MetricsFile(self.directory / "metrics.csv", self._last_recorded_step(module))
        if module.step > 0:
            self._static = read_arrays(self.records / STATIC)
            # A damaged record is refused now, not when the run is done; by the process that tidies them up.
            for step in recorded_steps(self.records) if self._writes else ():
                read_arrays(part_path(self.records, step))
            return
        self._static = self._static_arrays(trainer, module)
        if self._writes:
            write_arrays(self.records / STATIC, self._static)
        self._record(trainer, module)
        self._keep_checkpoint(module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = _lab_module(pl_module)
        finished = module.step == module.total_steps
        if self._takes_part:
            self._metric_rows += module.batch_metrics
            if module.step % self.settings.every == 0 or finished:
                self._record(trainer, module)
            self._keep_checkpoint(module)
        if module.step % self.settings.save_every == 0 or finished:
            self._save(trainer)
        (stops,) = module.objective.shard.sum(float(self._stop_requested()))
        if stops and not finished:
            self._save(trainer)
            raise Interrupted(f"stopped after step {module.step}; run the same command again to go on")

    def before_update(self, module: LabModule) -> None:
        """See `lab.module.UpdateObserver`."""
        if self._takes_part and self._probe is not None:
            self._probe.before()

    def after_update(self, module: LabModule) -> None:
        """See `lab.module.UpdateObserver`."""
        if not self._takes_part or self._probe is None:
            return
        row = self._probe.after()
        self._update_rows.append(
            {"update": np.array(module.update), "step": np.array(module.step + 1), **row}
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the buffers, as tensors and primitives only."""
        return {
            "metric_rows": [dict(row) for row in self._metric_rows],
            "update_rows": [
                {name: torch.from_numpy(np.asarray(value)) for name, value in row.items()}
                for row in self._update_rows
            ],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._metric_rows = [dict(row) for row in state_dict["metric_rows"]]
        self._update_rows = [
            {name: value.numpy() for name, value in row.items()} for row in state_dict["update_rows"]
        ]

    # ---- what is kept ------------------------------------------------------------------------------

    def _static_arrays(self, trainer: pl.Trainer, module: LabModule) -> Arrays:
        watched = {} if self._probe is None else self._probe.chosen
        probe_names = [name for name, indices in watched.items() for _ in indices]
        chosen = list(watched.values())
        labels = [
            module.objective.coordinate_labels(name, indices)
            for name, indices in self._sampled.indices.items()
        ]
        with trainer.precision_plugin.forward_context():  # sampled as in training
            probes = module.objective.prepare_probes(module.draw)
        return {
            **self._sampled.labels(),
            **{f"param_label/{key}": np.concatenate([each[key] for each in labels]) for key in labels[0]},
            "update_param/tensor": np.array(probe_names, dtype=np.str_),
            "update_param/flat_index": np.concatenate(chosen) if chosen else np.zeros(0, np.int64),
            **{f"probes/{name}": value for name, value in probes.items()},
        }

    def _record(self, trainer: pl.Trainer, module: LabModule) -> None:
        arrays: Arrays = {"step": np.array(module.step), "update": np.array(module.update)}
        arrays["effective_step"] = np.array(module.effective_step)
        arrays |= _prefixed("weights", self._sampled_weights(module))
        probes = {name[7:]: value for name, value in self._static.items() if name.startswith("probes/")}
        outputs = module.objective.observe(probes)
        if any(np.isnan(values).any() for values in outputs.values()):
            raise RunFailed(f"step {module.step}: the policy's outputs are not finite; {LOWER_THE_RATE}")
        arrays |= _prefixed("outputs", outputs)
        if outputs and module.optimizer_settings.momentum > 0 and _is_fine_grained(module):
            arrays |= _prefixed("outputs_momentum_free", self._observe_momentum_free(module, probes))
        if self.settings.evaluate:
            with module.evaluation_weights(), trainer.precision_plugin.forward_context():
                evaluation = module.objective.evaluate(module.draw)
            arrays |= _prefixed("evaluation", evaluation)
            judged = evaluation.get("correct", evaluation.get("pass_rate"))
            if judged is not None:
                self.pass_rate = float(np.nanmean(judged))
        arrays |= _prefixed("mechanism", module.objective.mechanism())
        arrays |= _prefixed("metrics", _columns(self._metric_rows))
        arrays |= _prefixed("updates", _stacked(self._update_rows))
        if self._writes:
            write_arrays(part_path(self.records, module.step), arrays)
            self._metrics_file.append(self._metric_rows)
            self._log(trainer)
        self._metric_rows, self._update_rows = [], []

    def _keep_checkpoint(self, module: LabModule) -> None:
        every = self.settings.checkpoint_every
        if every is None or module.step % every != 0:
            return
        state = module.objective.whole_state()
        if self._writes:
            write_checkpoint(self.directory, module.step, module.objective, self.settings.keep_last, state)

    def _sampled_weights(self, module: LabModule) -> Arrays:
        return self._sampled.read(
            lambda _, parameter: _moments(module, parameter),
            lambda name, parameter, moments: _displacement(module, name, parameter, moments),
        )

    def _observe_momentum_free(self, module: LabModule, probes: Mapping[str, np.ndarray]) -> Arrays:
        """Observe at the momentum-free position, then put the weights back exactly."""
        parameters = list(module.trained_parameters.values())
        kept = [parameter.detach().clone() for parameter in parameters]
        try:
            with torch.no_grad():
                for name, parameter in module.trained_parameters.items():
                    displacement = _displacement(module, name, parameter, _moments(module, parameter))
                    if displacement is not None:
                        parameter.add_(displacement)
            return module.objective.observe(probes)
        finally:
            with torch.no_grad():
                for parameter, value in zip(parameters, kept, strict=True):
                    parameter.copy_(value)

    def _log(self, trainer: pl.Trainer) -> None:
        for row in self._metric_rows:
            scalars = {name: value for name, value in row.items() if name != "step"}
            for logger in trainer.loggers:
                logger.log_metrics(scalars, step=int(row["step"]))
        if self.pass_rate is not None and self._metric_rows:
            for logger in trainer.loggers:
                logger.log_metrics({"pass_rate": self.pass_rate}, step=int(self._metric_rows[-1]["step"]))

    # ---- resuming ----------------------------------------------------------------------------------

    def _last_recorded_step(self, module: LabModule) -> int:
        """Steps whose metrics are in files: those before the rows that the checkpoint still carries."""
        if self._metric_rows:
            return int(self._metric_rows[0]["step"]) - 1
        return module.step

    def _save(self, trainer: pl.Trainer) -> None:
        target = self.directory / RESUME
        unfinished = target.with_suffix(".unfinished")
        trainer.save_checkpoint(unfinished)  # every process takes part; one writes
        if self._writes:
            sync(unfinished)
            os.replace(unfinished, target)


def _lab_module(module: pl.LightningModule) -> LabModule:
    assert isinstance(module, LabModule)
    return module


def _is_fine_grained(module: LabModule) -> bool:
    """Whether the weights can hold so small a displacement: in bfloat16 it would be rounded away."""
    return all(torch.finfo(value.dtype).eps < 1e-5 for value in module.trained_parameters.values())


def _moments(module: LabModule, parameter: torch.nn.Parameter) -> dict[str, Tensor]:
    """Return the optimiser's moments of one parameter; zeros before the first update."""
    state = module.torch_optimizer.state.get(parameter)
    if state:
        return module.optimizer_settings.moments(state)
    return {name: torch.zeros_like(parameter) for name in module.optimizer_settings.moment_names}


def _displacement(
    module: LabModule, name: str, parameter: torch.nn.Parameter, moments: Mapping[str, Tensor]
) -> Tensor | None:
    if module.optimizer_settings.momentum == 0:
        return None
    state = module.torch_optimizer.state.get(parameter)
    if not state:
        return torch.zeros_like(next(iter(moments.values())))
    # The optimiser's own count: its moments may have been reset since the run began.
    updates = int(state.get("step", module.update))
    displacement: Tensor = module.optimizer_settings.momentum_displacement(
        moments, module.learning_rate_of(name), updates
    )
    return displacement


def _prefixed(prefix: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def _columns(rows: list[dict[str, float]]) -> Arrays:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float64) for name in names}


def _stacked(rows: list[dict[str, np.ndarray]]) -> Arrays:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]} if rows else {}
