"""`lab power`: how many runs and checkpoints it takes to see a drift of given S, or a contrast."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from lab.runs import open_run
from lab.sweeps.power_trial import POWER_KEYS, PowerSettings, build_power_settings, power_summary
from lab.verbs.train import RUN_KEYS, is_dry_run, print_table, refuse_unread_keys, run_settings


def run(config: DictConfig) -> str:
    """Compute power, print it and return the one-line answer.

    Raises:
        BadInput: an impossible value, or no such study or metric.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    refuse_unread_keys(resolved, (*RUN_KEYS, *POWER_KEYS, "seed", "threads", "dry_run"))
    settings = build_power_settings(resolved)
    if is_dry_run(resolved):
        print_table({"simulated runs": 2 * settings.simulations * len(settings.checkpoints)})
        return "dry run: nothing was computed"
    with open_run(run_settings(resolved, "power"), resolved) as held:
        summary = power_summary(settings, resolved["runs_dir"], resolved["seed"])
        held.write_summary(summary)
        held.finish()
        print_summary(settings, summary)
        return f"{held.path}: {summary['result']}"


def print_summary(settings: PowerSettings, summary: dict[str, Any]) -> None:
    """Print the tables and what they assume."""
    console = Console()
    table = Table("n", "power of one run", "false positives", "least p", "median R² (null)", "runs, t test")
    for row in summary["runs"]:
        table.add_row(
            str(row["checkpoints"]),
            f"{row['power']:.2f} ± {row['power_error']:.2f}",
            f"{row['false_positives']:.3f}",
            f"{row['smallest_p']:.3g}",
            f"{row['r2_median']:.2f} ({row['null_r2_median']:.2f})",
            "-" if row["runs_against_null"] is None else str(row["runs_against_null"]),
        )
    console.print(table)
    console.print(
        f"n: checkpoints. One run: sign-flip test of the median R² at level {settings.level:g}, "
        f"{settings.simulations} simulated runs of {settings.effective_coordinates} independent walks with "
        f"{settings.drifts} drifts; t test: runs whose median R² is compared with the null's at power "
        f"{settings.power:g}.",
        highlight=False,
    )
    contrast = summary.get("contrast")
    if contrast is None:
        return
    seeds = Table(
        "seeds", f"contrast seen with power {settings.power:g}", *(["power"] if "power" in contrast else [])
    )
    for count, smallest in contrast["smallest_contrast"].items():
        cells = [f"{contrast['power'][count]:.2f}"] if "power" in contrast else []
        seeds.add_row(count, f"{smallest:.3g}", *cells)
    console.print(seeds)
    console.print(
        f"Two-sided paired t test; differences at the same seed spread by {contrast['spread_of_differences']:.3g}.",
        highlight=False,
    )
