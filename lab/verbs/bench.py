"""`lab bench`: benchmarks of the lab, beside its peers where there are some."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lab.bench.registry import BENCHMARKS
from lab.runs import open_run
from lab.settings import build, choose
from lab.verbs.train import RUN_KEYS, is_dry_run, print_table, refuse_unread_keys, run_settings


def run(config: DictConfig) -> str:
    """Run the benchmark and return the one-line result.

    Raises:
        BadInput: an impossible value, or no environment with the peers that it needs.
        RunFailed: a worker died, or the environment could not be made.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    benchmark = choose(BENCHMARKS, resolved["what"], "benchmark")
    settings_class = _import(benchmark.settings)
    keys = tuple(field.name for field in dataclasses.fields(settings_class))
    refuse_unread_keys(resolved, (*RUN_KEYS, *keys, "seed", "threads", "dry_run"))
    settings = build(settings_class, {key: resolved[key] for key in keys})
    if is_dry_run(resolved):
        print_table({key: getattr(settings, key) for key in keys})
        return "dry run: nothing was computed"
    if benchmark.check is not None:  # before a run directory is made
        _import(benchmark.check)(settings)
    with open_run(run_settings(resolved, "bench"), resolved) as held:
        summary = _import(benchmark.run)(settings, held, resolved["seed"], resolved["threads"])
        held.write_summary(summary)
        held.finish()
        _import(benchmark.show)(summary)
        return f"{held.path}: {summary['result']}"


def _import(target: str) -> Any:
    module, name = target.split(":")
    return getattr(import_module(module), name)
