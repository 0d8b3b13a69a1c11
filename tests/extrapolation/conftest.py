"""Checkpoints of a two-layer language model, small enough to check by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

WIDTH, INNER, VOCABULARY = 8, 12, 16
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}


def shapes(tied: bool) -> dict[str, tuple[int, ...]]:
    """Tensors of a Llama model of this configuration."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for layer in range(2):
        here = f"model.layers.{layer}"
        found |= {
            f"{here}.input_layernorm.weight": (WIDTH,),
            f"{here}.post_attention_layernorm.weight": (WIDTH,),
            f"{here}.self_attn.q_proj.weight": (WIDTH, WIDTH),
            f"{here}.self_attn.k_proj.weight": (WIDTH // 2, WIDTH),
            f"{here}.self_attn.v_proj.weight": (WIDTH // 2, WIDTH),
            f"{here}.self_attn.o_proj.weight": (WIDTH, WIDTH),
            f"{here}.mlp.gate_proj.weight": (INNER, WIDTH),
            f"{here}.mlp.up_proj.weight": (INNER, WIDTH),
            f"{here}.mlp.down_proj.weight": (WIDTH, INNER),
        }
    found["model.norm.weight"] = (WIDTH,)
    return found if tied else {**found, "lm_head.weight": (VOCABULARY, WIDTH)}


Change = Callable[[int, dict[str, torch.Tensor]], dict[str, torch.Tensor]]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Write `checkpoint-STEP` directories and return the folder they lie in."""

    def write(
        steps: tuple[int, ...] = (0, 100, 200, 300, 400),
        tied: bool = True,
        dtype: torch.dtype = torch.float32,
        change: Change | None = None,
        name: str = "source",
        **config: Any,
    ) -> Path:
        rng = np.random.default_rng(0)
        folder = tmp_path / name
        weights = {key: rng.normal(size=shape) for key, shape in shapes(tied).items()}
        drift = {key: 1e-3 * rng.normal(size=shape) for key, shape in shapes(tied).items()}
        for step in steps:
            place = folder / f"checkpoint-{step}"
            place.mkdir(parents=True)
            noisy = {
                key: weights[key] + step * drift[key] + 0.01 * rng.normal(size=shape)
                for key, shape in shapes(tied).items()
            }
            tensors = {key: torch.tensor(value).to(dtype) for key, value in noisy.items()}
            if change is not None:
                tensors = change(step, tensors)
            save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
            stored = {
                **CONFIG,
                "tie_word_embeddings": tied,
                "torch_dtype": str(dtype).split(".")[1],
                **config,
            }
            (place / "config.json").write_text(json.dumps(stored), encoding="utf-8")
            (place / "generation_config.json").write_text('{"max_length": 7}', encoding="utf-8")
        (folder / f"checkpoint-{steps[0]}" / "tokenizer.json").write_text('{"a": 1}', encoding="utf-8")
        (folder / f"checkpoint-{steps[0]}" / "optimizer.pt").write_bytes(b"not copied")
        return folder

    return write
