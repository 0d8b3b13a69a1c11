"""`lab quickstart`: the main job on the embedded language model, end to end."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from lab.errors import BadInput
from lab.measure_settings import MeasureSettings
from lab.objectives.settings import RLVRSettings, SFTSettings
from lab.runs import open_run
from lab.settings import build
from lab.training import GROUPS, TrainSettings, build_train_settings, estimate
from lab.verbs.train import RUN_KEYS, is_dry_run, print_table, refuse_unread_keys, run_settings

_SHARED = ("seed", "threads", "steps", *GROUPS)


def run(config: DictConfig) -> str:
    """Train, measure and report; return the one-line result.

    Raises:
        BadInput, RunFailed, Interrupted: see `lab.quickstart.quickstart`.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    refuse_unread_keys(resolved, (*RUN_KEYS, *_SHARED, "dry_run", "contrast", "protocol", "flips"))
    shared = {key: resolved[key] for key in _SHARED}
    configs = {
        "rl": {**shared, "twin": False},
        "sft": {**shared, "objective": resolved["contrast"], "twin": False},
        "twin": {**shared, "twin": True},
    }
    settings = {
        label: build_train_settings(node, "contrast" if label == "sft" else "objective")
        for label, node in configs.items()
    }
    _refuse_what_cannot_be_measured(settings)
    how = build(MeasureSettings, {"protocol": resolved["protocol"], "flips": resolved["flips"]})
    if is_dry_run(resolved):
        for label, each in settings.items():
            print(label)
            print_table(estimate(each))
        return "dry run: nothing was computed"
    with open_run(run_settings(resolved, "quickstart"), resolved) as held:
        from lab.quickstart import Plan, quickstart

        summary = quickstart(Plan(settings, configs, how), held)
        _print_summary(summary)
        return f"{held.path / 'report.html'}: {summary['result']}"


def _refuse_what_cannot_be_measured(settings: dict[str, TrainSettings]) -> None:
    """Refuse, before anything is trained, what the measurement or its labels could not do with."""
    for label, key, wanted in (("rl", "objective", RLVRSettings), ("sft", "contrast", SFTSettings)):
        if not isinstance(settings[label].objective, wanted):
            raise BadInput(f"{key}.name: the quickstart needs {'rlvr' if label == 'rl' else 'sft'} here")
    recorder, steps = settings["rl"].recorder, settings["rl"].steps
    points = 1 + -(-steps // recorder.every)
    if points < 3:
        raise BadInput(
            f"recorder.every: {recorder.every} of {steps} steps gives {points} recorded points, and measuring needs at "
            "least 3; lower it, or raise steps"
        )
    if not recorder.evaluate:
        raise BadInput("recorder.evaluate: the quickstart reports pass rates; set it to true")


def _print_summary(summary: dict[str, Any]) -> None:
    from lab.report import format_number

    table = Table("", "RL", "SFT", "twin (pure noise)")
    labels = ("rl", "sft", "twin")
    for name in ("start", "end"):
        table.add_row(
            f"pass rate, {name}", *(format_number(summary[label]["pass_rate"][name]) for label in labels)
        )
    names = {
        "r2_median": "median R²",
        "null_r2_median": "  of chance",
        "null_p_value": "  sign-flip p",
        "skill": "skill, two-point",
        "skill_damped": "skill, damped",
        "damping": "  damping",
    }
    for kind in ("weights", "logprobs"):
        table.add_section()
        for key, name in names.items():
            cells = (format_number(summary[label][kind][key]) for label in labels)
            table.add_row(f"{kind}: {name}", *cells)
    Console().print(table)
