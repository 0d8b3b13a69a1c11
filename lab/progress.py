"""A progress bar with reward and time left; silent where the output is no terminal."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lab.module import LabModule
from lab.trajectory.recorder import Recorder


class TrainingProgress(pl.Callback):
    """Show step, reward, held-out pass rate and time left.

    Args:
        title: what is being trained.
        recorder: knows the latest pass rate.
    """

    def __init__(self, title: str, recorder: Recorder) -> None:
        console = Console(stderr=True)
        self._recorder = recorder
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._title = title
        self._task: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, LabModule)
        self._progress.start()
        self._task = self._progress.add_task(
            self._title, total=pl_module.total_steps, completed=pl_module.step, note=""
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LabModule)
        metrics = pl_module.last_metrics
        parts = [f"{name} {metrics[name]:.3f}" for name in ("reward", "cross_entropy") if name in metrics]
        if self._recorder.pass_rate is not None:
            parts.append(f"held-out {self._recorder.pass_rate:.3f}")
        self._progress.update(self._task, completed=pl_module.step, note="  ".join(parts))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._progress.stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._progress.stop()
