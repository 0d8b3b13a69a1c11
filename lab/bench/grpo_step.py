"""Seconds of one GRPO step of a language model, beside TRL's GRPOTrainer.

Three processes live as long as the benchmark: ours with the recorder off, TRL's, and (if asked for) ours with the
default recorder, progress bar and logger. In each round every one of them does a block of steps, one after the other,
and each round starts with the next process, so that a machine that slows down slows all of them. The ratio is
the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lab.bench.grpo_step_report import result_line
from lab.bench.intervals import ratio_interval
from lab.bench.machine import machine
from lab.bench.peers import peer_python
from lab.bench.settings import BenchSettings
from lab.bench.worker import Worker
from lab.composition import compose
from lab.draw import Draw
from lab.files import write_json
from lab.objectives.settings import RLVRSettings
from lab.optimizers import AdamWSettings
from lab.provenance import code_version
from lab.runs import Run
from lab.training import TrainSettings, build_train_settings

LAB, TRL, RECORDED = "lab", "trl", "lab_recorded"
_TASKS = {"tiny": "addition", "smollm2": "word_problems"}
Answers = dict[str, list[dict[str, Any]]]

_HERE = Path(__file__).resolve().parent


def run(settings: BenchSettings, held: Run, seed: int, threads: int) -> dict[str, Any]:
    """Measure and return the summary.

    Raises:
        BadInput: the peers' environment is missing.
        RunFailed: a worker died.
    """
    python = peer_python(settings.peers, settings.install_peers)
    config = training_config(settings, seed)
    commands = prepare(settings, config, held.path, threads, python)
    answers: Answers = {name: [] for name in commands}
    with ExitStack() as stack, _progress() as progress:
        task = progress.add_task("starting and warming up", total=settings.blocks + 1)
        workers = {
            name: stack.enter_context(Worker(name, command, environment, held.path / f"{name}.log"))
            for name, (command, environment) in commands.items()
        }
        ready = {name: worker.wait_ready() for name, worker in workers.items()}
        for block in range(settings.blocks):
            progress.update(task, description="measuring", completed=block)
            for name in turns(list(workers), block):
                answers[name].append(workers[name].ask("go", settings.steps_per_block))
        progress.update(task, description="profiling", completed=settings.blocks)
        phases = workers[LAB].ask("phases", settings.profile_steps)
        profiled = workers[LAB].ask("operators", settings.profile_steps)
    clock = "wall" if settings.trainer == "gpu" else "cpu"
    summary = {
        "what": settings.what,
        **compare(answers, settings.prompts * settings.rollouts),
        "floor": floor(answers, phases),
        f"phases_{clock}_ms": breakdown(phases, clock),
        "decode": decode_floor(phases),
        "operators": profiled["operators"],
        "kernels": profiled.get("kernels"),
        "settings": {
            "policy": settings.policy,
            "task": _TASKS[settings.policy],
            "trainer": settings.trainer,
            "micro_batch_prompts": settings.micro_batch_prompts,
            "prompts": settings.prompts,
            "rollouts": settings.rollouts,
            "max_new_tokens": settings.max_new_tokens,
            "learning_rate": settings.learning_rate,
            "blocks": settings.blocks,
            "steps_per_block": settings.steps_per_block,
            "warmup": settings.warmup,
            "threads": threads,
            "seed": seed,
        },
        **code_version(),
        "machine": machine(),
        "versions": {LAB: ready[LAB]["versions"], TRL: ready[TRL]["versions"]},
    }
    return {**summary, "result": result_line(summary)}


def check(settings: BenchSettings) -> None:
    """Refuse, or make, a missing environment of the peers; see `lab.bench.peers.peer_python`."""
    peer_python(settings.peers, settings.install_peers)


def turns(names: Sequence[str], block: int) -> list[str]:
    """Return the order of the workers in a round: each round starts with the next one."""
    first = block % len(names)
    return [*names[first:], *names[:first]]


def training_config(settings: BenchSettings, seed: int) -> dict[str, Any]:
    """Return the resolved configuration of our runs; what TRL has to share is said outright."""
    from omegaconf import OmegaConf

    chunk = settings.micro_batch_prompts
    steps = settings.measured_steps + 2 * settings.profile_steps
    config = compose(
        "train",
        [
            f"policy={settings.policy}",
            f"task={_TASKS[settings.policy]}",
            f"trainer={settings.trainer}",
            *("objective=rlvr", "optimizer=adamw"),
            f"objective.micro_batch_prompts={'null' if chunk is None else chunk}",
            f"steps={steps + 1}",  # one more than is asked for, so that no run ends by itself
            f"seed={seed}",
            f"objective.prompts={settings.prompts}",
            f"objective.rollouts={settings.rollouts}",
            "objective.updates_per_step=1",
            "objective.aggregation=sequence_mean",
            "objective.advantage_scale=unbiased_std",  # TRL's
            f"optimizer.learning_rate={settings.learning_rate}",
            "optimizer.schedule.name=constant",
            "optimizer.schedule.warmup_updates=0",
            "optimizer.clip_norm=1.0",
            f"generation.max_new_tokens={settings.max_new_tokens}",
            "generation.temperature=1.0",
        ],
    )
    node: Any = OmegaConf.to_container(config, resolve=True)
    groups = {key: node[key] for key in TrainSettings.__dataclass_fields__}
    return groups


def prepare(
    settings: BenchSettings, config: dict[str, Any], directory: Path, threads: int, python: Path
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Write what each worker is given and return its command and environment, by name."""
    train = build_train_settings(config)
    work = directory.absolute() / "workers"
    shared = {"warmup": settings.warmup, "threads": threads}
    commands = {}
    model = model_directory(settings)
    for name in (LAB, TRL, RECORDED) if settings.recorded else (LAB, TRL):
        own = work / name
        own.mkdir(parents=True, exist_ok=True)
        if name == TRL:
            given = {**shared, **peer_spec(train, settings), "model": str(model), "directory": str(own)}
            command = [str(python), "-I", str(_HERE / "trl_worker.py")]
        else:
            given = {**shared, "config": config, "recorder": name == RECORDED, "directory": str(own)}
            command = [sys.executable, "-m", "lab.bench.lab_worker"]
        write_json(work / f"{name}.json", given)
        commands[name] = ([*command, str(work / f"{name}.json")], _environment(threads, ours=name != TRL))
    return commands


