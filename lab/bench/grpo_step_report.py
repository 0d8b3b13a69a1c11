"""What `lab bench` prints of the GRPO benchmark."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from lab.bench.intervals import format_interval
from lab.verbs.train import print_table


def result_line(summary: dict[str, Any]) -> str:
    """Return the comparison in one line."""
    seconds, ratio = summary["seconds_per_step"], summary["ratio"]
    interval = "" if ratio["low"] is None else f" [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    return (
        f"GRPO step {1e3 * seconds['lab']:.1f} ms, TRL {1e3 * seconds['trl']:.1f} ms; "
        f"ratio {ratio['median']:.2f}{interval} over {summary['settings']['blocks']} blocks"
    )


def show(summary: dict[str, Any]) -> None:
    """Print times, what shows that both did the same, the floor and the phases."""
    console = Console()
    all_names = {"lab": "lab", "lab_recorded": "lab, recorder on", "trl": "TRL"}
    names = {name: title for name, title in all_names.items() if name in summary["seconds_per_step"]}
    table = Table("", *names.values())
    work = summary["same_work"]
    rows = {
        "wall ms a step": {name: 1e3 * summary["seconds_per_step"][name] for name in names},
        "CPU ms a step": {name: 1e3 * summary["cpu_seconds_per_step"][name] for name in names},
        "peak memory (MB)": summary["peak_memory_mb"],
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
        keys = {"lab": f"ratio{suffix}", "lab_recorded": f"ratio_recorded{suffix}"}
        ratios = {name: summary[key] for name, key in keys.items() if key in summary}
        table.add_row(title, *(format_interval(ratios[name]) if name in ratios else "" for name in names))
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
            "memory rate (10^9 bytes a second)": summary["decode"]["memory_bytes_per_second"] / 1e9,
            "decoding (ms)": 1e3 * summary["decode"]["seconds"],
            "decoding / reading what it needs": summary["decode"]["over_floor"],
        }
    )
    clock = "cpu" if "phases_cpu_ms" in summary else "wall"
    phases = Table("phase of our step", "CPU ms" if clock == "cpu" else "ms")
    for name, milliseconds in sorted(summary[f"phases_{clock}_ms"].items(), key=lambda item: -item[1]):
        phases.add_row(name, f"{milliseconds:.2f}")
    console.print(phases)
