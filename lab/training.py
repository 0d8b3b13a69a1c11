"""One training run, from settings to a finished run directory; the same for every objective."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import BadInput
from lab.files import require_free_space
from lab.objectives import OBJECTIVES, ObjectiveSettings, RLVRSettings, build_objective_settings
from lab.objectives.settings import EvaluationSettings, GenerationSettings, ProbeSettings
from lab.optimizers import OptimizerSettings, build_optimizer_settings
from lab.policies import PolicySettings, build_policy_settings, load_policy
from lab.policies.settings import ScratchSettings
from lab.process import peak_memory_mb
from lab.runs import Run
from lab.settings import build, whole_number
from lab.tasks import Task, build_task
from lab.trainer import LoggerSettings, TrainerSettings, build_logger_settings, build_trainer
from lab.trajectory.settings import RecorderSettings

if TYPE_CHECKING:
    import xarray as xr

    from lab.module import LabModule
    from lab.objectives.objective import Objective
    from lab.trajectory.recorder import Recorder

_BYTES_PER_RECORD = 4 * 1024**2


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides what a training run computes."""

    seed: int
    steps: int
    twin: bool
    policy: PolicySettings
    task: Task
    objective: ObjectiveSettings
    optimizer: OptimizerSettings
    generation: GenerationSettings
    evaluation: EvaluationSettings
    probes: ProbeSettings
    recorder: RecorderSettings
    trainer: TrainerSettings
    logger: LoggerSettings


GROUPS = (
    "policy",
    "task",
    "objective",
    "optimizer",
    "generation",
    "evaluation",
    "probes",
    "recorder",
    "trainer",
    "logger",
)
"""Configuration groups that a training run reads, besides `seed`, `steps` and `twin`."""


def build_train_settings(config: Mapping[str, Any], objective_key: str = "objective") -> TrainSettings:
    """Build and cross-check the settings of a run from its resolved configuration. No torch is needed.

    Args:
        config: the resolved configuration.
        objective_key: what the person who wrote it calls the objective, for messages.

    Raises:
        BadInput: a key that no code reads, or an impossible value, named by its full key.
    """
    if not isinstance(config["twin"], bool):
        raise BadInput(f"twin: expected true or false, got {config['twin']!r}")
    settings = TrainSettings(
        seed=whole_number(config["seed"], "seed", least=0),
        steps=whole_number(config["steps"], "steps", least=1),
        twin=config["twin"],
        policy=build_policy_settings(config["policy"]),
        task=build_task(config["task"]),
        objective=build_objective_settings(config["objective"], objective_key),
        optimizer=build_optimizer_settings(config["optimizer"]),
        generation=build(GenerationSettings, config["generation"], "generation"),
        evaluation=build(EvaluationSettings, config["evaluation"], "evaluation"),
        probes=build(ProbeSettings, config["probes"], "probes"),
        recorder=build(RecorderSettings, config["recorder"], "recorder"),
        trainer=build(TrainerSettings, config["trainer"], "trainer"),
        logger=build_logger_settings(config["logger"]),
    )
    if isinstance(settings.policy, ScratchSettings):
        context = settings.policy.context
        if settings.generation.max_new_tokens >= context:
            raise BadInput(
                f"generation.max_new_tokens: {settings.generation.max_new_tokens} does not fit policy.context="
                f"{context}"
            )
    _check_shares(settings)
    return as_twin(settings) if settings.twin else settings


def _check_shares(settings: TrainSettings) -> None:
    """Refuse a step that cannot be split evenly among its updates and processes."""
    objective, devices = settings.objective, settings.trainer.devices
    if isinstance(objective, RLVRSettings):
        key, count, parts = "prompts", objective.prompts, objective.updates_per_step * devices
    else:
        key, count, parts = "examples", objective.examples, devices
    if count % parts:
        raise BadInput(
            f"objective.{key}: {count} cannot be split evenly {parts} ways (updates x trainer.devices)"
        )


def as_twin(settings: TrainSettings) -> TrainSettings:
    """Return the pure-noise twin: the same noise, no signal, and no weight decay (decay makes drift).

    Raises:
        BadInput: more than one update a step (clipping on a second one makes drift).
    """
    objective = settings.objective
    if isinstance(objective, RLVRSettings):
        if objective.updates_per_step > 1:
            raise BadInput(
                "twin: needs objective.updates_per_step=1, clipping on a second update makes drift"
            )
        twin: ObjectiveSettings = replace(objective, permute_advantages=True, kl_coefficient=0.0)
    else:
        noise = replace(objective.sign_noise, signal_amplitude=0.0)
        if noise.noise_amplitude == 0:
            noise = replace(noise, noise_amplitude=1.0)
        twin = replace(objective, sign_noise=noise)
    return replace(settings, objective=twin, optimizer=replace(settings.optimizer, weight_decay=0.0))


def build_objective(settings: TrainSettings) -> Objective:
    """Load the policy and build the objective.

    Raises:
        BadInput: the policy cannot be loaded or does not fit the task.
    """
    module, name = OBJECTIVES[settings.objective.name][1].split(":")
    objective: Objective = getattr(import_module(module), name)(
        settings.objective,
        load_policy(settings.policy, settings.seed),
        settings.task,
        settings.generation,
        settings.evaluation,
        settings.probes,
    )
    return objective


