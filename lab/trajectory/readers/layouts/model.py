"""One checkpoint: a model's directory or file, or a directory of verl with the model further down."""

from __future__ import annotations

from pathlib import Path

from lab.errors import BadInput
from lab.trajectory.readers.layouts.entry import Entry, Found, step_in_name
from lab.trajectory.readers.weights import (
    ADAPTER_CONFIG,
    CONFIG,
    FORMATS,
    SINGLE_FILES,
    entries,
    has_weights,
    merge_command,
    without_weights,
)

INSIDE = ("actor/huggingface", "actor/hf_model", "hf_model", "huggingface", "actor/lora_adapter", "actor")
"""Where verl (`actor/huggingface`, if `hf_model` is among what it saves; `actor/lora_adapter`) and scripts around it
put a step's model."""


def find_model(path: Path) -> Found | None:
    """Return the one checkpoint at `path`; without a step in its name it is step 0. None where there is none."""
    if path.is_file():
        if path.suffix not in SINGLE_FILES:
            return None
        return Found((Entry(step_in_name(path.stem) or 0, path),))
    if not has_weights(path) and not any((path / inside).is_dir() for inside in INSIDE):
        return None
    return Found((Entry(step_in_name(path.name) or 0, locate(path)),))


def locate(path: Path) -> Path:
    """Return the directory with the weights of the checkpoint at `path`: itself, or one inside it.

    Raises:
        BadInput: there are no weights; the message says what was found instead and what to do.
    """
    if path.is_file() or has_weights(path):
        return path
    inside = [path / name for name in INSIDE if (path / name).is_dir()]
    for directory in inside:
        if has_weights(directory):
            return directory
    for actor in (path / "actor", path):
        names = entries(actor) if actor.is_dir() else []
        if any(name.startswith("model_world_size_") for name in names):
            raise BadInput(_unmerged(path, actor, "fsdp"))
        if "dist_ckpt" in names:
            raise BadInput(_unmerged(path, actor, "megatron"))
    for directory in inside:
        if CONFIG in entries(directory):
            raise BadInput(without_weights(directory))
    raise BadInput(f"{without_weights(path)}; inside it, looked for {', '.join(INSIDE)}")


def _unmerged(path: Path, actor: Path, backend: str) -> str:
    config = " and a config but no weights" if (actor / "huggingface" / CONFIG).exists() else ""
    return (
        f"{path}: verl's training shards{config}; merge them with `{merge_command(actor, backend)}` "
        "(with hf_model in actor.checkpoint.save_contents verl writes the weights itself); "
        f"looked for {', '.join(FORMATS)}, {ADAPTER_CONFIG}"
    )
