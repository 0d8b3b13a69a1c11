"""LoRA adapters, merged while they are read: W + scale B A, range by range, never the whole sum.

Scale is alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (Hu et al. 2021, arXiv 2106.09685; Kalajdzievski 2023,
arXiv 2312.03732). The product is taken in float32, the sum in float64, rounded once; it is not rounded to the base's
stored type, as saving a merged model would. What is not plain LoRA is refused with a reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lab.errors import BadInput
from lab.trajectory.readers.stored import OtherTensor, StoredTensor
from lab.trajectory.readers.weights import (
    ADAPTER_CONFIG,
    Weights,
    entries,
    read_object,
    read_safetensors,
    read_torch,
)

BLOCK = 16_384
"""Elements of a product taken at a time, in whole rows."""

PREFIX = "base_model.model."
FILES = {"adapter_model.safetensors": read_safetensors, "adapter_model.bin": read_torch}
FACTOR = re.compile(
    r"^(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.(?:default|weight))*$"
)

UNSUPPORTED = {
    "use_dora": "weight-decomposed LoRA (DoRA) rescales columns",
    "layer_replication": "it repeats layers",
    "target_parameters": "it adapts parameters of several experts at once",
    "trainable_token_indices": "it retrains single rows of the embedding",
    "lora_bias": "it adapts biases",
    "use_qalora": "it adapts a quantised model",
    "alora_invocation_tokens": "it acts on some tokens only",
}
"""Keys of adapter_config.json that make the sum something else than W + scale B A."""

CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that subtract the adapter from the base first, so that the base on disk is not the one meant."""


