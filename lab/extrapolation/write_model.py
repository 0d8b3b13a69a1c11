"""Writing an extrapolated model: every tensor of every shard, a slice at a time, in float32 arithmetic.

A slice of each checkpoint that has a weight in the forecast is read, combined, rounded and written into its place, so
memory depends neither on the model's size nor on that of its tensors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from lab.errors import BadInput
from lab.extrapolation.combination import Combiner
from lab.extrapolation.extrapolator import Extrapolator, State
from lab.extrapolation.rounding import (
    ITEM_SIZES,
    LARGEST_FINITE,
    STORED_TYPES,
    first_unstorable,
    largest_storable,
    narrow,
)
from lab.extrapolation.shards import Entry, ShardWriter, plan_shards, weight_entry, write_index
from lab.trajectory.readers import ModelSeries, require_finite
from lab.trajectory.series import TensorInfo

SLICE_BYTES = 2**21
"""float32 of all checkpoints that are read at a time: long enough for calls to cost little."""

BLOCK = 2**16
"""Elements combined and rounded at a time: short enough to stay in a core's cache."""
FLUSH_BYTES = 2**26
"""Written bytes after which they are sent on to the disk, so that little is left to wait for at the end."""


@dataclass(frozen=True)
class Plan:
    """What will be written.

    Attributes:
        combinations: of each tensor, weights on the checkpoints, float64 [checkpoint].
        references: of each tensor, the checkpoint from which its forecast is computed.
        rows: checkpoints that have a weight in any tensor.
        dtypes: stored type of each tensor.
        aliases: further names under which a tensor is written.
        shards: the files and what they hold.
        others: tensors taken over bit by bit from the last checkpoint.
    """

    combinations: dict[str, np.ndarray]
    references: dict[str, int]
    rows: list[int]
    dtypes: dict[str, str]
    aliases: dict[str, list[str]]
    shards: dict[str, list[Entry]]
    others: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for shard in self.shards.values() for entry in shard)


def plan_model(
    series: ModelSeries,
    extrapolator: Extrapolator,
    state: State,
    target: float,
    dtype: str,
    shard_size: int,
    others: Mapping[str, tuple[Entry, np.ndarray]],
) -> Plan:
    """Decide what will be written, without reading a weight.

    Args:
        series: whose last checkpoint gives names, shapes and, for `dtype` "same", types.
        extrapolator: with `state` finished.
        target: step.
        dtype: "same" or one of `rounding.STORED_TYPES`.
        shard_size: bytes.
        others: tensors that are not extrapolated, as raw bytes.

    Raises:
        BadInput: the target is not after the last checkpoint, or a forecast's weights do not fit float32.
    """
    combinations: dict[str, np.ndarray] = {}
    references: dict[str, int] = {}
    last = len(series.steps) - 1
    rows = {last}
    for name in series.tensors:
        combination = extrapolator.combination(state, name, target)
        if not np.abs(combination).max() < LARGEST_FINITE["float32"]:
            raise BadInput(
                f"target: the forecast of {name} weighs checkpoints by up to {np.abs(combination).max():g}, more than "
                "float32 holds; lower target or alpha, or set norm_cap"
            )
        reference = last if extrapolator.rules.copied(name) else extrapolator.reference % (last + 1)
        combinations[name], references[name] = combination, reference
        rows |= {reference, *np.flatnonzero(combination)}
    dtypes = {name: _stored_type(info, dtype) for name, info in series.tensors.items()}
    # Where the configuration ties them, a loader wants one copy; where it does not, each name needs its own.
    aliases: dict[str, list[str]] = {}
    for alias, name in series.tied.items():
        if not series.config.get("tie_word_embeddings"):
            aliases.setdefault(name, []).append(alias)
    entries = [
        weight_entry(written, dtypes[name], info.shape)
        for name, info in series.tensors.items()
        for written in (name, *aliases.get(name, []))
    ]
    entries += [entry for entry, _ in others.values()]
    return Plan(
        combinations,
        references,
        sorted(int(row) for row in rows),
        dtypes,
        aliases,
        plan_shards(entries, shard_size),
        {name: raw for name, (_, raw) in others.items()},
    )


