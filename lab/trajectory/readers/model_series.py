"""A series of full models on disk, read a range of one tensor at a time over all of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lab.errors import BadInput
from lab.settings import suggest
from lab.trajectory.readers.alignment import Aligned
from lab.trajectory.readers.stored import PlainRows, plain_rows, read_rows
from lab.trajectory.series import FLOAT_BYTES, TensorInfo, check_slice


class ModelSeries:
    """Checkpoints that some framework wrote; a `lab.trajectory.series.CheckpointSeries`.

    Attributes:
        directories: where the weights of each checkpoint lie, in order of steps.
        config: parsed config.json of the last checkpoint that has one, else empty.
        tied: canonical name by the name of each tensor that shares its weights.
        skipped: reason by name for tensors that are not compared.
        notes: what a person should know of how the checkpoints were read.
        merged: whether each checkpoint is an adapter added to a base.

    Args:
        aligned: checkpoints of one model, in order of steps.
        notes: further notes, of the layout that found them.
    """

    def __init__(self, aligned: Aligned, notes: Sequence[str] = ()) -> None:
        self._aligned = aligned
        self._found = tuple(notes)
        self._checkpoints = aligned.checkpoints
        self._steps = np.array([item.step for item in self._checkpoints], dtype=np.float64)
        self.directories: tuple[Path, ...] = tuple(item.directory for item in self._checkpoints)
        self.config: dict[str, Any] = next(
            (item.config for item in reversed(self._checkpoints) if item.config), {}
        )
        self.tied: Mapping[str, str] = aligned.tied
        self.skipped: Mapping[str, str] = aligned.skipped
        self.notes: tuple[str, ...] = (*notes, *aligned.notes)
        self.merged: tuple[bool, ...] = tuple(item.merged for item in self._checkpoints)

    @property
    def steps(self) -> np.ndarray:
        """Steps of the checkpoints, float64 [checkpoint], strictly increasing."""
        return self._steps

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Trained tensors in the order of layers, tied ones once."""
        return self._aligned.tensors

    @property
    def total_bytes(self) -> int:
        """Bytes that reading every tensor of every checkpoint once takes from the disk."""
        return sum(tensor.nbytes for item in self._checkpoints for tensor in item.tensors.values())

    def element_bytes(self, name: str) -> int:
        """Return the bytes that one element of a tensor takes over all checkpoints, for progress."""
        return sum(FLOAT_BYTES[item.tensors[self._known(name)].dtype] for item in self._checkpoints)

    def file(self, name: str, checkpoint: int) -> Path:
        """Return the file that holds one tensor of the checkpoint at an index, for messages."""
        return self._checkpoints[checkpoint].tensors[self._known(name)].path

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return elements `start` to `stop` of one tensor, float64 [checkpoint, element], exactly as stored.

        Raises:
            BadInput: no such tensor, or its file cannot be read.
        """
        stop = min(stop, self.tensors[self._known(name)].size)
        values = np.empty((len(self._checkpoints), max(0, stop - start)))
        read_rows([item.tensors[name] for item in self._checkpoints], start, stop, values)
        return values

    def read_into(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        """See `lab.trajectory.series.CheckpointSeries.read_into`; threads may call it at once."""
        check_slice(start, stop, self.tensors[self._known(name)].size, out, len(self._checkpoints))
        read_rows([item.tensors[name] for item in self._checkpoints], start, stop, out)

    def plain_rows(self, name: str) -> PlainRows | None:
        """Return where one tensor lies in the files, None where its bytes are not plain numbers of one type.

        Raises:
            BadInput: a file is gone or changed.
        """
        self._known(name)
        return plain_rows([item.tensors[name] for item in self._checkpoints])

    def select(self, indices: Sequence[int]) -> ModelSeries:
        """Return the series of some of the checkpoints, by increasing index."""
        chosen = tuple(self._checkpoints[index] for index in indices)
        return ModelSeries(replace(self._aligned, checkpoints=chosen), self._found)

    def _known(self, name: str) -> str:
        if name not in self.tensors:
            raise BadInput(f"{name}: no such tensor in these checkpoints; {suggest(name, self.tensors)}")
        return name
