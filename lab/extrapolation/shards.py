"""Writing a model as safetensors shards, slice by slice, in memory that does not depend on its size.

The layout of a file is fixed before its first weight: eight bytes, the length of the header as a little-endian
integer; the header, a JSON object of `name: {dtype, shape, data_offsets}`, padded with spaces; then the data without
gaps (https://github.com/huggingface/safetensors#format). Shards are named and listed as Transformers does.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lab.extrapolation.rounding import ITEM_SIZES, STORED_TYPES
from lab.files import write_json

INDEX = "model.safetensors.index.json"
_ALIGNMENT = 8


@dataclass(frozen=True)
class Entry:
    """One tensor to be written.

    Attributes:
        name: in the file.
        dtype: as a safetensors header spells it.
        shape: of the tensor.
        nbytes: bytes it takes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def weight_entry(name: str, dtype: str, shape: tuple[int, ...]) -> Entry:
    """Return the entry of a floating-point tensor of a type in `rounding.STORED_TYPES`."""
    return Entry(name, STORED_TYPES[dtype], shape, math.prod(shape) * ITEM_SIZES[dtype])


def plan_shards(entries: Iterable[Entry], shard_size: int) -> dict[str, list[Entry]]:
    """Return the file that each tensor goes to, in their order, no file larger than `shard_size` where possible.

    A tensor larger than that has a file of its own. One file is `model.safetensors`, several are numbered.
    """
    shards: list[list[Entry]] = []
    room = 0
    for entry in entries:
        if not shards or entry.nbytes > room:
            shards.append([])
            room = shard_size
        shards[-1].append(entry)
        room -= entry.nbytes
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {
        f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards, start=1)
    }


def write_index(directory: Path, plan: dict[str, list[Entry]]) -> None:
    """Write the file that says which shard holds which tensor; none for a single file."""
    if len(plan) == 1:
        return
    total = sum(entry.nbytes for shard in plan.values() for entry in shard)
    weight_map = {entry.name: file for file, shard in plan.items() for entry in shard}
    write_json(
        directory / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    )


class ShardWriter:
    """One safetensors file being filled; use it as a context manager.

    Tensors may be written in any order and in slices; those of wider types lie first, so that each is aligned.

    Args:
        path: of the file, which must not exist.
        entries: what it will hold.

    Raises:
        OSError: the file cannot be made, or the disk has not the room for it.
    """

    def __init__(self, path: Path, entries: list[Entry]) -> None:
        ordered = sorted(entries, key=lambda entry: -(entry.nbytes // max(math.prod(entry.shape), 1)))
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offsets, end = {}, 0
        for entry in ordered:
            offsets[entry.name] = end
            header[entry.name] = {
                "dtype": entry.dtype,
                "shape": list(entry.shape),
                "data_offsets": [end, end + entry.nbytes],
            }
            end += entry.nbytes
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        start = 8 + len(text)
        self._offsets = {name: start + offset for name, offset in offsets.items()}
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._descriptor, 0, start + end)
            self._write(len(text).to_bytes(8, "little") + text, 0)
        except BaseException:
            os.close(self._descriptor)
            raise

    def write(self, name: str, offset: int, data: np.ndarray | bytes) -> None:
        """Write bytes of a tensor, `offset` bytes after its start.

        Raises:
            OSError: the disk is full or fails.
        """
        self._write(data, self._offsets[name] + offset)

    def flush(self) -> None:
        """Wait until what was written so far is on the disk; other threads may write meanwhile.

        Raises:
            OSError: the disk is full or fails.
        """
        getattr(os, "fdatasync", os.fsync)(
            self._descriptor
        )  # The file's size and times can wait until the end.

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def _write(self, data: Any, offset: int) -> None:
        if not len(data):
            return
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += os.pwrite(self._descriptor, view[done:], offset + done)
