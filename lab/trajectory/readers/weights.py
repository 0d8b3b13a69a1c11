"""The weights of one checkpoint: which files of a directory hold them, and every tensor in them.

A format is a name to look for and a function that reads it; to add one, add it to `FORMATS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import BadInput
from lab.files import read_json
from lab.trajectory.readers.safetensors_file import read_header
from lab.trajectory.readers.source_file import unreadable
from lab.trajectory.readers.stored import OtherTensor, StoredTensor

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"

Tensors = Mapping[str, StoredTensor | OtherTensor]


@dataclass(frozen=True)
class Weights:
    """What one checkpoint holds.

    Attributes:
        directory: where it lies.
        tensors: by name, as stored.
        config: parsed config.json; empty where there is none.
        notes: what a person should know of how it was read.
    """

    directory: Path
    tensors: dict[str, StoredTensor | OtherTensor]
    config: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_safetensors(path: Path) -> dict[str, StoredTensor | OtherTensor]:
    """Return the tensors of one safetensors file."""
    return dict(read_header(path))


def read_torch(path: Path) -> dict[str, StoredTensor | OtherTensor]:
    """Return the tensors of one PyTorch file."""
    from lab.trajectory.readers.torch_file import read_file

    return dict(read_file(path))


def read_sharded(index: Path) -> dict[str, StoredTensor | OtherTensor]:
    """Return the tensors of the shards that an index file lists.

    Raises:
        BadInput: the index or a shard is missing or damaged, or they disagree about a tensor.
    """
    content = read_object(index)
    listed = content.get("weight_map")
    if (
        not isinstance(listed, dict)
        or not listed
        or not all(isinstance(file, str) for file in listed.values())
    ):
        raise BadInput(f"{index}: no weight_map from tensor names to files; copy the index again")
    read_one = read_safetensors if index.name.endswith(".safetensors.index.json") else read_torch
    found: dict[str, StoredTensor | OtherTensor] = {}
    for shard in sorted(set(listed.values())):
        names = [name for name, file in listed.items() if file == shard]
        if Path(shard).name != shard:
            raise BadInput(f"{index}: points to {shard!r}, outside its own directory")
        if not (index.parent / shard).is_file():
            raise BadInput(
                f"{index}: points to {shard}, which is not there ({names[0]} should be in it); copy the shard again"
            )
        inside = read_one(index.parent / shard)
        missing = [name for name in names if name not in inside]
        if missing:
            raise BadInput(f"{index}: lists {missing[0]} in {shard}, which does not hold it")
        unlisted = sorted(inside.keys() - set(names))
        if unlisted:
            raise BadInput(
                f"{index.parent / shard}: holds {unlisted[0]}, which {index.name} does not list there"
            )
        found |= inside
    return found


FORMATS: dict[str, Callable[[Path], dict[str, StoredTensor | OtherTensor]]] = {
    "model.safetensors": read_safetensors,
    "model.safetensors.index.json": read_sharded,
    "pytorch_model.bin": read_torch,
    "pytorch_model.bin.index.json": read_sharded,
}
"""Files that hold a model's weights or list them, the preferred first."""

SINGLE_FILES = {".safetensors": read_safetensors, ".bin": read_torch, ".pt": read_torch, ".pth": read_torch}
"""How a file handed in by its own name is read, by ending."""


FOREIGN = (
    (
        "model-",
        ".safetensors",
        "shards such as {name} without model.safetensors.index.json; copy the index too",
    ),
    (
        "pytorch_model-",
        ".bin",
        "shards such as {name} without pytorch_model.bin.index.json; copy the index too",
    ),
    ("model_world_size_", ".pt", "FSDP shards of verl, not a model; merge them with `{merge}`"),
    (
        "zero_to_fp32",
        ".py",
        "DeepSpeed shards; merge them with `python {path}/zero_to_fp32.py {path} {path}/hf_model`",
    ),
    (
        "pytorch_model_fsdp",
        "",
        "FSDP shards; merge them with `accelerate merge-weights {path}/{name} {path}/hf_model`",
    ),
    ("", ".gguf", "{name}: GGUF is not read; load it in Transformers with dequantize=True and save it"),
)
"""Beginning and end of names that say what else a directory without a model holds, and what to do about it."""


def has_weights(directory: Path) -> bool:
    """Return whether a directory holds a model's weights or an adapter's."""
    return any(os.path.lexists(directory / name) for name in (*FORMATS, ADAPTER_CONFIG))


def read_weights(path: Path) -> Weights:
    """Read where the tensors of a full model lie: a directory, or one file of weights.

    Raises:
        BadInput: there are none, or a file is missing or damaged.
    """
    if path.is_file():
        read_one = SINGLE_FILES.get(path.suffix)
        if read_one is None:
            raise BadInput(f"{path}: a file, but none of weights; known endings: {', '.join(SINGLE_FILES)}")
        return Weights(path.parent, read_one(path), _config(path.parent))
    present = [name for name in FORMATS if os.path.lexists(path / name)]
    if not present:
        raise BadInput(without_weights(path))
    notes = (
        [f"{path}: {present[0]} is read, {' and '.join(present[1:])} beside it is not"] if present[1:] else []
    )
    return Weights(path, FORMATS[present[0]](path / present[0]), _config(path), tuple(notes))


def without_weights(path: Path) -> str:
    """Return the message for a directory in which no weights were found, with what it does hold."""
    names = entries(path)
    if not names:
        return f"{path}: an empty directory; expected {' or '.join(FORMATS)}"
    for start, end, message in FOREIGN:
        for name in names:
            if name.startswith(start) and name.endswith(end):
                return f"{path}: {message.format(name=name, path=path, merge=merge_command(path))}"
    if CONFIG in names:
        return (
            f"{path}: a config but no weights; save the model with save_pretrained, or merge the shards of the "
            f"framework that wrote it (looked for {', '.join(FORMATS)})"
        )
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{path}: no weights; looked for {', '.join(FORMATS)}, {ADAPTER_CONFIG}; found {shown}"


def merge_command(actor: Path, backend: str = "fsdp") -> str:
    """Return verl's command that turns the shards in `actor` into a Hugging Face model."""
    return f"python -m verl.model_merger merge --backend {backend} --local_dir {actor} --target_dir {actor}/hf_model"


def entries(directory: Path) -> list[str]:
    """Return the names in a directory, sorted.

    Raises:
        BadInput: it is missing, no directory, or may not be read.
    """
    try:
        return sorted(os.listdir(directory))
    except OSError as error:
        raise unreadable(directory, error) from None


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        BadInput: the file is missing, unreadable, no JSON, or JSON of another kind.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _config(directory: Path) -> dict[str, Any]:
    return read_object(directory / CONFIG) if os.path.lexists(directory / CONFIG) else {}