@dataclass(frozen=True)
class MergedTensor:
    """A tensor of the base plus the product of two thin factors.

    Attributes:
        base: [rows, columns].
        a: factor next to the layer's input.
        b: factor next to its output.
        scale: of the product.
        transposed: whether the base stores the transpose of B A, as embeddings and GPT-2's layers do.
    """

    base: StoredTensor
    a: StoredTensor
    b: StoredTensor
    scale: float
    transposed: bool

    @property
    def path(self) -> Path:
        """File of the adapter."""
        return self.a.path

    @property
    def dtype(self) -> str:
        """Stored type of the base."""
        return self.base.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the base."""
        return self.base.shape

    @property
    def nbytes(self) -> int:
        """Bytes of base and factors in their files."""
        return self.base.nbytes + self.a.nbytes + self.b.nbytes

    def read_into(self, start: int, stop: int, out: np.ndarray) -> None:
        """See `StoredTensor.read_into`.

        The product is taken over whole blocks of rows at fixed places, so that an element has the same value
        whatever range it was asked for in.
        """
        columns = self.base.shape[1]
        left, right = whole(self.b), whole(self.a)
        if self.transposed:
            left, right = right.T, left.T
        rows = max(1, BLOCK // columns)
        exact = np.empty(min(stop - start, rows * columns))
        for row in range(start // columns // rows * rows, -(-stop // columns), rows):
            begin = row * columns
            first, last = max(start, begin), min(stop, begin + rows * columns)
            values = exact[: last - first]
            self.base.read_into(first, last, values)
            product = left[row : row + rows] @ right
            values += self.scale * product.reshape(-1)[first - begin : last - begin].astype(np.float64)
            out[first - start : last - start] = values


@lru_cache(maxsize=128)
def whole(tensor: StoredTensor) -> np.ndarray:
    """Return a factor, float32; those of the tensor being read are kept, over all checkpoints of a series."""
    values = np.empty(math.prod(tensor.shape), dtype=np.float32)
    tensor.read_into(0, len(values), values)
    return values.reshape(tensor.shape)


def merge(directory: Path, base: Weights) -> Weights:
    """Return the tensors of `base` with the adapter in `directory` added.

    Raises:
        BadInput: the adapter is damaged, not plain LoRA, or does not fit the base; the message names the tensor.
    """
    settings = read_object(directory / ADAPTER_CONFIG)
    refuse_unsupported(directory, settings)
    names = [name for name in FILES if name in entries(directory)]
    if not names:
        raise BadInput(
            f"{directory}: {ADAPTER_CONFIG} but no adapter weights; looked for {' and '.join(FILES)}"
        )
    file = directory / names[0]
    tensors = dict(base.tensors)
    factors: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in FILES[names[0]](file).items():
        if isinstance(tensor, OtherTensor):
            raise BadInput(f"{file}: {name} is stored as {tensor.dtype}; expected floating-point weights")
        found = FACTOR.match(name.removeprefix(PREFIX))
        if found is None:
            if ".lora_" in name:
                raise BadInput(f"{file}: {name} is no plain LoRA factor; merge the adapter with peft first")
            # Trained in full (`modules_to_save`), or what an adapted embedding or head is added to.
            own = re.sub(r"\.(modules_to_save|base_layer)\b", "", name.removeprefix(PREFIX))
            tensors[_target(file, own, base)] = tensor
        else:
            kind = ("embedding_" if found["embedding"] else "") + found["side"]
            factors.setdefault(found["module"], {})[kind] = tensor
    for module, pair in factors.items():
        target = _target(file, f"{module}.weight", base)
        tensors[target] = _merged(file, target, module, pair, tensors[target], settings)
    return replace(base, directory=directory, tensors=tensors)


def refuse_unsupported(directory: Path, settings: Mapping[str, Any]) -> None:
    """Refuse an adapter whose weights are not W + scale B A.

    Raises:
        BadInput: says which of its settings is the reason.
    """
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise BadInput(
            f"{directory}: an adapter of type {kind}, only LORA is merged; merge it with peft first"
        )
    for key, reason in UNSUPPORTED.items():
        if settings.get(key):
            raise BadInput(f"{directory}: the adapter has {key}: {reason}; merge it with peft first")
    initialised = settings.get("init_lora_weights")
    if isinstance(initialised, str) and initialised.lower().startswith(CHANGED_BASE):
        raise BadInput(
            f"{directory}: the adapter has init_lora_weights={initialised}, which changes the base it belongs to; "
            "merge it with peft first"
        )


def _target(file: Path, name: str, base: Weights) -> str:
    if name not in base.tensors:
        raise BadInput(
            f"{file}: adapts {name}, which the base {base.directory} does not have; is it the right base?"
        )
    return name


def _merged(
    file: Path,
    target: str,
    module: str,
    pair: Mapping[str, StoredTensor],
    weight: StoredTensor | OtherTensor,
    settings: Mapping[str, Any],
) -> MergedTensor:
    embedding = "embedding_A" in pair or "embedding_B" in pair
    sides = ("embedding_A", "embedding_B") if embedding else ("A", "B")
    if set(pair) != set(sides):
        raise BadInput(
            f"{file}: {module} has lora_{next(iter(pair))} without its partner; copy the adapter again"
        )
    if isinstance(weight, OtherTensor):
        raise BadInput(
            f"{file}: {target} of the base is stored as {weight.dtype}; an unquantised base is needed"
        )
    a, b = (pair[side] for side in sides)
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or len(weight.shape) != 2:
        raise BadInput(
            f"{file}: {module}: factors of shapes {a.shape} and {b.shape} are not those of a linear layer"
        )
    transposed = embedding or bool(settings.get("fan_in_fan_out"))
    product = (b.shape[0], a.shape[1])
    if (product[::-1] if transposed else product) != weight.shape:
        raise BadInput(
            f"{file}: {target}: the adapter's product has shape {product}, the base's weight {weight.shape}; "
            "is it the right base?"
        )
    return MergedTensor(weight, a, b, _scale(file, module, a.shape[0], settings), transposed)


def _scale(file: Path, module: str, rank: int, settings: Mapping[str, Any]) -> float:
    alpha = settings.get("lora_alpha")
    patterns = settings.get("alpha_pattern") or {}
    for pattern, value in patterns.items():
        if re.match(rf"(?:.*\.)?(?:{pattern})$", module):
            alpha = value
            break
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise BadInput(f"{file.parent / ADAPTER_CONFIG}: lora_alpha: expected a number, got {alpha!r}")
    return alpha / math.sqrt(rank) if settings.get("use_rslora") else alpha / rank
