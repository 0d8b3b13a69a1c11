"""Seconds of a jump of re-grounding in a real run, beside the training steps of the same block.

A callback on each side of the one that jumps takes the time that passes between them at the end of each block; the
steps of that block give the time of a step. Ratios are taken block by block. Where a schedule checks a jump with
rollouts, these are in its time: they are a cost that its results count in steps as well.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from statistics import median
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf

from lab.bar import progress_bar
from lab.bench.intervals import format_interval, ratio_interval
from lab.bench.jump_settings import JumpSettings
from lab.bench.machine import machine
from lab.composition import compose
from lab.draw import Draw
from lab.module import LabModule
from lab.provenance import code_version
from lab.regrounding.callback import build_callback
from lab.runs import Run
from lab.trainer import build_trainer
from lab.training import build_objective, build_train_settings

TARGET = 1.0
"""Most steps that a jump may cost."""

_WARMUP_BLOCKS = 1


class Clock(pl.Callback):
    """Stands before and after what is timed; see `marks`.

    Attributes:
        marks: seconds at the end of each batch, one list for each place where it stands.
    """

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.marks.append(time.perf_counter())


def run(settings: JumpSettings, held: Run, seed: int, threads: int) -> dict[str, Any]:
    """Measure and return the summary.

    Raises:
        BadInput: a schedule that there is not, or that has no blocks.
    """
    found: dict[str, dict[str, Any]] = {}
    with progress_bar() as progress:
        bar = progress.add_task("jumping", total=len(settings.schedules))
        for schedule in settings.schedules:
            jumps, steps = _times(settings, schedule, held, seed)
            found[schedule] = {
                "steps_per_jump": ratio_interval(jumps, steps),
                "jump_ms": 1e3 * median(jumps),
                "step_ms": 1e3 * median(steps),
                "target": TARGET,
            }
            progress.advance(bar)
    summary = {
        "what": settings.what,
        **found,
        "settings": {**asdict(settings), "seed": seed, "threads": threads},
        **code_version(),
        "machine": machine(),
    }
    line = ", ".join(f"{name} {format_interval(each['steps_per_jump'])}" for name, each in found.items())
    return {**summary, "result": f"a jump costs, in training steps: {line}"}


def show(summary: dict[str, Any]) -> None:
    """Print a short table."""
    from lab.verbs.train import print_table

    print_table(
        {
            f"{name}: steps a jump costs": format_interval(summary[name]["steps_per_jump"])
            for name in summary["settings"]["schedules"]
        }
    )


def _times(settings: JumpSettings, schedule: str, held: Run, seed: int) -> tuple[list[float], list[float]]:
    """Return the seconds of the jump and of a step, for each block of one run."""
    words = [
        f"regrounding={schedule}",
        f"regrounding.block_steps={settings.block_steps}",
        f"steps={settings.block_steps * (settings.jumps + _WARMUP_BLOCKS)}",
        f"objective.prompts={settings.prompts}",
        f"objective.rollouts={settings.rollouts}",
        f"seed={seed}",
        "logger=none",
    ]
    config: Any = OmegaConf.to_container(compose("train", words), resolve=True)
    train = build_train_settings(config)
    module = LabModule(build_objective(train), train.optimizer, Draw(seed), train.steps, 1)
    jumper = build_callback(train.regrounding, module)
    assert jumper is not None
    before, after = Clock(), Clock()
    build_trainer(train.trainer, [], [before, jumper, after], held.path).fit(module)
    jumps, steps = [], []
    for end in range(settings.block_steps - 1, len(after.marks), settings.block_steps):
        of_block = range(end - settings.block_steps + 2, end + 1)
        jumps.append(after.marks[end] - before.marks[end])
        steps.append(median(before.marks[step] - after.marks[step - 1] for step in of_block))
    return jumps[_WARMUP_BLOCKS:], steps[_WARMUP_BLOCKS:]
