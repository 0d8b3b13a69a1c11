"""One checkpoint of a series: its step, its directory, and where its trained tensors lie."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import BadInput
from lab.trajectory.readers.stored import OtherTensor, StoredTensor
from lab.trajectory.readers.weights import ADAPTER_CONFIG, Weights, read_object, read_weights

BUFFERS = ("rotary_emb.inv_freq", "masked_bias", "position_ids", "num_batches_tracked")
"""Endings of tensors that a model computes or counts, and no optimiser touches."""

PACKED = (".weight", "qweight", "qzeros", "weight_packed", "weight_blocks", ".absmax", ".quant_map")
"""Endings that say, of a tensor of integers, that weights were quantised into it."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint.

    Attributes:
        step: its step.
        directory: where its weights lie.
        tensors: trained tensors by name.
        skipped: reason by name for what is not compared.
        config: parsed config.json; of the base where this is an adapter.
        merged: whether an adapter was added to a base.
        notes: what a person should know of how it was read.
    """

    step: int
    directory: Path
    tensors: dict[str, StoredTensor]
    skipped: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    merged: bool = False
    notes: tuple[str, ...] = ()


class Opener:
    """Opens checkpoints; adapters of one series share one base.

    Args:
        base: full model that adapters are added to; None to use the directory that each adapter names.
    """

    def __init__(self, base: Path | None = None) -> None:
        self._base = base
        self._opened: dict[Path, Weights] = {}

    def open(self, step: int, path: Path) -> Checkpoint:
        """Read where the tensors of one checkpoint lie.

        Raises:
            BadInput: there are no weights, or they are damaged, quantised, or not plain numbers.
        """
        is_adapter = os.path.lexists(path / ADAPTER_CONFIG)
        weights = self._merged(path) if is_adapter else read_weights(path)
        quantised = weights.config.get("quantization_config")
        if quantised:
            method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
            raise BadInput(f"{path}: a quantised model ({method}); load and save it dequantised first")
        tensors: dict[str, StoredTensor] = {}
        skipped: dict[str, str] = {}
        for name, tensor in weights.tensors.items():
            reason = _reason_to_skip(name, tensor)
            if reason is not None:
                skipped[name] = reason
            elif not isinstance(tensor, OtherTensor):
                tensors[name] = tensor
        if not tensors:
            raise BadInput(f"{path}: no floating-point tensors in it")
        return Checkpoint(step, path, tensors, skipped, weights.config, is_adapter, weights.notes)

    def _merged(self, path: Path) -> Weights:
        from lab.trajectory.readers.adapter import merge

        settings = read_object(path / ADAPTER_CONFIG)
        named = settings.get("base_model_name_or_path")
        base = self._base
        if base is None and isinstance(named, str) and Path(named).expanduser().is_dir():
            base = Path(named).expanduser()
        if base is None:
            raise BadInput(
                f"{path}: an adapter without its base model ({named} is no directory here); give base=DIRECTORY"
            )
        if base not in self._opened:
            if os.path.lexists(base / ADAPTER_CONFIG):
                raise BadInput(f"{base}: an adapter itself; the base of an adapter must be a full model")
            self._opened[base] = read_weights(base)
        return merge(path, self._opened[base])


def _reason_to_skip(name: str, tensor: StoredTensor | OtherTensor) -> str | None:
    """Return why a tensor is left out, None where it is not; refuse what cannot be left out either."""
    if 0 in tensor.shape:
        return "no elements"
    if name.endswith(BUFFERS):
        return "a buffer, not trained"
    if not isinstance(tensor, OtherTensor):
        # GPT-2's causal mask, kept under a name that elsewhere is a bias
        mask = name.endswith(".attn.bias") and tensor.shape[:2] == (1, 1)
        return "a buffer, not trained" if mask else None
    if name.endswith(PACKED) or not tensor.dtype.lower().startswith(("i", "u", "bool")):
        raise BadInput(
            f"{tensor.path}: tensor {name} is stored as {tensor.dtype}, not as float64, float32, bfloat16 or float16: "
            "a quantised or converted model; load and save it dequantised first"
        )
    return f"{tensor.dtype}, not floating-point"