def model_directory(settings: BenchSettings) -> Path:
    """Return where the model that both sides start from lies.

    Raises:
        BadInput: the weights package of SmolLM2 is not installed.
    """
    if settings.policy == "tiny":
        from lab.policies.tiny import ASSETS

        return ASSETS
    from lab.policies import smollm2

    directory = smollm2.cache_directory()
    if not (directory / "config.json").is_file():
        smollm2.convert(smollm2.find_weights(), directory)
    return directory


def peer_spec(train: TrainSettings, settings: BenchSettings) -> dict[str, Any]:
    """Return what TRL needs to do the same: the problems of every step in our order, and the same optimiser."""
    objective, optimizer = train.objective, train.optimizer
    assert isinstance(objective, RLVRSettings) and isinstance(optimizer, AdamWSettings)
    assert train.task is not None and train.generation is not None
    draw = Draw(train.seed)
    problems = [
        [problem.prompt, problem.answer]
        for step in range(train.steps)
        for problem in train.task.draw("train", objective.prompts, draw.generator("problem", step))
    ]
    return {
        "problems": problems,
        "steps": train.steps,
        "seed": train.seed,
        "chat": settings.policy == "smollm2",
        "answer": "last_number" if settings.policy == "smollm2" else "exact",
        "device": settings.trainer,
        "rows_at_a_time": (settings.micro_batch_prompts or objective.prompts) * objective.rollouts,
        "prompts": objective.prompts,
        "rollouts": objective.rollouts,
        "clip_low": objective.clip_low,
        "clip_high": objective.clip_high,
        "max_new_tokens": train.generation.max_new_tokens,
        "temperature": train.generation.temperature,
        "optimizer": {
            "learning_rate": optimizer.learning_rate,
            "beta1": optimizer.beta1,
            "beta2": optimizer.beta2,
            "epsilon": optimizer.epsilon,
            "weight_decay": optimizer.weight_decay,
            "clip_norm": optimizer.clip_norm,
        },
    }


