"""`lab bench`: benchmarks of the lab against its peers."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from lab.bench.peers import peer_python
from lab.bench.registry import BENCHMARKS
from lab.bench.settings import BenchSettings
from lab.runs import open_run
from lab.settings import build, choose
from lab.verbs.train import RUN_KEYS, is_dry_run, print_table, refuse_unread_keys, run_settings

_KEYS = tuple(field.name for field in dataclasses.fields(BenchSettings))


def run(config: DictConfig) -> str:
    """Run the benchmark and return the one-line result.

    Raises:
        BadInput: an impossible value, or no environment with the peers.
        RunFailed: a worker died, or the environment could not be made.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    refuse_unread_keys(resolved, (*RUN_KEYS, *_KEYS, "seed", "threads", "dry_run"))
    settings = build(BenchSettings, {key: resolved[key] for key in _KEYS})
    target = choose(BENCHMARKS, settings.what, "what")
    if is_dry_run(resolved):
        print_table({"blocks": settings.blocks, "steps of each side": settings.measured_steps})
        return "dry run: nothing was computed"
    peer_python(settings.peers, settings.install_peers)  # before a run directory is made
    with open_run(run_settings(resolved, "bench"), resolved) as held:
        module, function = target.split(":")
        summary = getattr(import_module(module), function)(
            settings, held, resolved["seed"], resolved["threads"]
        )
        summary["result"] = result_line(summary)
        held.write_summary(summary)
        held.finish()
        print_summary(summary)
        return f"{held.path}: {summary['result']}"


def result_line(summary: dict[str, Any]) -> str:
    """Return the comparison in one line."""
    seconds, ratio = summary["seconds_per_step"], summary["ratio"]
    interval = "" if ratio["low"] is None else f" [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    return (
        f"GRPO step {1e3 * seconds['lab']:.1f} ms, TRL {1e3 * seconds['trl']:.1f} ms; "
        f"ratio {ratio['median']:.2f}{interval} over {summary['settings']['blocks']} blocks"
    )


def print_summary(summary: dict[str, Any]) -> None:
    """Print times, what shows that both did the same, the floor and the phases."""
    console = Console()
    names = {"lab": "lab", "lab_recorded": "lab, recorder on", "trl": "TRL"}
    table = Table("", *names.values())
    work = summary["same_work"]
    rows = {
        "wall ms a step": {name: 1e3 * summary["seconds_per_step"][name] for name in names},
        "CPU ms a step": {name: 1e3 * summary["cpu_seconds_per_step"][name] for name in names},
        "mean reward, first block": {name: work[name]["reward_first_block"] for name in names},
        "mean reward, last block": {name: work[name]["reward_last_block"] for name in names},
        "mean reward": {name: work[name]["reward_mean"] for name in names},
        "tokens of a completion": {name: work[name]["completion_tokens_mean"] for name in names},
        "completion tokens a step": {name: work[name]["completion_tokens_per_step"] for name in names},
    }
    for title, values in rows.items():
        table.add_row(title, *(f"{values[name]:.3g}" for name in names))
    table.add_section()
    for title, suffix in (("ratio to TRL", ""), ("ratio to TRL, CPU", "_cpu")):
        ratios = {"lab": summary[f"ratio{suffix}"], "lab_recorded": summary[f"ratio_recorded{suffix}"]}
        table.add_row(title, *(_interval(ratios[name]) if name in ratios else "" for name in names))
    console.print(table)
    floor = summary["floor"]
    print_table(
        {
            "operations of a step (10^6)": floor["flops_total"] / 1e6,
            "  without sharing prompts": floor["flops_total_without_sharing"] / 1e6,
            "matrix rate (10^9 a second)": floor["matrix_flops_per_second"] / 1e9,
            "floor (ms)": 1e3 * floor["seconds"],
            "our time / floor": floor["lab_over_floor"],
            "our CPU time / floor": floor["lab_cpu_over_floor"],
        }
    )
    phases = Table("phase of our step", "CPU ms")
    for name, milliseconds in sorted(summary["phases_cpu_ms"].items(), key=lambda item: -item[1]):
        phases.add_row(name, f"{milliseconds:.2f}")
    console.print(phases)


def _interval(ratio: dict[str, Any]) -> str:
    if ratio["low"] is None:
        return f"{ratio['median']:.2f}"
    return f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
