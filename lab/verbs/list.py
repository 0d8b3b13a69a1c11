"""`lab list`: the runs in `runs_dir`, with their state and one-line result."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.runs import RunRecord, State, list_runs
from lab.settings import build

_STATES: tuple[State, ...] = ("finished", "running", "unfinished", "corrupt")


@dataclass(frozen=True)
class ListSettings:
    """What to list: the runs in `runs_dir`, those of the experiment `only` or all."""

    runs_dir: str
    only: str | None


def run(config: DictConfig) -> str:
    """Print the table of runs and return the one-line count of each state.

    Raises:
        BadInput: a key that the verb does not read, or of a wrong type.
    """
    node: Any = OmegaConf.to_container(config, resolve=True)
    settings = build(ListSettings, node)
    records = [
        record for record in list_runs(settings.runs_dir) if settings.only in (None, record.experiment)
    ]
    if records:
        _print_table(records)
    counts = Counter(record.state for record in records)
    states = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
    total = f"{len(records)} run{'' if len(records) == 1 else 's'} in {settings.runs_dir}"
    return f"{total}: {states}" if states else total


def _print_table(records: list[RunRecord]) -> None:
    table = Table("run", "state", "started", "result")
    for record in records:
        name = f"{record.experiment}/{record.name}"
        started = record.created.strftime("%Y-%m-%d %H:%M")
        table.add_row(Text(name, overflow="fold"), record.state, started, Text(record.result))
    Console().print(table)
