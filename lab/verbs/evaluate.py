"""`lab evaluate`: avg@k and pass@k of a policy, or of two checkpoints decoded in output space, on held-out problems."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from lab.errors import BadInput
from lab.evaluate_settings import EvaluateSettings, OutputSpaceSettings
from lab.objectives.settings import GenerationSettings
from lab.policies import build_policy_settings
from lab.process import gpu_use, peak_memory_mb, seconds_since_start
from lab.runs import open_run
from lab.settings import Invalid, build, whole_number
from lab.tasks import build_task
from lab.trainer import TrainerSettings
from lab.verbs.train import RUN_KEYS, is_dry_run, print_table, refuse_unread_keys, run_settings

_MODELS = tuple(field.name for field in fields(OutputSpaceSettings))
_OWN = ("policy", "task", "trainer", "generation", "evaluation", "k", *_MODELS)


def run(config: DictConfig) -> str:
    """Evaluate and return the one-line result.

    Raises:
        BadInput: an impossible value, a policy that cannot be loaded, or two that cannot be combined.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    refuse_unread_keys(resolved, (*RUN_KEYS, "seed", "threads", "dry_run", *_OWN))
    whole_number(resolved["seed"], "seed", least=0)
    policy_settings = build_policy_settings(resolved["policy"])
    task = build_task(resolved["task"])
    generation = build(GenerationSettings, resolved["generation"], "generation")
    evaluation = build(EvaluateSettings, resolved["evaluation"], "evaluation")
    trainer = _one_device(build(TrainerSettings, resolved["trainer"], "trainer"))
    models = build(OutputSpaceSettings, {key: resolved[key] for key in _MODELS})
    temperatures = _temperatures(models, evaluation)
    _check_ks(resolved["k"], evaluation)
    if is_dry_run(resolved):
        print_table(_estimate(evaluation, models, temperatures))
        return "dry run: nothing was computed"
    with open_run(run_settings(resolved, "evaluate"), resolved) as held:
        from lab.evaluate_run import Judge

        judge = Judge(policy_settings, models, task, generation, evaluation, resolved["seed"], trainer)
        summary = (
            judge.score(resolved["k"])
            if models.alphas is None
            else judge.choose(models.alphas, temperatures, models.validation_share, resolved["k"])
        )
        summary = {
            **{key: value for key, value in summary.items() if key != "result"},
            "wall_clock_s": seconds_since_start(),
            "peak_rss_mb": peak_memory_mb(),
            **gpu_use(),
            "result": summary["result"],
        }
        held.write_summary(summary)
        held.finish()
        _print(summary)
        return f"{held.path}: {summary['result']}"


def _one_device(trainer: TrainerSettings) -> TrainerSettings:
    if (trainer.devices, trainer.strategy) != (1, "auto"):
        raise BadInput(
            "trainer.devices: an evaluation is one process; leave it at 1, and trainer.strategy at auto"
        )
    return trainer


def _temperatures(models: OutputSpaceSettings, evaluation: EvaluateSettings) -> tuple[float, ...]:
    if models.alphas is None:
        return ()
    try:
        return models.baseline_temperatures(evaluation.temperature)
    except Invalid as error:
        raise BadInput(str(error)) from None


def _check_ks(ks: Any, evaluation: EvaluateSettings) -> None:
    if not isinstance(ks, list):
        raise BadInput(f"k: expected a list such as [1,4], got {ks!r}")
    for k in ks:
        if type(k) is not int or not 1 <= k <= evaluation.rollouts:
            raise BadInput(f"k: each must be 1 to evaluation.rollouts={evaluation.rollouts}, got {k!r}")


def _estimate(
    evaluation: EvaluateSettings, models: OutputSpaceSettings, temperatures: tuple[float, ...]
) -> dict[str, Any]:
    if models.alphas is None:
        return {"completions": evaluation.problems * evaluation.rollouts}
    choosing = round(evaluation.problems * models.validation_share)
    return {
        "problems to choose on, about": choosing,
        "problems to score on, about": evaluation.problems - choosing,
        "candidates": len(models.alphas) + len(temperatures),
        "completions, at most": evaluation.rollouts
        * (choosing * (len(models.alphas) + len(temperatures)) + 3 * (evaluation.problems - choosing)),
    }


def _print(summary: dict[str, Any]) -> None:
    if "extrapolated" not in summary:
        print_table({name: value for name, value in summary.items() if name != "result"})
        return
    from lab.evaluate_run import ARMS

    table = Table("decoding", "alpha", "temperature", "pass rate", "±")
    for name in ARMS:
        arm = summary[name]
        rate = next(value for key, value in arm.items() if key.startswith("avg@"))
        numbers = (arm["alpha"], arm["temperature"], rate, arm["interval_half_width"])
        table.add_row(name.replace("_", " "), *(f"{number:.3g}" for number in numbers))
    Console().print(table)