def write_weights(
    series: ModelSeries,
    plan: Plan,
    target: float,
    directory: Path,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the shards and their index into `directory` and return the bytes read.

    The result does not depend on the number of workers.

    Args:
        series: of the checkpoints `plan.rows` alone, in that order.
        plan: from `plan_model`.
        target: step, for messages.
        directory: exists, and holds no weights.
        workers: slices handled at a time, each by a thread.
        progress: called with the bytes of each slice that was written.

    Raises:
        BadInput: a weight, or its forecast in the stored type, is not finite; the message names the tensor.
        OSError: the disk is full or fails.
    """
    owners = {alias: name for name, names in plan.aliases.items() for alias in names}
    length = max(1, SLICE_BYTES // 4 // len(plan.rows))
    forecast = Forecaster(series, plan, target, length)
    read = 0
    for file, entries in plan.shards.items():
        with ShardWriter(directory / file, entries) as shard, threads(workers) as pool, threads(1) as flusher:
            pending: list[Future[int]] = []
            flushed: list[Future[None]] = []
            for entry in entries:
                if entry.name in plan.others:
                    shard.write(entry.name, 0, plan.others[entry.name])
                    continue
                name = owners.get(entry.name, entry.name)
                for start in range(0, series.tensors[name].size, length):
                    pending.append(pool.submit(forecast.write_slice, shard, entry.name, name, start))
                read += len(plan.rows) * series.tensors[name].nbytes
            unflushed = 0
            for future in pending:
                written = future.result()
                if progress is not None:
                    progress(written)
                unflushed += written
                if unflushed >= FLUSH_BYTES:
                    unflushed = 0
                    flushed.append(flusher.submit(shard.flush))
            for flush in flushed:  # The system reports a failed write once, to whoever asks first.
                flush.result()
    write_index(directory, plan.shards)
    return read


class Forecaster:
    """Reads, combines, rounds and writes one slice at a time in each thread, in memory of its own.

    Args:
        series, plan, target: as in `write_weights`.
        length: elements of a slice.
    """

    def __init__(self, series: ModelSeries, plan: Plan, target: float, length: int) -> None:
        self._series, self._plan, self._target, self._length = series, plan, target, length
        self._scratch = threading.local()
        self._combiners: dict[str, tuple[Combiner, int]] = {}

    def write_slice(self, shard: ShardWriter, written_as: str, name: str, start: int) -> int:
        """Write the forecast of elements from `start` of a tensor and return its bytes.

        Raises:
            BadInput, OSError: see `write_weights`.
        """
        count = min(self._length, self._series.tensors[name].size - start)
        scratch = self._scratch
        if not hasattr(scratch, "buffer"):
            scratch.buffer = np.empty(len(self._plan.rows) * self._length, dtype=np.float32)
            scratch.halves = np.empty(self._length, dtype=np.uint16)
        stored = self._of_pair(name, start, count)
        if stored is None:
            stored = self._of_rows(name, start, count)
        shard.write(written_as, start * ITEM_SIZES[self._plan.dtypes[name]], stored)
        return int(stored.nbytes)

    def _of_pair(self, name: str, start: int, count: int) -> np.ndarray | None:
        """Return what is stored of a bfloat16 tensor that two checkpoints forecast; None of others and on errors."""
        combiner, _ = self._combiner(name)
        pair = combiner.pair
        if self._plan.dtypes[name] != "bfloat16" or pair is None:
            return None
        files = self._series.plain_rows(name)
        if files is None or files.dtype != "bfloat16":
            return None
        from lab.extrapolation.bfloat16_pair import forecast_pair

        chosen = list(pair)
        numbers = self._scratch.buffer.view(np.uint16)[: 2 * count].reshape(2, count)
        out: np.ndarray = self._scratch.halves[:count]
        done = forecast_pair(
            files.descriptors[chosen],
            files.offsets[chosen] + start * ITEM_SIZES["bfloat16"],
            combiner.factor(pair[1]),
            largest_storable("bfloat16").view(np.uint32),
            numbers,
            out,
        )
        return out if done else None

    def _of_rows(self, name: str, start: int, count: int) -> np.ndarray:
        """Return what is stored of any tensor.

        Raises:
            BadInput: a weight, or its forecast in the stored type, is not finite, or a file cannot be read.
        """
        scratch, rows, dtype = self._scratch, len(self._plan.rows), self._plan.dtypes[name]
        combiner, reference = self._combiner(name)
        values = scratch.buffer[: rows * count].reshape(rows, count)
        self._series.read_into(name, start, start + count, values)
        with np.errstate(over="ignore", invalid="ignore"):
            for begin in range(0, count, BLOCK):
                block = slice(begin, min(begin + BLOCK, count))
                forecast = combiner.in_place(values[:, block])
                bad = first_unstorable(forecast, dtype)
                if bad is not None:
                    self._refuse(name, start + begin + bad, float(forecast[bad]), dtype)
                if dtype != "float32":
                    narrow(forecast, dtype, scratch.halves[block])
        stored: np.ndarray = values[reference] if dtype == "float32" else scratch.halves[:count]
        return stored

    def _combiner(self, name: str) -> tuple[Combiner, int]:
        """Return what combines the rows that are read of a tensor, and the row in which the forecast comes to lie."""
        found = self._combiners.get(name)
        if found is None:
            reference = self._plan.rows.index(self._plan.references[name])
            found = Combiner(self._plan.combinations[name][self._plan.rows], reference), reference
            self._combiners[name] = found  # Two threads may both have made it; they are the same.
        return found

    def _refuse(self, name: str, element: int, value: float, dtype: str) -> NoReturn:
        """Say whether a weight that was read or its forecast cannot be stored."""
        read = np.empty((len(self._plan.rows), 1), dtype=np.float32)
        self._series.read_into(name, element, element + 1, read)
        require_finite(self._series, name, element, read)
        raise BadInput(
            f"{name}: the forecast for step {self._target:g} is {value:g} at element {element}, and {dtype} ends at "
            f"{LARGEST_FINITE[dtype]:.4g}; lower target or alpha, set norm_cap, or choose another dtype"
        )


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for a block of code; when it ends in an error, work under way is finished and the rest dropped."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _stored_type(info: TensorInfo, dtype: str) -> str:
    """Return the type that a tensor is stored in; the arithmetic is float32, so no more precision is claimed."""
    wanted = info.dtype if dtype == "same" else dtype
    return "float32" if wanted == "float64" else wanted


def other_tensors(files: Iterable[Path], names: Iterable[str]) -> dict[str, tuple[Entry, np.ndarray]]:
    """Return raw bytes of the tensors of a model that are not weights: counters, masks, tables.

    Args:
        files: of weights, safetensors or PyTorch.
        names: those wanted; one that is in none of the files is left out.

    Raises:
        BadInput: a tensor is of a type that is not copied.
    """
    wanted = set(names)
    if not wanted:
        return {}
    import torch
    from safetensors import safe_open

    kinds = {torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"}
    kinds |= {torch.bool: "BOOL", torch.float64: "F64"}
    kinds |= {getattr(torch, name): kind for name, kind in STORED_TYPES.items()}
    found = {}
    for file in sorted(files):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                inside = {name: opened.get_tensor(name) for name in wanted.intersection(opened.keys())}
        else:
            loaded = torch.load(file, weights_only=True, mmap=True, map_location="cpu")
            inside = {name: loaded[name] for name in wanted.intersection(loaded)}
        for name, tensor in inside.items():
            if tensor.dtype not in kinds:
                raise BadInput(f"{file}: {name} is stored as {tensor.dtype}, which cannot be copied")
            raw = tensor.contiguous().flatten().view(torch.uint8).numpy().copy()
            shape = tuple(tensor.shape)
            found[name] = (Entry(name, kinds[tensor.dtype], shape, len(raw)), raw)
    return found
