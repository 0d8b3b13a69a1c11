"""A series of checkpoints, wherever it came from: steps, tensors, and slices of one tensor over all steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lab.errors import BadInput

if TYPE_CHECKING:
    import xarray as xr


FLOAT_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one element of each floating-point type that weights are stored in."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a series, as far as it can be read."""

    size: int
    """Readable elements: all of them, or those that were sampled."""
    dtype: str
    """Floating-point type in which the values were stored, as NumPy and PyTorch spell it; where checkpoints
    differ, the one of least precision."""
    shape: tuple[int, ...] = ()
    """Shape of the whole tensor; empty where only sampled elements are known."""

    @property
    def nbytes(self) -> int:
        """Bytes that the readable elements take in one checkpoint stored as `dtype`."""
        return self.size * FLOAT_BYTES[self.dtype]


class CheckpointSeries(Protocol):
    """What measurement and extrapolation read. Values come as float64 whatever the stored type."""

    @property
    def steps(self) -> np.ndarray:
        """Steps of the checkpoints, strictly increasing, possibly unequally spaced."""
        ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The tensors by name, tied ones once."""
        ...

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return elements `start` to `stop` of one tensor, float64 [checkpoint, element]."""
        ...

    def read_into(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        """Fill `out`, float32 [checkpoint, stop - start] in C order, without another array of its size.

        Narrower stored types are widened exactly, float64 is rounded to nearest.

        Raises:
            BadInput: no such tensor, or its file cannot be read.
            ValueError: `out` or the range does not fit.
        """
        ...


def check_slice(start: int, stop: int, size: int, out: np.ndarray, checkpoints: int) -> None:
    """Refuse a range outside [0, size] and an `out` that is not float32 [checkpoints, stop - start] in C order.

    Raises:
        ValueError: says which of the two.
    """
    if not 0 <= start <= stop <= size:
        raise ValueError(f"elements {start} to {stop} of a tensor of {size}")
    if out.dtype != np.float32 or out.shape != (checkpoints, stop - start) or not out.flags.c_contiguous:
        raise ValueError(
            f"out must be float32 of shape {(checkpoints, stop - start)} in C order, got {out.dtype} {out.shape}"
        )


class RunSeries:
    """The sampled weights of one of the lab's own runs.

    Args:
        source: an opened store, or the path of a run directory or store.

    Raises:
        BadInput: the store is missing, unreadable or does not follow the schema.
    """

    def __init__(self, source: xr.DataTree | str | Path) -> None:
        from lab.trajectory.store import group, open_store  # xarray is slow to import

        self.tree = open_store(source) if isinstance(source, (str, Path)) else source
        self._weights = group(self.tree, "weights")
        names = self._weights["tensor"].values.astype(str)
        changes = np.flatnonzero(names[1:] != names[:-1]) + 1
        starts = np.concatenate([[0], changes])
        stops = np.concatenate([changes, [len(names)]])
        self._spans = {
            str(names[start]): (int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)
        }

    @property
    def steps(self) -> np.ndarray:
        """Recorded steps."""
        return np.asarray(self._weights["step"].values, dtype=np.float64)

    @property
    def updates(self) -> np.ndarray:
        """Optimiser updates done at each recorded step."""
        return np.asarray(self._weights["update"].values, dtype=np.float64)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Sampled tensors in the order of the model."""
        dtype = str(self.tree.attrs["source_dtype"])
        return {name: TensorInfo(stop - start, dtype) for name, (start, stop) in self._spans.items()}

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """See `CheckpointSeries.read`; elements are the sampled coordinates of the tensor."""
        return self._read("weight", name, start, stop)

    def read_into(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        """See `CheckpointSeries.read_into`."""
        values = self.read(name, start, stop)
        check_slice(start, stop, self.tensors[name].size, out, len(values))
        out[...] = values

    def read_momentum_free(self, name: str, start: int, stop: int) -> np.ndarray | None:
        """Return the momentum-free positions of the same elements, None where none were recorded."""
        return self._read("momentum_free", name, start, stop) if "momentum_free" in self._weights else None

    @property
    def momentum(self) -> float:
        """Decay of the optimiser's first moment; 0 for none."""
        return float(self.tree.attrs["momentum"])

    def _read(self, variable: str, name: str, start: int, stop: int) -> np.ndarray:
        if name not in self._spans:
            raise BadInput(f"{name}: no such tensor in this run; known: {', '.join(self._spans)}")
        first, last = self._spans[name]
        values = self._weights[variable].values[:, first + start : min(first + stop, last)]
        return np.asarray(values, dtype=np.float64)
