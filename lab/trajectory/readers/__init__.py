"""Readers of checkpoints that other frameworks wrote, and of the lab's own.

`open_series` takes whatever names them: a folder of `checkpoint-N` (Transformers, TRL, the lab), of
`global_step_N` (verl) or `step_N`, one model, a list of PATH@STEP, a file that lists them, `hub:OWNER/NAME`,
or a run of the lab. Weights are safetensors (whole or sharded), PyTorch files without code, or LoRA adapters,
merged while they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.errors import BadInput
from lab.trajectory.readers.alignment import align
from lab.trajectory.readers.checkpoint import Opener
from lab.trajectory.readers.checks import require_checkpoints, require_finite
from lab.trajectory.readers.layouts import Entry, HubApi, find, find_base, in_order
from lab.trajectory.readers.layouts.numbered import find_numbered
from lab.trajectory.readers.model_series import ModelSeries
from lab.trajectory.series import CheckpointSeries

__all__ = ["ModelSeries", "open_series", "require_checkpoints", "require_finite"]

STORE = "trajectory.nc"


def open_series(
    source: str | Path | Sequence[Any], base: str | Path | None = None, *, hub: HubApi | None = None
) -> CheckpointSeries:
    """Open the checkpoints that `source` names; only headers are read.

    Args:
        source: a path, `hub:OWNER/NAME`, or a list of PATH@STEP.
        base: the model that training started from; becomes step 0, and the base of adapters.
        hub: stands in for `huggingface_hub.HfApi`.

    Returns:
        A `ModelSeries`; of a run of the lab without full checkpoints, the `RunSeries` of its sampled weights.

    Raises:
        BadInput: there are no checkpoints, or they are damaged, of different models, or of the same step; the message
            names the file and the tensor.
    """
    store = _sampled_store(source)
    if store is not None:
        from lab.trajectory.series import RunSeries

        if base is not None:
            raise BadInput(f"base: {store} holds sampled weights of a run and its own step 0; leave base out")
        return RunSeries(store)
    found = find(source, hub)
    entries = found.entries
    start = None
    if base is not None:
        start = find_base(base, hub)
        zero = [entry for entry in entries if entry.step == 0]
        if zero:
            raise BadInput(
                f"base: {zero[0].path} is step 0 already; leave base out, or give {zero[0].path} a step"
            )
        entries = (Entry(0, start), *entries)
    opener = Opener(start)
    checkpoints = [opener.open(entry.step, entry.path) for entry in in_order(entries)]
    return ModelSeries(align(checkpoints), found.notes)


def _sampled_store(source: str | Path | Sequence[Any]) -> Path | None:
    """Return the store of a run of the lab that kept no full checkpoints, None where `source` is none."""
    if not isinstance(source, (str, Path)):
        return None
    path = Path(source).expanduser()
    if path.is_file() and path.suffix == ".nc":
        return path
    is_run = (path / STORE).is_file() and (path / "config.yaml").is_file()
    return path if is_run and find_numbered(path) is None else None
