"""PyTorch `.bin` and `.pt` files: loaded with `weights_only`, which runs no code, and mapped, not copied."""

from __future__ import annotations

import math
import pickle
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.errors import BadInput
from lab.trajectory.readers.source_file import SourceFile
from lab.trajectory.readers.stored import OtherTensor
from lab.trajectory.series import FLOAT_BYTES

if TYPE_CHECKING:
    import torch

MAPPED_BYTES = 256 * 2**20
"""Mapped pages count as memory of the process: after this many bytes, over all files, mappings are renewed."""

WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which training scripts put the weights beside other things."""


class _Mapped:
    """The tensors of one file, mapped when first needed and let go when too much has been read."""

    _lock = threading.Lock()
    _all: weakref.WeakSet[_Mapped] = weakref.WeakSet()
    _read = 0

    def __init__(self, path: Path) -> None:
        self.file = SourceFile(path)
        self._tensors: dict[str, torch.Tensor] | None = None
        with self._lock:
            self._all.add(self)

    def tensors(self, about_to_read: int = 0) -> dict[str, torch.Tensor]:
        """Return the tensors by name; `about_to_read` bytes count towards the next renewal."""
        cls = type(self)
        with cls._lock:
            cls._read += about_to_read
            if cls._read > MAPPED_BYTES:
                cls._read = about_to_read
                for mapped in cls._all:
                    mapped._tensors = None  # a thread that still reads holds its own reference
            if self._tensors is None:
                self._tensors = _load(self.file)
            return self._tensors


@dataclass(frozen=True)
class TorchTensor:
    """A tensor inside a mapped PyTorch file."""

    mapped: _Mapped
    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def path(self) -> Path:
        """File that holds the values."""
        return self.mapped.file.path

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor in the file."""
        return math.prod(self.shape) * FLOAT_BYTES[self.dtype]

    def read_into(self, start: int, stop: int, out: np.ndarray) -> None:
        """See `StoredTensor.read_into`.

        Raises:
            BadInput: the file is gone, changed or damaged.
        """
        import torch

        tensor = self.mapped.tensors((stop - start) * FLOAT_BYTES[self.dtype])[self.name]
        torch.from_numpy(out).copy_(tensor.reshape(-1)[start:stop])


def read_file(path: Path) -> dict[str, TorchTensor | OtherTensor]:
    """Return the tensors of a PyTorch file.

    Raises:
        BadInput: it cannot be read, is damaged, or holds more than tensors; the message names it.
    """
    mapped = _Mapped(path)
    found: dict[str, TorchTensor | OtherTensor] = {}
    for name, tensor in mapped.tensors().items():
        dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
        plain = dtype in FLOAT_BYTES and tensor.device.type == "cpu" and not tensor.is_sparse
        found[name] = TorchTensor(mapped, name, dtype, shape) if plain else OtherTensor(path, dtype, shape)
    return found


def _load(file: SourceFile) -> dict[str, torch.Tensor]:
    import torch

    path = file.path
    if file.size == 0:
        raise BadInput(f"{path}: empty file; copy it again")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise BadInput(
            f"{path}: holds Python objects beside tensors, and loading those can run code from the file, so it is "
            "refused; in an environment you trust, save its tensors as safetensors"
        ) from None
    except RuntimeError as error:
        if "mmap can only be used" in str(error):
            raise BadInput(
                f"{path}: written in PyTorch's format from before 1.6, or damaged; load it in an environment you "
                "trust and save its tensors as safetensors"
            ) from None
        raise BadInput(f"{path}: damaged PyTorch file ({_first_line(error)}); copy it again") from None
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: damaged PyTorch file ({_first_line(error)}); copy it again") from None
    tensors = dict(_named_tensors(_unwrapped(loaded)))
    if not tensors:
        raise BadInput(f"{path}: no tensors by name in this file; a state_dict was expected")
    return tensors


def _unwrapped(loaded: Any) -> Any:
    while isinstance(loaded, Mapping):
        inside = [loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)]
        if not inside:
            return loaded
        loaded = inside[0]
    return loaded


def _named_tensors(loaded: Any) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    if isinstance(loaded, Mapping):
        for name, value in loaded.items():
            if isinstance(name, str) and isinstance(value, torch.Tensor):
                yield name, value


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
