"""`lab train`: one run, RLVR, SFT or synthetic, from a configuration."""

from __future__ import annotations

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from lab.errors import BadInput
from lab.runs import RunSettings, open_run
from lab.settings import build, suggest
from lab.stopping import TimeLimit
from lab.training import GROUPS, build_train_settings, estimate, train

RUN_KEYS = ("name", "runs_dir", "resume", "clean")
_OWN = ("seed", "threads", "dry_run", "stop_after_minutes", "steps", "twin", "regrounding", "follow_up")
KEYS = (*RUN_KEYS, *_OWN, *GROUPS)
_PRINTED_APART = ("result", "cells", "weights", "logprobs", "extrapolation", "follow_up_s")


def run(config: DictConfig) -> str:
    """Train and return the one-line result.

    Raises:
        BadInput, RunFailed, Interrupted: see `lab.training.train`.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    refuse_unread_keys(resolved, KEYS)
    time_limit = _time_limit(resolved["stop_after_minutes"])
    settings = build_train_settings(resolved)
    if is_dry_run(resolved):
        print_table(estimate(settings))
        return "dry run: nothing was computed"
    with open_run(run_settings(resolved, "train"), resolved) as held:
        summary = train(settings, held, settings.objective.name, time_limit)
        print_table({key: value for key, value in summary.items() if key not in _PRINTED_APART})
        if "cells" in summary:
            _print_cells(summary["cells"])
        if "weights" in summary:
            _print_measured(summary)
        if "extrapolation" in summary:
            _print_extrapolated(summary["extrapolation"])
        return f"{held.path}: {summary['result']}"


def _print_cells(cells: list[dict[str, Any]]) -> None:
    """Print a row for each cell of a synthetic run; intervals are over its replicates."""
    columns = {"r2_mean": "mean R²", "r2_median": "median R²", "skill": "skill", "skill_damped": "damped"}
    table = Table("cell", "learning rate", *columns.values(), "lag cosine", "pass rate at the end")
    for index, cell in enumerate(cells):
        numbers = [cell.get(name) for name in (*columns, "lag_cosine")]
        numbers.append(cell.get("pass_rate", {}).get("end", {}).get("mean"))
        label = ", ".join(f"{key}={value}" for key, value in cell["overrides"].items()) or str(index)
        shown = ("" if number is None else f"{number:.3f}" for number in numbers)
        table.add_row(label, f"{cell['learning_rate']:.3g}", *shown)
    Console().print(table)


def _print_measured(summary: dict[str, Any]) -> None:
    """Print a row for each kind of path that was measured."""
    columns = {"r2_median": "median R²", "null_r2_median": "of chance", "null_p_value": "sign-flip p"}
    columns |= {"skill": "skill, two-point", "skill_damped": "damped", "damping": "damping"}
    table = Table("", *columns.values())
    for kind in ("weights", "logprobs"):
        if kind in summary:
            table.add_row(kind, *(_shown(summary[kind][key]) for key in columns))
    Console().print(table)


def _print_extrapolated(found: dict[str, Any]) -> None:
    """Print a row for each method and target, and for what it is compared with."""
    standing = found["persistence"]
    table = Table("model", "step", "pass rate", "±", "over standing still", "low", "high")
    table.add_row("standing still", str(standing["step"]), *_rate(standing))
    for target in found["targets"]:
        rows = {} if target["actual"] is None else {"trained on": target["actual"]}
        for name, score in (rows | target["methods"]).items():
            gap = score["over_persistence"] or {}
            numbers = [gap.get(key) for key in ("estimate", "low", "high")]
            table.add_row(name, str(target["step"]), *_rate(score), *map(_shown, numbers))
    Console().print(table)


def _rate(score: dict[str, Any]) -> tuple[str, str]:
    return _shown(score["pass_rate"]), _shown(score["interval_half_width"])


def _shown(number: float | None) -> str:
    return "–" if number is None or number != number else f"{number:.3f}"


def _time_limit(minutes: Any) -> TimeLimit:
    """Return the limit of this process, from now on, that `stop_after_minutes` asks for."""
    known = minutes is None or (isinstance(minutes, (int, float)) and not isinstance(minutes, bool))
    if not known or (minutes is not None and not 0 < minutes < float("inf")):
        raise BadInput(f"stop_after_minutes: expected a positive number or null, got {minutes!r}")
    return TimeLimit(minutes)


def run_settings(resolved: dict[str, Any], verb: str) -> RunSettings:
    """Return where the run lies; the experiment is the configuration chosen, or the verb."""
    choice = HydraConfig.get().runtime.choices.get("experiment")
    node = {key: resolved[key] for key in RUN_KEYS}
    return build(RunSettings, {**node, "experiment": choice or verb})


def refuse_unread_keys(resolved: dict[str, Any], known: tuple[str, ...]) -> None:
    """Raise BadInput for a top-level key that no code reads, or one that is missing."""
    for key in resolved:
        if key not in known:
            raise BadInput(f"{key}: no code reads this key; {suggest(key, known)}")
    for key in known:
        if key not in resolved:
            raise BadInput(f"{key}: missing; it cannot be left out")


def is_dry_run(resolved: dict[str, Any]) -> bool:
    """Return the key `dry_run`, or refuse what is neither true nor false."""
    value = resolved["dry_run"]
    if not isinstance(value, bool):
        raise BadInput(f"dry_run: expected true or false, got {value!r}")
    return value


def print_table(rows: dict[str, Any]) -> None:
    """Print names and values as a short table; what there is none of is left out."""
    table = Table(show_header=False)
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
