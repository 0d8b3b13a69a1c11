"""One training run, from settings to a finished run directory; the same for every objective."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.errors import BadInput
from lab.files import require_free_space
from lab.follow_up.settings import FollowUpSettings, build_follow_up_settings
from lab.memory import naming_what_to_lower
from lab.objectives import OBJECTIVES, ObjectiveSettings, SyntheticSettings, build_objective_settings
from lab.objectives.settings import EvaluationSettings, GenerationSettings, ProbeSettings
from lab.objectives.synthetic_settings import build_cells
from lab.optimizers import OptimizerSettings, build_optimizer_settings
from lab.policies import PolicySettings, build_policy_settings, load_policy
from lab.policies.settings import ScratchSettings
from lab.process import gpu_use, peak_memory_mb
from lab.regrounding.settings import RegroundingSettings, build_regrounding_settings
from lab.runs import Run
from lab.settings import Invalid, build, whole_number
from lab.stopping import TimeLimit
from lab.tasks import Task, build_task
from lab.trainer import LoggerSettings, TrainerSettings, build_logger_settings, build_trainer
from lab.trajectory.settings import RecorderSettings

if TYPE_CHECKING:
    import pytorch_lightning as pl
    import xarray as xr

    from lab.module import LabModule
    from lab.objectives.objective import Objective

_BYTES_PER_RECORD = 4 * 1024**2
_BYTES_OF_LIBRARIES = 700 * 1024**2  # Python, torch and all else, before the first number of a run

_LONGEST_BATCH = 20  # steps of a synthetic run between two looks at whether to stop

NONE = "none"
"""Option of the groups `policy` and `task` that synthetic objectives choose."""
_LANGUAGE_MODEL_GROUPS = ("policy", "task", "generation", "evaluation", "probes")


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides what a training run computes; what a synthetic objective has no use for is None."""

    seed: int
    steps: int
    twin: bool
    policy: PolicySettings | None
    task: Task | None
    objective: ObjectiveSettings
    optimizer: OptimizerSettings
    generation: GenerationSettings | None
    evaluation: EvaluationSettings | None
    probes: ProbeSettings | None
    recorder: RecorderSettings
    trainer: TrainerSettings
    logger: LoggerSettings
    regrounding: RegroundingSettings
    follow_up: FollowUpSettings | None
    """What is done with the run once it is trained; None where nothing is."""


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
    objective = build_objective_settings(config["objective"], objective_key)
    groups = _language_model_groups if objective.trains_language_model else _no_language_model
    settings = TrainSettings(
        seed=whole_number(config["seed"], "seed", least=0),
        steps=whole_number(config["steps"], "steps", least=1),
        twin=config["twin"],
        objective=objective,
        optimizer=build_optimizer_settings(config["optimizer"]),
        recorder=build(RecorderSettings, config["recorder"], "recorder"),
        trainer=build(TrainerSettings, config["trainer"], "trainer"),
        logger=build_logger_settings(config["logger"]),
        regrounding=build_regrounding_settings(config.get("regrounding", {"name": NONE})),
        follow_up=build_follow_up_settings(config.get("follow_up")),
        **groups(config, objective.name),
    )
    if isinstance(settings.policy, ScratchSettings) and settings.generation is not None:
        context = settings.policy.context
        if settings.generation.max_new_tokens >= context:
            raise BadInput(
                f"generation.max_new_tokens: {settings.generation.max_new_tokens} does not fit policy.context="
                f"{context}"
            )
    if isinstance(objective, SyntheticSettings):
        _check_synthetic(settings)
    if settings.trainer.strategy == "fsdp" and settings.regrounding.name != NONE:
        raise BadInput(
            f"regrounding={settings.regrounding.name}: it moves whole weights, which trainer.strategy=fsdp cuts up; "
            "set trainer.strategy=ddp"
        )
    if settings.follow_up is not None:
        settings.follow_up.check(settings)
    try:
        objective.check_processes(settings.trainer.devices)
    except Invalid as error:
        raise BadInput(f"objective.{error.field}: {error.message}") from None
    return as_twin(settings) if settings.twin else settings


