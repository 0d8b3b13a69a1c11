"""Our side of the GRPO benchmark: a real run under a real Lightning trainer, block by block.

`python -m lab.bench.lab_worker FILE` takes the path of a JSON file (see `lab.bench.grpo_step`). Besides
`go`, which is measured, it knows the modes `phases` (timers around our calls) and `operators` (torch.profiler:
operators on a CPU, kernels on a GPU, there with a trace of the steps for a browser's trace viewer).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from lab.bench.flops import Architecture, StepShape, decode_bytes, step_flops, step_flops_unshared
from lab.bench.matrix_rate import matrix_rate, memory_rate
from lab.bench.pace import Pace, claim_stdout
from lab.bench.phases import PhaseTimer
from lab.draw import Draw
from lab.module import LabModule
from lab.objectives import rlvr
from lab.policies.static_source import StaticSource
from lab.progress import TrainingProgress
from lab.provenance import provenance
from lab.trainer import build_trainer
from lab.training import build_objective, build_train_settings
from lab.trajectory.recorder import Recorder

_SQUARES = [(size, size, size) for size in (256, 512, 1024)]
_LARGE_SQUARES = [(size, size, size) for size in (2048, 4096, 8192)]  # it takes large ones to fill a GPU
_COPIED_BYTES = {"cpu": 2**28, "cuda": 2**30}
_OPERATORS_SHOWN = {"cpu": 12, "cuda": 20}
TRACE = "step_trace.json.gz"


class Measured(pl.Callback):
    """Paces a run and gathers what its blocks report.

    Args:
        module: trained.
        channel: where answers go.
        warmup: steps before the first block.
        on_gpu: whether the run is on a GPU, for which clocks have to wait.
        directory: where a trace goes.
    """

    def __init__(self, module: LabModule, channel: Any, warmup: int, on_gpu: bool, directory: Path) -> None:
        self._module = module
        self._kind = "cuda" if on_gpu else "cpu"
        self._settle = torch.cuda.synchronize if on_gpu else _nothing
        self._directory = directory
        self._metrics: list[dict[str, float]] = []
        self._phases: PhaseTimer | None = None
        self._profiler: Any = None
        self._batches: list[Any] = []
        ready = {"versions": provenance()["packages"], "threads": torch.get_num_threads()}
        self._pace = Pace(channel, warmup, ready, self._begin, self._end, self._settle)

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
            kinds = torch.profiler.ProfilerActivity
            self._profiler = torch.profiler.profile(
                activities=[kinds.CPU, kinds.CUDA] if self._kind == "cuda" else [kinds.CPU]
            )
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
            self._batches = []
        if self._profiler is not None:
            self._profiler.__exit__(None, None, None)
            found["operators"] = _operators(self._profiler, steps, self._kind)
            if self._kind == "cuda":
                found["kernels"] = _kernels(self._profiler, steps)
                self._profiler.export_chrome_trace(str(self._directory / TRACE))
            self._profiler = None
        return found

    def _watch(self) -> PhaseTimer:
        module = self._module
        timer = PhaseTimer(self._settle if self._kind == "cuda" else None)
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
        timer.watch(StaticSource, "start", "rollout: reading prompts")
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
        on_gpu = self._kind == "cuda"
        dtype = torch.bfloat16 if on_gpu else torch.float32
        how: dict[str, Any] = {"device": self._kind, "dtype": dtype}
        return {
            "decode_bytes": decode_bytes(architecture, shape, dtype.itemsize),
            "memory_bytes_per_second": memory_rate(_COPIED_BYTES[self._kind], device=self._kind),
            "flops": step_flops(architecture, shape),
            "flops_unshared": step_flops_unshared(architecture, shape),
            "shape": {
                "prompts": shape.prompts,
                "prompt_tokens": shape.prompt_tokens,
                "sampled": list(shape.sampled),
                "trained_prompts": shape.trained_prompts,
                "trained": list(shape.trained),
            },
            "matrix_flops_per_second": matrix_rate(_LARGE_SQUARES if on_gpu else _SQUARES, **how),
            "matrix_flops_per_second_model_shapes": matrix_rate(fitting, **how),
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


def _operators(profiler: Any, steps: int, kind: str) -> list[dict[str, Any]]:
    """Return what took most of the time: operators by their own processor time, or kernels of a GPU by theirs."""
    events = _kernel_events(profiler) if kind == "cuda" else list(profiler.key_averages())

    def microseconds(event: Any) -> float:
        return float(event.self_device_time_total if kind == "cuda" else event.self_cpu_time_total)

    total = sum(map(microseconds, events))
    return [
        {
            "operator": event.key,
            "calls_per_step": event.count / steps,
            "self_ms_per_step": microseconds(event) / 1e3 / steps,
            "share": microseconds(event) / total,
        }
        for event in sorted(events, key=microseconds, reverse=True)[: _OPERATORS_SHOWN[kind]]
    ]


def _kernels(profiler: Any, steps: int) -> dict[str, float]:
    """Return how many kernels a step ran, and for how long the GPU was at work on them."""
    events = _kernel_events(profiler)
    return {
        "kernels_per_step": sum(event.count for event in events) / steps,
        "busy_ms_per_step": sum(event.self_device_time_total for event in events) / 1e3 / steps,
    }


def _kernel_events(profiler: Any) -> list[Any]:
    return [event for event in profiler.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]


def _nothing() -> None:
    pass


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
    on_gpu = settings.trainer.accelerator == "gpu"
    # Last, so that it sees the others' time.
    callbacks.append(Measured(module, channel, given["warmup"], on_gpu, directory))
    build_trainer(settings.trainer, loggers, callbacks, directory).fit(module)


if __name__ == "__main__":
    main(sys.argv[1])
