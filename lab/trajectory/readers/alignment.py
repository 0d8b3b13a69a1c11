"""Whether checkpoints are of one model: the same tensors, shapes and ties, or a message that names what differs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lab.errors import BadInput
from lab.trajectory.readers.checkpoint import Checkpoint
from lab.trajectory.readers.stored import StoredTensor
from lab.trajectory.readers.ties import find_ties
from lab.trajectory.series import TensorInfo

PRECISION = ("bfloat16", "float16", "float32", "float64")
"""Stored types from the least precise to the most, by bits of the significand."""

SAME = ("model_type", "architectures")
"""Keys of config.json that say which architecture a checkpoint is of."""


@dataclass(frozen=True)
class Aligned:
    """Checkpoints with the same tensors.

    Attributes:
        checkpoints: in order of steps, tied tensors dropped.
        tensors: what every checkpoint holds, in the order of layers.
        tied: canonical name by the name of each tied tensor.
        skipped: reason by name for what is not compared.
        notes: what a person should know.
    """

    checkpoints: tuple[Checkpoint, ...]
    tensors: Mapping[str, TensorInfo]
    tied: Mapping[str, str]
    skipped: Mapping[str, str]
    notes: tuple[str, ...]


def align(checkpoints: Sequence[Checkpoint]) -> Aligned:
    """Return checkpoints of one model, tied tensors once.

    Raises:
        BadInput: they are of different models; the message names a tensor and both checkpoints.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        _check_architecture(first, other)
    tied, notes = find_ties(checkpoints)
    untied = tuple(
        replace(item, tensors={name: tensor for name, tensor in item.tensors.items() if name not in tied})
        for item in checkpoints
    )
    for other in untied[1:]:
        _check_names(untied[0], other)
        _check_shapes(untied[0], other)
    names = sorted(untied[0].tensors, key=_in_order_of_layers)
    tensors = {name: _info([item.tensors[name] for item in untied]) for name in names}
    notes += _mixed_types(untied)
    skipped = {name: reason for item in untied for name, reason in item.skipped.items()}
    return Aligned(untied, tensors, tied, skipped, (*_collected(checkpoints), *notes))


def _check_architecture(first: Checkpoint, other: Checkpoint) -> None:
    for key in SAME:
        one, another = first.config.get(key), other.config.get(key)
        if one is not None and another is not None and one != another:
            raise BadInput(
                f"different architectures: config.json has {key}={one!r} in {first.directory} and {another!r} in "
                f"{other.directory}"
            )


def _check_names(first: Checkpoint, other: Checkpoint) -> None:
    only_first = sorted(first.tensors.keys() - other.tensors.keys())
    only_other = sorted(other.tensors.keys() - first.tensors.keys())
    if not only_first and not only_other:
        return
    parts = [
        f"only in {item.directory}: {_some(names)}"
        for item, names in ((first, only_first), (other, only_other))
        if names
    ]
    prefix = _prefix(only_first, only_other)
    hint = f"; the same names up to the prefix {prefix!r}: save both in the same way" if prefix else ""
    raise BadInput(f"different tensors, so not checkpoints of one run: {'; '.join(parts)}{hint}")


def _check_shapes(first: Checkpoint, other: Checkpoint) -> None:
    for name, tensor in first.tensors.items():
        shape = other.tensors[name].shape
        if tensor.shape != shape:
            raise BadInput(
                f"{name}: shape {list(tensor.shape)} in {first.directory} and {list(shape)} in {other.directory}, "
                "so not checkpoints of one run"
            )


def _prefix(some: Sequence[str], others: Sequence[str]) -> str:
    """Return what all names of one list have before those of the other, empty where that is not the difference."""
    for longer, shorter in ((some, others), (others, some)):
        for name in shorter:
            if longer and longer[0].endswith(name):
                prefix = longer[0].removesuffix(name)
                if prefix and sorted(prefix + short for short in shorter) == sorted(longer):
                    return prefix
    return ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _info(stored: Sequence[StoredTensor]) -> TensorInfo:
    dtype = min((tensor.dtype for tensor in stored), key=PRECISION.index)
    return TensorInfo(math.prod(stored[0].shape), dtype, stored[0].shape)


def _mixed_types(checkpoints: Sequence[Checkpoint]) -> list[str]:
    notes: dict[str, list[str]] = {}
    for name in checkpoints[0].tensors:
        types = {item.tensors[name].dtype: item.directory for item in reversed(checkpoints)}
        if len(types) > 1:
            kinds = " and ".join(f"{dtype} from {directory}" for dtype, directory in reversed(types.items()))
            notes.setdefault(kinds, []).append(name)
    return [
        f"stored as {kinds}: {_some(names)}; differences between them include the rounding to the narrower type"
        for kinds, names in notes.items()
    ]


def _in_order_of_layers(name: str) -> list[tuple[bool, int, str]]:
    """Sort `layers.2` before `layers.10`."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _collected(checkpoints: Iterable[Checkpoint]) -> list[str]:
    return list(dict.fromkeys(note for item in checkpoints for note in item.notes))
