"""Runs of a synthetic objective with many cells, inside an experiment's own run directory; what is done is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from lab.composition import compose
from lab.runs import Run
from lab.training import build_train_settings, train
from lab.trajectory.store import group, open_store


def train_cells(
    held: Run, name: str, overrides: Sequence[str], cells: Sequence[dict[str, Any]], seed: int
) -> Path:
    """Train the child run `name` as `lab train` would, unless it is finished; return its directory.

    Args:
        held: run directory of the experiment.
        name: of the child.
        overrides: of `lab train`, without the cells.
        cells: `objective.cells`; see `lab.objectives.synthetic_settings`.
        seed: of the run.

    Raises:
        BadInput: an impossible setting, or the child is there with other settings.
        RunFailed, Interrupted: see `lab.training.train`.
    """
    words = ["logger=none", "recorder.evaluate=false", *overrides, f"seed={seed}"]
    resolved: Any = OmegaConf.to_container(compose("train", words), resolve=True)
    resolved["objective"]["cells"] = list(cells)
    settings = build_train_settings(resolved)
    child = held.child(name, resolved)
    if not child.finished:
        with child:
            train(settings, child, title=name)
    return child.path


def positions(run: Path, cells: int) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Return what a finished run recorded: steps [checkpoint], and of each cell its weights, and its momentum-free
    positions, float64 [checkpoint, replicate x coordinate]; the same where there is no momentum."""
    weights = group(open_store(run), "weights")
    owner = weights["cell"].values
    raw = weights["weight"].values
    free = weights["momentum_free"].values if "momentum_free" in weights else raw
    tables = [[table[:, owner == cell].astype(np.float64) for cell in range(cells)] for table in (raw, free)]
    return weights["step"].values.astype(np.float64), tables[0], tables[1]
