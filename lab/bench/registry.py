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
    "extrapolate": Benchmark(
        settings="lab.bench.extrapolate_settings:ExtrapolateBenchSettings",
        run="lab.bench.extrapolate:run",
        show="lab.bench.extrapolate:show",
    ),
    "grpo_step": Benchmark(
        settings="lab.bench.settings:BenchSettings",
        run="lab.bench.grpo_step:run",
        show="lab.bench.grpo_step_report:show",
        check="lab.bench.grpo_step:check",
    ),
    "jump": Benchmark(
        settings="lab.bench.jump_settings:JumpSettings",
        run="lab.bench.jump:run",
        show="lab.bench.jump:show",
    ),
    "measure_checkpoints": Benchmark(
        settings="lab.bench.measure_checkpoints_settings:MeasureCheckpointsSettings",
        run="lab.bench.measure_checkpoints:run",
        show="lab.bench.measure_checkpoints_report:show",
    ),
    "extrapolated_decoding": Benchmark(
        settings="lab.bench.extrapolated_decoding_settings:ExtrapolatedDecodingSettings",
        run="lab.bench.extrapolated_decoding:run",
        show="lab.bench.extrapolated_decoding:show",
        check="lab.bench.extrapolated_decoding:check",
    ),
    "sweep": Benchmark(
        settings="lab.bench.sweep_settings:SweepBenchSettings",
        run="lab.bench.sweep:run",
        show="lab.bench.sweep:show",
    ),
    "synthetic": Benchmark(
        settings="lab.bench.synthetic_settings:SyntheticBenchSettings",
        run="lab.bench.synthetic:run",
        show="lab.bench.synthetic:show",
    ),
}
