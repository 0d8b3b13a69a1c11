"""Our side of the GRPO benchmark: a real run under a real Lightning trainer, block by block.

`python -m lab.bench.lab_worker FILE` takes the path of a JSON file (see `lab.bench.grpo_step`). Besides
`go`, which is measured, it knows the modes `phases` (timers around our calls) and `operators` (torch.profiler).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from lab.bench.flops import Architecture, StepShape, step_flops, step_flops_unshared
from lab.bench.matrix_rate import matrix_rate
from lab.bench.pace import Pace, claim_stdout
from lab.bench.phases import PhaseTimer
from lab.draw import Draw
from lab.module import LabModule
from lab.objectives import rlvr
from lab.progress import TrainingProgress
from lab.provenance import provenance
from lab.trainer import build_trainer
from lab.training import build_objective, build_train_settings
from lab.trajectory.recorder import Recorder

_SQUARES = [(size, size, size) for size in (256, 512, 1024)]
_OPERATORS_SHOWN = 12


class Measured(pl.Callback):
    """Paces a run and gathers what its blocks report.

    Args:
        module: trained.
        channel: where answers go.
        warmup: steps before the first block.
    """

    def __init__(self, module: LabModule, channel: Any, warmup: int) -> None:
        self._module = module
        self._metrics: list[dict[str, float]] = []
        self._phases: PhaseTimer | None = None
        self._profiler: Any = None
        self._batches: list[Any] = []
        ready = {"versions": provenance()["packages"], "threads": torch.get_num_threads()}
        self._pace = Pace(channel, warmup, ready, self._begin, self._end)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._metrics.append(self._module.last_metrics)
        self._pace.step_done()

    def _begin(self, mode: str) -> None:
        self._metrics = []
        if mode == "phases":
            self._phases = self._watch()
        elif mode == "operators":
            self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
            self._profiler.__enter__()

    def _end(self, mode: str, steps: int) -> dict[str, Any]:
        found: dict[str, Any] = {
            "reward": float(np.mean([row["reward"] for row in self._metrics])),
            "length": float(np.mean([row["completions/mean_length"] for row in self._metrics])),
        }
        if self._phases is not None:
            self._phases.release()
            found["phases"] = {name: seconds / steps for name, seconds in self._phases.seconds.items()}
            found |= self._floor()
            self._phases = None
        if self._profiler is not None:
            self._profiler.__exit__(None, None, None)
            found["operators"] = _operators(self._profiler, steps)
            self._profiler = None
        return found

    def _watch(self) -> PhaseTimer:
        module, timer = self._module, PhaseTimer()
        objective: Any = module.objective
        self._batches = []
        collect = objective.collect

        def keep(step: int, draw: Draw) -> Any:
            self._batches.append(collect(step, draw))
            return self._batches[-1]

        objective.collect = keep
        timer.watch(module, "training_step", "rest of our step")
        timer.watch(objective, "collect", "rewards, advantages, metrics")
        timer.watch(objective.task, "draw", "drawing problems")
        timer.watch(objective.policy, "encode", "encoding prompts")
        timer.watch(objective, "sample", "rollout")
        timer.watch(objective.policy, "decode", "decoding text")
        timer.watch(rlvr, "verify_completions", "verification")
        timer.watch(objective, "losses", "loss forward")
        timer.watch(module, "manual_backward", "backward")
        timer.watch(module, "_clip", "gradient norm and clipping")
        timer.watch(module.torch_optimizer, "step", "optimiser")
        return timer

    def _floor(self) -> dict[str, Any]:
        """Count the operations of the steps just done, and measure what the machine could do."""
        objective: Any = self._module.objective
        del objective.collect  # the instance's own, which kept the batches
        architecture = Architecture.of(objective.policy.model.config)
        shape = _shape(self._batches)
        width = architecture.width
        rows = round(shape.sampled[0])
        fitting = [(rows, width, architecture.mlp_width), (rows * 4, width, architecture.mlp_width)]
        return {
            "flops": step_flops(architecture, shape),
            "flops_unshared": step_flops_unshared(architecture, shape),
            "shape": {
                "prompts": shape.prompts,
                "prompt_tokens": shape.prompt_tokens,
                "sampled": list(shape.sampled),
                "trained_prompts": shape.trained_prompts,
                "trained": list(shape.trained),
            },
            "matrix_flops_per_second": matrix_rate(_SQUARES),
            "matrix_flops_per_second_model_shapes": matrix_rate(fitting),
        }


def _shape(batches: list[Any]) -> StepShape:
    longest = max(batch.rollouts.mask.shape[1] for batch in batches)
    sampled, trained = np.zeros(longest), np.zeros(longest)
    trained_prompts = 0.0
    for batch in batches:
        mask = batch.rollouts.mask
        signal = batch.advantages != 0
        group = len(mask) // len(batch.prompts.ids)
        sampled[: mask.shape[1]] += mask.sum(0).cpu().numpy()
        trained[: mask.shape[1]] += mask[signal].sum(0).cpu().numpy()
        trained_prompts += float(signal.view(-1, group).any(1).sum())
    count = len(batches)
    return StepShape(
        prompts=float(np.mean([len(batch.prompts.ids) for batch in batches])),
        prompt_tokens=float(np.mean([float(batch.prompts.lengths.float().mean()) for batch in batches])),
        sampled=(sampled / count).tolist(),
        trained_prompts=trained_prompts / count,
        trained=(trained / count).tolist(),
    )


def _operators(profiler: Any, steps: int) -> list[dict[str, Any]]:
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [
        {
            "operator": event.key,
            "calls_per_step": event.count / steps,
            "self_ms_per_step": event.self_cpu_time_total / 1e3 / steps,
            "share": event.self_cpu_time_total / total,
        }
        for event in events[:_OPERATORS_SHOWN]
    ]


def main(path: str) -> None:
    """Train as the file says, block by block as the parent asks."""
    channel = claim_stdout()
    given = json.loads(Path(path).read_text(encoding="utf-8"))
    torch.set_num_threads(given["threads"])
    directory = Path(given["directory"])
    settings = build_train_settings(given["config"])
    pl.seed_everything(settings.seed, verbose=False)
    module = LabModule(build_objective(settings), settings.optimizer, Draw(settings.seed), settings.steps)
    callbacks: list[pl.Callback] = []
    loggers: list[Any] = []
    if given["recorder"]:
        recorder = Recorder(settings.recorder, directory)
        callbacks = [recorder, TrainingProgress("bench", recorder)]
        loggers = settings.logger.build(directory, 0)
    callbacks.append(Measured(module, channel, given["warmup"]))  # last, so that it sees the others' time
    build_trainer(settings.trainer, loggers, callbacks, directory).fit(module)


if __name__ == "__main__":
    main(sys.argv[1])
