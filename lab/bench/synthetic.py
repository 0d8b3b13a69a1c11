"""Coordinates a second of a synthetic run in the module, beside drawing its normals alone and a NumPy loop.

The limit is the rate at which the fastest generator at hand draws the normals that a run needs. In each round the
module does a block of steps (a quadratic, under a real Lightning trainer, recorder off), the fastest generator draws as
many normals, and the NumPy loop does some trajectories; ratios are taken within a round, by processor time, which a
busy machine disturbs least, and by the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from statistics import median
from typing import Any

import numpy as np
import pytorch_lightning as pl
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from lab.bar import progress_bar
from lab.bench.generators import Fill, generators
from lab.bench.intervals import format_interval, ratio_interval
from lab.bench.machine import machine
from lab.bench.numpy_loop import TRAJECTORIES
from lab.bench.synthetic_settings import SyntheticBenchSettings
from lab.composition import compose
from lab.draw import Draw
from lab.module import LabModule
from lab.objectives.quadratic import Quadratic
from lab.objectives.quadratic_settings import QuadraticSettings
from lab.objectives.synthetic import BLOCK
from lab.process import peak_memory_mb
from lab.provenance import provenance
from lab.runs import Run
from lab.trainer import build_trainer
from lab.training import TrainSettings, build_train_settings

_GENERATOR_BLOCKS = 64
_WARMUP = 2
TARGETS = {"of_generator": 0.70, "over_loop": 5.0}
"""Least share of the generator's rate; least multiple of the loop's."""

Turn = tuple[float, float]
"""Seconds by the clock and of the processor."""


def run(settings: SyntheticBenchSettings, held: Run, seed: int, threads: int) -> dict[str, Any]:
    """Measure and return the summary."""
    rates = _generator_rates(seed)
    fastest = max(rates, key=lambda name: rates[name])
    fill = generators(seed)[fastest]
    cases = [(name, count) for name in settings.optimizers for count in settings.coordinates]
    found = []
    for optimizer in settings.optimizers:  # what libraries load at first use is not the run's memory
        few = replace(settings, numbers=max(settings.coordinates), blocks=1)
        train = _train_settings(few, optimizer, settings.coordinates[0], seed)
        _fit(few, train, _Sides(few, train, fill, lambda: None), held)
    with progress_bar() as progress:
        task = progress.add_task("measuring", total=len(cases) * settings.blocks)
        for optimizer, coordinates in cases:
            train = _train_settings(settings, optimizer, coordinates, seed)
            sides = _Sides(settings, train, fill, lambda: progress.advance(task))
            before = peak_memory_mb()
            _fit(settings, train, sides, held)
            found.append(
                {
                    "optimizer": optimizer,
                    "coordinates": coordinates,
                    **_compare(sides.turns, settings, coordinates),
                    "memory": _memory(train, before),
                }
            )
    summary = {
        "what": settings.what,
        "settings": {**asdict(settings), "seed": seed, "threads": threads},
        "generator": fastest,
        "generator_normals_per_second": rates,
        "targets": TARGETS,
        "cases": found,
        **{key: value for key, value in provenance().items()},
        "machine": machine(),
    }
    summary["result"] = result_line(summary)
    return summary


def result_line(summary: dict[str, Any]) -> str:
    """Return the worst case of each comparison in one line."""
    worst = {name: min(case["cpu"][name]["median"] for case in summary["cases"]) for name in TARGETS}
    return (
        f"simulates at {worst['of_generator']:.2f} of the rate of {summary['generator']} normals or more, "
        f"{worst['over_loop']:.1f} times a NumPy loop or more"
    )


def show(summary: dict[str, Any]) -> None:
    """Print rates, ratios and memory."""
    rates = Table("generator, float32 normals", "10^6 a second")
    for name, rate in sorted(summary["generator_normals_per_second"].items(), key=lambda item: -item[1]):
        rates.add_row(name, f"{rate / 1e6:.0f}")
    Console().print(rates)
    table = Table(
        "optimiser", "coordinates", "10^6 a second", "of generator", "times NumPy loop", "memory MB (bound)"
    )
    for case in summary["cases"]:
        table.add_row(
            case["optimizer"],
            str(case["coordinates"]),
            f"{case['cpu']['coordinates_per_second'] / 1e6:.0f}",
            format_interval(case["cpu"]["of_generator"]),
            format_interval(case["cpu"]["over_loop"]),
            f"{case['memory']['grown_mb']:.0f} ({case['memory']['bound_mb']:.0f})",
        )
    Console().print(table)


class _Sides(pl.Callback):
    """Times each batch of the module, and has the other sides take their turns after it."""

    def __init__(
        self, settings: SyntheticBenchSettings, train: TrainSettings, fill: Fill, done: Callable[[], None]
    ) -> None:
        assert isinstance(train.objective, QuadraticSettings)
        self.turns: list[dict[str, Turn]] = []
        self._settings, self._fill, self._done = settings, fill, done
        self._trajectory = TRAJECTORIES[train.optimizer.name]
        self._curvature = train.objective.curvatures().astype(np.float32)
        self._rate = train.optimizer.learning_rate
        self._random = np.random.Generator(np.random.SFC64(train.seed))
        self._numbers = train.objective.parameters * settings.steps_per_block
        self._clock = _now()
        self._batches = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock = _now()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        ours = _since(self._clock)
        self._batches += 1
        if self._batches > _WARMUP:
            self.turns.append({"module": ours, "generator": self._draw(), "loop": self._loop()})
            self._done()
        self._clock = _now()

    def _draw(self) -> Turn:
        start = _now()
        for _ in range(-(-self._numbers // BLOCK)):
            self._fill()
        return _since(start)

    def _loop(self) -> Turn:
        start = _now()
        for _ in range(self._settings.loop_trajectories):
            self._trajectory(self._random, self._curvature, self._rate, self._settings.steps_per_block)
        return _since(start)


def _compare(
    turns: list[dict[str, Turn]], settings: SyntheticBenchSettings, coordinates: int
) -> dict[str, Any]:
    """Return rates and ratios, by the clock (`wall`) and by processor time (`cpu`)."""
    numbers = settings.numbers // coordinates * coordinates * settings.steps_per_block
    drawn = -(-numbers // BLOCK) * BLOCK
    looped = settings.loop_trajectories * coordinates * settings.steps_per_block
    found: dict[str, Any] = {}
    for index, clock in enumerate(("wall", "cpu")):
        each = {side: [turn[side][index] for turn in turns] for side in turns[0]}
        rates = {
            "module": [numbers / seconds for seconds in each["module"]],
            "generator": [drawn / seconds for seconds in each["generator"]],
            "loop": [looped / seconds for seconds in each["loop"]],
        }
        found[clock] = {
            "coordinates_per_second": median(rates["module"]),
            "loop_coordinates_per_second": median(rates["loop"]),
            "of_generator": ratio_interval(rates["module"], rates["generator"]),
            "over_loop": ratio_interval(rates["module"], rates["loop"]),
        }
    return found


def _memory(train: TrainSettings, before: float) -> dict[str, float]:
    """Return what the peak has grown by, and its bound: weights, gradients, moments, and a few blocks."""
    objective = train.objective
    assert isinstance(objective, QuadraticSettings)
    state = 4 * objective.parameters * (2 + len(train.optimizer.moment_names))
    scratch = 8 * 4 * max(BLOCK, objective.coordinates)
    start = 4 * objective.parameters  # the starting point, before it becomes a parameter
    return {
        "bytes_per_coordinate": state / objective.parameters,
        "grown_mb": peak_memory_mb() - before,
        "bound_mb": (state + scratch + start) / 1024**2,
    }


def _generator_rates(seed: int) -> dict[str, float]:
    """Return normals a second of each generator, the best of five turns of processor time."""
    best: dict[str, float] = {}
    found = generators(seed)
    for _ in range(5):
        for name, fill in found.items():
            start = _now()
            for _ in range(_GENERATOR_BLOCKS):
                fill()
            _, seconds = _since(start)
            best[name] = max(best.get(name, 0.0), _GENERATOR_BLOCKS * BLOCK / seconds)
    return best


def _train_settings(
    settings: SyntheticBenchSettings, optimizer: str, coordinates: int, seed: int
) -> TrainSettings:
    config = compose(
        "train",
        [
            *("objective=quadratic", f"optimizer={optimizer}", "trainer=cpu", "logger=none", f"seed={seed}"),
            f"steps={(settings.blocks + _WARMUP) * settings.steps_per_block}",
            f"objective.replicates={settings.numbers // coordinates}",
            f"objective.coordinates={coordinates}",
            "objective.spectrum.name=power_law",
            "objective.spectrum.exponent=1.0",
        ],
    )
    node: Any = OmegaConf.to_container(config, resolve=True)
    return build_train_settings(node)


def _fit(settings: SyntheticBenchSettings, train: TrainSettings, sides: _Sides, held: Run) -> None:
    assert isinstance(train.objective, QuadraticSettings)
    objective = Quadratic(train.objective, train.seed)
    module = LabModule(objective, train.optimizer, Draw(train.seed), train.steps, settings.steps_per_block)
    build_trainer(train.trainer, [], [sides], held.path).fit(module)


def _now() -> Turn:
    return time.perf_counter(), time.process_time()


def _since(start: Turn) -> Turn:
    wall, cpu = _now()
    return wall - start[0], cpu - start[1]