def _language_model_groups(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Build the groups that only an objective over a language model reads."""
    for key in _LANGUAGE_MODEL_GROUPS:
        node = config[key]
        if node is None or (isinstance(node, Mapping) and node.get("name") == NONE):
            raise BadInput(
                f"{key}: objective={name} trains a language model and needs one; choose another option"
            )
    return {
        "policy": build_policy_settings(config["policy"]),
        "task": build_task(config["task"]),
        "generation": build(GenerationSettings, config["generation"], "generation"),
        "evaluation": build(EvaluationSettings, config["evaluation"], "evaluation"),
        "probes": build(ProbeSettings, config["probes"], "probes"),
    }


def _no_language_model(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Refuse the groups that a synthetic objective does not read."""
    for key in _LANGUAGE_MODEL_GROUPS:
        node = config[key]
        if node is not None and node != {"name": NONE}:
            raise BadInput(
                f"{key}: objective={name} has no language model, so no code reads this; leave it out"
            )
    return dict.fromkeys(_LANGUAGE_MODEL_GROUPS)


def _check_synthetic(settings: TrainSettings) -> None:
    """Refuse what would couple the replicates of a synthetic run, or would not be read."""
    if settings.optimizer.clip_norm is not None:
        raise BadInput(
            "optimizer.clip_norm: the norm over all replicates would couple independent runs; set it to null"
        )
    if settings.trainer.strategy != "auto":
        raise BadInput("trainer.strategy: a synthetic run is one process; leave it at auto")
    if settings.trainer.precision != "32-true":
        raise BadInput("trainer.precision: a synthetic run is computed in float32; leave it at 32-true")
    if settings.recorder.checkpoint_every is not None:
        raise BadInput("recorder.checkpoint_every: a synthetic run has no model to save; set it to null")
    coupling = settings.regrounding.couples_replicates
    if coupling is not None:
        raise BadInput(
            f"regrounding.{coupling}: what decides over all replicates at once would couple independent runs; "
            + ("choose fixed or decaying" if coupling == "name" else "set it to null")
        )


def as_twin(settings: TrainSettings) -> TrainSettings:
    """Return the pure-noise twin: the same noise, no signal, and no weight decay (decay makes drift).

    Raises:
        BadInput: a setting that leaves the twin a drift.
    """
    try:
        twin = settings.objective.twin()
    except Invalid as error:
        raise BadInput(str(error)) from None
    return replace(settings, objective=twin, optimizer=replace(settings.optimizer, weight_decay=0.0))


def build_objective(settings: TrainSettings) -> Objective:
    """Build the objective, with the policy loaded where it trains one.

    Raises:
        BadInput: the policy cannot be loaded or does not fit the task.
    """
    module, name = OBJECTIVES[settings.objective.name][1].split(":")
    make = getattr(import_module(module), name)
    objective: Objective
    if settings.policy is None:
        objective = make(settings.objective, settings.seed)
    else:
        objective = make(
            settings.objective,
            load_policy(settings.policy, settings.seed),
            settings.task,
            settings.generation,
            settings.evaluation,
            settings.probes,
        )
    return objective


def train(
    settings: TrainSettings, run: Run, title: str, time_limit: TimeLimit | None = None
) -> dict[str, Any]:
    """Train, record, store and summarise one run, and do what follows on it; resume it where it was left.

    Args:
        settings: what to train.
        run: the run directory, held by this process.
        title: what the progress bar says.
        time_limit: of this process; None for none.

    Returns:
        the summary that was written: pass rate at start and end, steps, wall-clock, peak memory, and what followed.

    Raises:
        BadInput: something cannot be loaded, or the disk is too small.
        RunFailed: NaN or infinite loss, or out of memory; the last good checkpoint is kept.
        Interrupted: SIGTERM, Ctrl-C or the time limit; saved, to be resumed.
    """
    time_limit = time_limit or TimeLimit()
    with naming_what_to_lower(settings):
        if settings.follow_up is None:
            summary = _train(settings, run, title, time_limit)
        else:
            from lab.follow_up.follow_up import Trained
            from lab.follow_up.pieces import Pieces
            from lab.follow_up.run import follow_up

            pieces = Pieces(run.path / "follow_up", time_limit)
            trained = pieces.get("training", lambda: _train(settings, run, title, time_limit))
            gc.collect()  # module and trainer hold each other, and with them weights and moments
            summary = follow_up(Trained(settings, run.path, pieces), trained)
    run.write_summary(summary)
    run.finish()
    return summary


def _train(settings: TrainSettings, run: Run, title: str, time_limit: TimeLimit) -> dict[str, Any]:
    """Train what is left, write the store, and return the summary; see `train`."""
    import torch

    from lab.provenance import provenance
    from lab.ranks import other_ranks
    from lab.trajectory.recorder import RECORDS
    from lab.trajectory.store import FILE_NAME, merge, write_store

    started = time.perf_counter()
    with other_ranks(run, settings.trainer.devices):
        module = fit(settings, run, title, time_limit)
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
    return {
        "objective": settings.objective.name,
        "twin": settings.twin,
        "steps": module.step,
        "updates": module.update,
        "pass_rate": {"start": pass_rate[0], "end": pass_rate[-1]} if pass_rate else None,
        **_jumps(module, tree),
        **_cells(settings, tree),
        "wall_clock_s": time.perf_counter() - started,
        "peak_rss_mb": peak_memory_mb(),
        **gpu_use(),
        "result": _result_line(settings, pass_rate),
    }


def fit(settings: TrainSettings, run: Run, title: str, time_limit: TimeLimit | None = None) -> LabModule:
    """Train one run, or this process's share of it, recording into the run directory; see `train`.

    Raises:
        BadInput, RunFailed, Interrupted: see `train`.
    """
    from pytorch_lightning import seed_everything

    from lab.draw import Draw
    from lab.module import LabModule
    from lab.progress import TrainingProgress
    from lab.regrounding.callback import build_callback
    from lab.stopping import stop_after_step
    from lab.trajectory.recorder import RESUME, Recorder

    seed_everything(settings.seed % 2**32, verbose=False)
    objective = build_objective(settings)
    draw = Draw(settings.seed)
    objective.check(draw)
    _require_space(settings, objective, run)
    module = LabModule(objective, settings.optimizer, draw, settings.steps, _steps_per_batch(settings))
    over = time_limit or TimeLimit()
    with stop_after_step() as stop:
        recorder = Recorder(settings.recorder, run.path, lambda: stop() or over())
        regrounding = build_callback(settings.regrounding, module)
        # Re-grounding first: the recorder sees, and saves, the weights after a jump.
        kept = [recorder] if regrounding is None else [regrounding, recorder]
        checkpoint = run.path / RESUME
        if checkpoint.exists():
            _restore(module, kept, checkpoint)
        if module.step < settings.steps:
            trainer = build_trainer(
                settings.trainer,
                settings.logger.build(run.path, module.step),
                [*kept, TrainingProgress(title, recorder)],
                run.path,
            )
            trainer.fit(module)
    return module


def _steps_per_batch(settings: TrainSettings) -> int:
    """Return how many steps go into one of Lightning's batches: those between things that callbacks do."""
    if settings.objective.trains_language_model:
        return 1
    common = math.gcd(settings.recorder.every, settings.recorder.save_every, settings.regrounding.period)
    return max(size for size in range(1, _LONGEST_BATCH + 1) if common % size == 0)


def _recorded_points(settings: TrainSettings) -> int:
    return 1 + -(-settings.steps // settings.recorder.every)


def _require_space(settings: TrainSettings, objective: Objective, run: Run) -> None:
    """Refuse a run whose records, full checkpoints and file to resume from would not fit on the disk."""
    weights = sum(value.numel() * value.element_size() for value in objective.trainable().values())
    every, keep = settings.recorder.checkpoint_every, settings.recorder.keep_last
    checkpoints = settings.steps // every + 1 if every else 0
    if keep is not None:
        checkpoints = min(checkpoints, keep + 2)  # step 0, and the newest before the oldest goes
    copies = 3 + settings.regrounding.copies_of_weights
    resume = (
        2 * copies * weights
    )  # with two moments and what re-grounding keeps; the new file beside the old one
    if settings.follow_up is not None and settings.follow_up.extrapolation is not None:
        checkpoints += 1  # an extrapolated model, while it is evaluated
    needed = (_recorded_points(settings) + 1) * _bytes_per_record(settings) + checkpoints * weights + resume
    require_free_space(run.path, needed, "this run")


def estimate(settings: TrainSettings) -> dict[str, Any]:
    """Return what a run would do and need, without running it."""
    recorded = _recorded_points(settings)
    found = {
        "steps": settings.steps,
        "rollouts": settings.objective.rollouts_per_step * settings.steps,
        "recorded_points": recorded,
        "disk_mb_of_records_at_most": (recorded + 1) * _bytes_per_record(settings) / 1024**2,
    }
    if isinstance(settings.objective, SyntheticSettings):
        found["memory_mb_at_most"] = synthetic_memory(settings) / 1024**2
    if settings.follow_up is not None and settings.follow_up.extrapolation is not None:
        found["follow_up_completions_at_most"] = settings.follow_up.extrapolation.completions
    return found


def _kinds_recorded(settings: TrainSettings) -> int:
    """How many numbers the recorder keeps of a coordinate: weight, moments, momentum-free position."""
    optimizer = settings.optimizer
    return 1 + len(optimizer.moment_names) + (optimizer.momentum > 0)


def _bytes_per_record(settings: TrainSettings) -> int:
    if not isinstance(settings.objective, SyntheticSettings):
        return _BYTES_PER_RECORD
    # Twice: the small files stay beside the store that they are merged to.
    return _BYTES_PER_RECORD + 2 * 4 * settings.objective.parameters * _kinds_recorded(settings)


def synthetic_memory(settings: TrainSettings) -> int:
    """Return a bound on the resident bytes of a synthetic run.

    While it runs: weights, gradients, moments, and one recorded point with its copy on the way to the file. At the end:
    all recorded points with one copy, and the points of a cell's weights in double precision, four times.
    """
    objective = settings.objective
    assert isinstance(objective, SyntheticSettings)
    numbers, kinds = objective.parameters, _kinds_recorded(settings)
    running = 4 * numbers * (2 + len(settings.optimizer.moment_names) + 3 * kinds)
    points = _recorded_points(settings)
    of_a_cell = numbers // max(len(objective.cells), 1)
    at_the_end = points * (2 * 4 * numbers * kinds + 4 * 8 * of_a_cell)
    return _BYTES_OF_LIBRARIES + max(running, at_the_end)


def _pass_rates(tree: xr.DataTree) -> list[float]:
    from lab.trajectory.store import group

    if "evaluation" not in tree.children:
        return []
    return [float(value) for value in group(tree, "evaluation")["pass_rate"]]


def _jumps(module: LabModule, tree: xr.DataTree) -> dict[str, Any]:
    """Return the summary key `regrounding` of a run that re-grounds: what it gained and what the checks cost."""
    from lab.trajectory.store import group

    prefix = "regrounding__"
    metrics = group(tree, "metrics")
    columns = {
        str(name).removeprefix(prefix): metrics[name].values[~np.isnan(metrics[name].values)]
        for name in metrics.data_vars
        if str(name).startswith(prefix)
    }
    if not columns:
        return {}
    accepted = columns.get("accepted", np.zeros(0))
    costs = ("check_rollouts", "check_tokens")
    totals = {name: float(columns[name].sum()) for name in costs if name in columns}
    return {
        "regrounding": {
            "effective_steps": module.effective_step,
            "blocks": len(columns["jump_steps"]),
            "accepted": int(accepted.sum()),
            "taken_back": int(len(accepted) - accepted.sum()),
            **totals,
        }
    }


def _cells(settings: TrainSettings, tree: xr.DataTree) -> dict[str, Any]:
    """Return the summary key `cells` of a synthetic run."""
    if not isinstance(settings.objective, SyntheticSettings):
        return {}
    from lab.cell_summary import summarise_cells

    cells = build_cells(settings.objective)
    return {"cells": summarise_cells(tree, cells, settings.optimizer.learning_rate)}


def _restore(module: LabModule, callbacks: Sequence[pl.Callback], path: Path) -> None:
    import pickle

    import torch

    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        module.restore(saved)
        for callback in callbacks:
            callback.load_state_dict(saved["callbacks"][callback.state_key])
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
