"""The benchmarks that exist. To add one: its files, `lab/conf/benchmark/NAME.yaml`, and a row here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """Where the parts of a benchmark are, each as `module:name`."""

    settings: str
    """Settings class, torch-free; its fields are the keys of the YAML file, `what` (the name) among them."""
    run: str
    """(settings, run, seed, threads) -> summary, `result` (one line) included."""
    show: str
    """(summary) -> None: prints a short table."""
    check: str | None = None
    """(settings) -> None: refuses before a run directory is made."""


BENCHMARKS: dict[str, Benchmark] = {
    "grpo_step": Benchmark(
        settings="lab.bench.settings:BenchSettings",
        run="lab.bench.grpo_step:run",
        show="lab.bench.grpo_step_report:show",
        check="lab.bench.grpo_step:check",
    ),
}
