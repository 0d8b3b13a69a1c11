"""Tiny models on disk, written by other libraries than the readers use."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

Arrays = dict[str, np.ndarray]
Writer = Callable[..., Path]

NAMES = {
    "model.embed_tokens.weight": (6, 4),
    "model.layers.0.mlp.weight": (4, 4),
    "model.layers.2.mlp.weight": (4, 4),
    "model.layers.10.mlp.weight": (4, 4),
    "model.norm.weight": (4,),
}


@pytest.fixture
def arrays() -> Callable[..., Arrays]:
    """Random float32 weights of a small model, a function of the seed."""

    def make(seed: int = 0, names: Mapping[str, tuple[int, ...]] = NAMES) -> Arrays:
        generator = np.random.default_rng(seed)
        return {name: generator.normal(size=shape).astype(np.float32) for name, shape in names.items()}

    return make


@pytest.fixture
def write() -> Writer:
    """Write a model's directory; return it."""

    def to_torch(values: Any, dtype: torch.dtype | None) -> torch.Tensor:
        tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values))
        return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor

    def write_model(
        directory: Path,
        tensors: Mapping[str, Any],
        dtype: torch.dtype | None = None,
        layout: str = "safetensors",
        config: Mapping[str, Any] | None = None,
    ) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps({"model_type": "llama", **(config or {})}))
        stored = {name: to_torch(values, dtype) for name, values in tensors.items()}
        if layout == "safetensors":
            save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
        elif layout == "bin":
            torch.save(stored, directory / "pytorch_model.bin")
        elif layout == "pt":
            torch.save({"state_dict": stored, "step": 3}, directory / "weights.pt")
        else:
            write_shards(directory, stored, binary=layout == "sharded bin")
        return directory

    def write_shards(directory: Path, stored: dict[str, torch.Tensor], binary: bool) -> None:
        middle = len(stored) // 2
        stem, ending = ("pytorch_model", "bin") if binary else ("model", "safetensors")
        weight_map = {}
        for number, names in enumerate((list(stored)[:middle], list(stored)[middle:]), start=1):
            file = f"{stem}-0000{number}-of-00002.{ending}"
            shard = {name: stored[name] for name in names}
            if binary:
                torch.save(shard, directory / file)
            else:
                save_file(shard, directory / file)
            weight_map |= dict.fromkeys(names, file)
        content = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (directory / f"{stem}.{ending}.index.json").write_text(json.dumps(content))

    return write_model