def train(settings: TrainSettings, run: Run, title: str) -> dict[str, Any]:
    """Train, record, store and summarise one run; resume it where it was left.

    Args:
        settings: what to train.
        run: the run directory, held by this process.
        title: what the progress bar says.

    Returns:
        the summary that was written: pass rate at start and end, steps, wall-clock, peak memory.

    Raises:
        BadInput: something cannot be loaded, or the disk is too small.
        RunFailed: NaN or infinite loss; the last good checkpoint is kept.
        Interrupted: SIGTERM or Ctrl-C; saved, to be resumed.
    """
    import torch

    from lab.provenance import provenance
    from lab.ranks import other_ranks
    from lab.trajectory.recorder import RECORDS
    from lab.trajectory.store import FILE_NAME, merge, write_store

    started = time.perf_counter()
    with other_ranks(run, settings.trainer.devices):
        module = fit(settings, run, title)
    objective = module.objective
    attributes = {
        **provenance(),
        "config": run.config,
        "seed": settings.seed,
        "seeds_by_role": "one root seed; every role draws from its own counter-based stream",
        "source_dtype": str(next(iter(objective.trainable().values())).dtype).removeprefix("torch."),
        "storage_dtype": "float32",
        "arithmetic_dtype": settings.trainer.precision,
        "momentum": settings.optimizer.momentum,
        "updates_per_step": objective.updates_per_step,
        "twin": settings.twin,
        "torch_threads": torch.get_num_threads(),
    }
    tree = merge(run.path / RECORDS, attributes)
    write_store(tree, run.path / FILE_NAME)
    pass_rate = _pass_rates(tree)
    summary = {
        "objective": settings.objective.name,
        "twin": settings.twin,
        "steps": module.step,
        "updates": module.update,
        "pass_rate": {"start": pass_rate[0], "end": pass_rate[-1]} if pass_rate else None,
        "wall_clock_s": time.perf_counter() - started,
        "peak_rss_mb": peak_memory_mb(),
        "result": _result_line(settings, pass_rate),
    }
    run.write_summary(summary)
    run.finish()
    return summary


def fit(settings: TrainSettings, run: Run, title: str) -> LabModule:
    """Train one run, or this process's share of it, recording into the run directory; see `train`.

    Raises:
        BadInput, RunFailed, Interrupted: see `train`.
    """
    from pytorch_lightning import seed_everything

    from lab.draw import Draw
    from lab.module import LabModule
    from lab.progress import TrainingProgress
    from lab.stopping import stop_after_step
    from lab.trajectory.recorder import RESUME, Recorder

    seed_everything(settings.seed % 2**32, verbose=False)
    objective = build_objective(settings)
    draw = Draw(settings.seed)
    objective.check(draw)
    _require_space(settings, objective, run)
    module = LabModule(objective, settings.optimizer, draw, settings.steps)
    with stop_after_step() as stop:
        recorder = Recorder(settings.recorder, run.path, stop)
        checkpoint = run.path / RESUME
        if checkpoint.exists():
            _restore(module, recorder, checkpoint)
        if module.step < settings.steps:
            trainer = build_trainer(
                settings.trainer,
                settings.logger.build(run.path, module.step),
                [recorder, TrainingProgress(title, recorder)],
                run.path,
            )
            trainer.fit(module)
    return module


def _recorded_points(settings: TrainSettings) -> int:
    return 1 + -(-settings.steps // settings.recorder.every)


def _require_space(settings: TrainSettings, objective: Objective, run: Run) -> None:
    """Refuse a run whose records, full checkpoints and file to resume from would not fit on the disk."""
    weights = sum(value.numel() * value.element_size() for value in objective.trainable().values())
    every, keep = settings.recorder.checkpoint_every, settings.recorder.keep_last
    checkpoints = settings.steps // every + 1 if every else 0
    if keep is not None:
        checkpoints = min(checkpoints, keep + 2)  # step 0, and the newest before the oldest goes
    resume = 2 * 3 * weights  # weights and two moments, the new file beside the old one
    needed = (_recorded_points(settings) + 1) * _BYTES_PER_RECORD + checkpoints * weights + resume
    require_free_space(run.path, needed, "this run")


def estimate(settings: TrainSettings) -> dict[str, Any]:
    """Return what a run would do and need, without running it."""
    recorded = _recorded_points(settings)
    rollouts = (
        settings.objective.prompts * settings.objective.rollouts
        if isinstance(settings.objective, RLVRSettings)
        else 0
    )
    return {
        "steps": settings.steps,
        "rollouts": rollouts * settings.steps,
        "recorded_points": recorded,
        "disk_mb_of_records_at_most": (recorded + 1) * _BYTES_PER_RECORD / 1024**2,
    }


def _pass_rates(tree: xr.DataTree) -> list[float]:
    from lab.trajectory.store import group

    if "evaluation" not in tree.children:
        return []
    return [float(value) for value in group(tree, "evaluation")["pass_rate"]]


def _restore(module: LabModule, recorder: Recorder, path: Path) -> None:
    import pickle

    import torch

    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        module.restore(saved)
        recorder.load_state_dict(saved["callbacks"][recorder.state_key])
    except (
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(
            f"{path}: not a checkpoint of this run ({line}); delete it to start the run anew"
        ) from error


def _result_line(settings: TrainSettings, pass_rate: list[float]) -> str:
    kind = f"{settings.objective.name}{' twin' if settings.twin else ''}"
    if not pass_rate:
        return f"{kind}: {settings.steps} steps"
    return f"{kind}: {settings.steps} steps, held-out pass rate {pass_rate[0]:.3f} -> {pass_rate[-1]:.3f}"
