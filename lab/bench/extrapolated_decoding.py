"""Seconds for each token decoded from two checkpoints extrapolated in output space, beside one of them alone.

Both sides sample the same number of tokens with the rollout engine, prompts included, one after the other in one
process; each round starts with the other side. The ratio is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from statistics import median
from typing import Any

import numpy as np
import torch

from lab.bar import progress_bar
from lab.bench.extrapolated_decoding_settings import ExtrapolatedDecodingSettings
from lab.bench.intervals import ratio_interval
from lab.bench.machine import machine
from lab.composition import compose
from lab.draw import Draw
from lab.errors import BadInput
from lab.policies import build_policy_settings, load_policy
from lab.policies.extrapolated_source import Extrapolated
from lab.policies.logit_source import LogitSource
from lab.policies.policy import EncodedPrompts, Policy
from lab.policies.rollout import rollout
from lab.provenance import code_version
from lab.runs import Run
from lab.tasks import build_task

PLAIN, EXTRAPOLATED = "plain", "extrapolated"
_TASKS = {"tiny": "addition", "smollm2": "word_problems"}
_NEVER = -1  # an end token that is not sampled
_PERTURBATION = 0.01


def run(settings: ExtrapolatedDecodingSettings, held: Run, seed: int, threads: int) -> dict[str, Any]:
    """Measure and return the summary.

    Raises:
        BadInput: the model cannot be loaded, the prompts are too long for it, or there is no GPU.
    """
    policy, other, prompts = _prepare(settings, seed)
    later = policy.logit_source(settings.new_tokens)
    sources: dict[str, LogitSource] = {
        PLAIN: later,
        EXTRAPOLATED: Extrapolated(other.logit_source(settings.new_tokens), later, settings.alpha),
    }
    shape = (settings.prompts * settings.rollouts, settings.new_tokens)
    uniforms = torch.from_numpy(Draw(seed).uniform("rollout", 0, shape)).to(policy.device)

    def turn(name: str) -> tuple[float, float]:
        """Wall-clock and CPU seconds of one turn."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(settings.repeats):
            rollout(
                sources[name],
                prompts.ids,
                prompts.mask,
                uniforms,
                temperature=1.0,
                eos_id=_NEVER,
                pad_id=policy.pad_id,
            )
        if policy.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - wall, time.process_time() - cpu

    seconds = _take_turns(turn, settings)
    tokens = settings.repeats * shape[0] * shape[1]
    each = {name: np.array(turns) / tokens for name, turns in seconds.items()}
    summary = {
        "what": settings.what,
        **{
            f"ratio{suffix}": ratio_interval(
                each[EXTRAPOLATED][:, clock].tolist(), each[PLAIN][:, clock].tolist()
            )
            for clock, suffix in enumerate(("", "_cpu"))
        },
        "microseconds_per_token": {name: 1e6 * median(rows[:, 0]) for name, rows in each.items()},
        "cpu_microseconds_per_token": {name: 1e6 * median(rows[:, 1]) for name, rows in each.items()},
        "source": type(later).__name__,
        "prompt_tokens": int(prompts.ids.shape[1]),
        "settings": {
            name: getattr(settings, name) for name in ExtrapolatedDecodingSettings.__dataclass_fields__
        },
        "threads": threads,
        "seed": seed,
        "device": torch.cuda.get_device_name() if policy.device.type == "cuda" else "cpu",
        **code_version(),
        "machine": machine(),
        "seconds_per_token_of_each_round": {name: rows[:, 0] for name, rows in each.items()},
    }
    return {**summary, "result": _result_line(summary)}


def check(settings: ExtrapolatedDecodingSettings) -> None:
    """Refuse a GPU that is not there.

    Raises:
        BadInput: torch sees no GPU.
    """
    if settings.trainer == "gpu" and not torch.cuda.is_available():
        raise BadInput("trainer=gpu: there is no GPU; use trainer=cpu")


def show(summary: dict[str, Any]) -> None:
    """Print a short table."""
    from lab.verbs.train import print_table

    each = summary["microseconds_per_token"]
    print_table(
        {
            **{f"{name}, microseconds a token": each[name] for name in (PLAIN, EXTRAPOLATED)},
            "ratio": summary["ratio"]["median"],
            "ratio of CPU time": summary["ratio_cpu"]["median"],
        }
    )


def _prepare(settings: ExtrapolatedDecodingSettings, seed: int) -> tuple[Policy, Policy, EncodedPrompts]:
    """Return the model, a second checkpoint of it, and prompts."""
    from omegaconf import OmegaConf

    task_name = _TASKS[settings.policy]
    config: Any = OmegaConf.to_container(
        compose("evaluate", [f"policy={settings.policy}", f"task={task_name}"]), resolve=True
    )
    policy = load_policy(build_policy_settings(config["policy"]), seed)
    if settings.trainer == "gpu":
        policy = policy.to("cuda", torch.bfloat16)
    other = Policy(deepcopy(policy.model), policy.tokenizer, "perturbed", policy.chat_template)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.model.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.add_(_PERTURBATION * parameter.std() * noise)
    problems = build_task(config["task"]).draw(
        "held_out", settings.prompts, Draw(seed).generator("evaluation_problem")
    )
    prompts = policy.encode([problem.prompt for problem in problems])
    policy.check_context(prompts, settings.new_tokens)
    return policy, other, prompts


def _take_turns(
    turn: Callable[[str], tuple[float, float]], settings: ExtrapolatedDecodingSettings
) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of each side in each measured round."""
    names = (PLAIN, EXTRAPOLATED)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with progress_bar() as progress:
        bar = progress.add_task("decoding", total=settings.warmup + settings.rounds)
        for index in range(settings.warmup + settings.rounds):
            for name in names if index % 2 else reversed(names):
                spent = turn(name)
                if index >= settings.warmup:
                    seconds[name].append(spent)
            progress.advance(bar)
    return seconds


def _result_line(summary: dict[str, Any]) -> str:
    ratio = summary["ratio"]
    interval = "" if ratio["low"] is None else f" [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    return f"extrapolated decoding costs {ratio['median']:.2f}{interval} times plain decoding for each token"
