"""`lab compare RUN RUN`: the numbers of two runs side by side, and where their configurations differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from lab.errors import BadInput
from lab.files import read_json
from lab.runs import differing_keys, find_run, read_config
from lab.verbs.train import refuse_unread_keys


def run(config: DictConfig) -> str:
    """Print the comparison and return a one-line count.

    Raises:
        BadInput: a run is missing, unfinished or corrupt.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    refuse_unread_keys(resolved, ("runs_dir", "first", "second"))
    for key in ("first", "second"):
        if not resolved[key]:
            raise BadInput(f"{key}: name two runs, lab compare RUN RUN")
    paths = [find_run(resolved["runs_dir"], str(resolved[key])) for key in ("first", "second")]
    configs = [read_config(path) for path in paths]
    numbers = [dict(_numbers(read_json(path / "summary.json"))) for path in paths]
    differing = differing_keys(configs[0], configs[1])
    table = Table("", *(str(path) for path in paths), "difference")
    flat = [dict(_flat(each)) for each in configs]
    for key in differing:
        table.add_row(key, *(str(each.get(key, "")) for each in flat), "")
    table.add_section()
    shared = [name for name in numbers[0] if name in numbers[1]]
    for name in shared:
        first, second = numbers[0][name], numbers[1][name]
        table.add_row(name, f"{first:.4g}", f"{second:.4g}", f"{second - first:+.4g}")
    Console().print(table)
    return f"{len(differing)} keys differ; {len(shared)} numbers compared (one run each: no interval)"


def _numbers(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in _flat(summary):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, value


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
