"""The table at the end of the benchmark of `lab measure checkpoints=`."""

from __future__ import annotations

from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from lab.bench.intervals import format_interval
from lab.bench.measure_checkpoints import ALL, BARE, CAT

_NAMES = {CAT: "cat of the same bytes", BARE: "R² and skill", ALL: "everything on, start to end"}


def show(summary: dict[str, Any]) -> None:
    """Print seconds, ratios, targets and memory."""
    for dtype in summary["settings"]["dtypes"]:
        found = summary[dtype]
        table = Table(f"{dtype}, {found['bytes'] / 1e9:.2f} GB", "seconds", "times cat", "target")
        for name, title in _NAMES.items():
            ratio = found["ratio_to_cat"].get(name)
            table.add_row(
                title,
                f"{median(found['seconds'][name]):.2f}",
                "" if ratio is None else format_interval(ratio),
                "" if ratio is None else f"{ratio['target']:g}",
            )
        if found["published"]:
            them = found["published"]
            table.add_row("published method", f"{median(them['seconds']):.2f}", "", "")
            table.add_row(
                "our weights a second over its", "", f"{them['speed_ratio']:.0f}", f"{them['target']:g}"
            )
        table.add_row(
            "peak memory (MB)", "", f"{found['peak_rss_mb']:.0f}", f"{found['peak_rss_target_mb']:g}"
        )
        Console().print(table)
    large = summary["large"]
    if large:
        Console().print(
            f"{large['weights']:,} weights x {large['checkpoints']}: peak memory {large['peak_rss_mb']:.0f} MB "
            f"(target {large['target_mb']:g})"
        )