def compare(answers: Answers, completions: int) -> dict[str, Any]:
    """Return times, ratios and what shows that the sides did the same work.

    Args:
        answers: of each worker, one for each block.
        completions: sampled in a step.
    """
    each = {name: [_per_step(answer, "wall") for answer in blocks] for name, blocks in answers.items()}
    cpu = {name: [_per_step(answer, "cpu") for answer in blocks] for name, blocks in answers.items()}
    ratios = {}
    for suffix, of in (("", each), ("_cpu", cpu)):
        ratios[f"ratio{suffix}"] = ratio_interval(of[LAB], of[TRL])
        if RECORDED in of:
            ratios[f"ratio_recorded{suffix}"] = ratio_interval(of[RECORDED], of[TRL])
    return {
        "seconds_per_step": {name: median(values) for name, values in each.items()},
        "cpu_seconds_per_step": {name: median(values) for name, values in cpu.items()},
        **ratios,
        "peak_memory_mb": {
            name: max(block["peak_mb"] for block in blocks) for name, blocks in answers.items()
        },
        "same_work": {name: _work(blocks, completions) for name, blocks in answers.items()},
        "seconds_per_step_of_each_block": each,
    }


def floor(answers: Answers, phases: Mapping[str, Any]) -> dict[str, Any]:
    """Return the least operations of a step, the machine's rate, and our time as a multiple of their quotient.

    The rate is that of the best moment, so the multiple of our CPU time is the fairer one on a busy machine.
    """
    wall, cpu = (median(_per_step(answer, clock) for answer in answers[LAB]) for clock in ("wall", "cpu"))
    rate = phases["matrix_flops_per_second"]
    needed, unshared = sum(phases["flops"].values()), sum(phases["flops_unshared"].values())
    return {
        "flops": phases["flops"],
        "flops_total": needed,
        "flops_total_without_sharing": unshared,
        "shape": phases["shape"],
        "matrix_flops_per_second": rate,
        "matrix_flops_per_second_model_shapes": phases["matrix_flops_per_second_model_shapes"],
        "seconds": needed / rate,
        "seconds_without_sharing": unshared / rate,
        "lab_over_floor": wall / (needed / rate),
        "lab_cpu_over_floor": cpu / (needed / rate),
        "lab_cpu_over_floor_without_sharing": cpu / (unshared / rate),
    }


def breakdown(phases: Mapping[str, Any], clock: str) -> dict[str, float]:
    """Return milliseconds of each phase of our step by `clock` (wall or cpu); what no phase holds is the trainer."""
    parts = {name: 1e3 * seconds for name, seconds in phases["phases"].items()}
    parts["Lightning and loader"] = 1e3 * _per_step(phases, clock) - sum(parts.values())
    return parts


def decode_floor(phases: Mapping[str, Any]) -> dict[str, float]:
    """Return the time of decoding, prompts apart, beside the least that reading weights and caches takes."""
    floor_seconds = phases["decode_bytes"] / phases["memory_bytes_per_second"]
    return {
        "bytes": phases["decode_bytes"],
        "memory_bytes_per_second": phases["memory_bytes_per_second"],
        "floor_seconds": floor_seconds,
        "seconds": phases["phases"]["rollout"],
        "over_floor": phases["phases"]["rollout"] / floor_seconds,
    }


def _per_step(answer: Mapping[str, Any], clock: str) -> float:
    return float(answer[clock]) / int(answer["steps"])


def _work(blocks: list[dict[str, Any]], completions: int) -> dict[str, float]:
    lengths = [block["length"] for block in blocks]
    return {
        "reward_first_block": blocks[0]["reward"],
        "reward_last_block": blocks[-1]["reward"],
        "reward_mean": sum(block["reward"] for block in blocks) / len(blocks),
        "completion_tokens_mean": sum(lengths) / len(lengths),
        "completion_tokens_per_step": completions * sum(lengths) / len(lengths),
    }


def _environment(threads: int, ours: bool) -> dict[str, str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if ours:
        spec = find_spec("lab")
        assert spec is not None and spec.submodule_search_locations
        root = str(Path(next(iter(spec.submodule_search_locations))).parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return environment


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
