"""Floating-point operations of one GRPO step, counted from the architecture.

Only matrix products are counted, two operations for each multiply-add; norms, rotations, softmax,
sampling and the optimiser are left out, so this is a lower bound. A Llama layer of width d with h heads of
size e, k key-value heads and a feed-forward layer of m needs for each token

    2 (d h e + 2 d k e + h e d) + 2 (3 d m),

for each pair of a query and a key that it may see 4 h e (scores, and the weighted sum of values), and the
head 2 d V for each position whose logits are wanted. A backward pass costs twice its forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """Sizes of a Llama-like causal LM."""

    layers: int
    width: int
    heads: int
    key_value_heads: int
    head_size: int
    mlp_width: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Architecture:
        """Read the sizes from a Hugging Face configuration."""
        return cls(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            key_value_heads=config.num_key_value_heads,
            head_size=config.head_dim,
            mlp_width=config.intermediate_size,
            vocabulary=config.vocab_size,
        )


@dataclass(frozen=True)
class StepShape:
    """How much text one step handles; means over steps, so not whole numbers."""

    prompts: float
    """Prompts sampled from."""
    prompt_tokens: float
    """Tokens of a prompt."""
    sampled: Sequence[float]
    """Completions that have a token at position 0, 1, ..."""
    trained_prompts: float
    """Prompts that the training pass reads."""
    trained: Sequence[float]
    """Completions in the training pass that have a token at position 0, 1, ..."""


def forward_flops(architecture: Architecture, tokens: float, pairs: float, logits: float) -> float:
    """Return the operations of a forward pass over `tokens` tokens.

    Args:
        architecture: of the model.
        tokens: tokens read.
        pairs: pairs of a query and a key that it may see, itself included, of one layer.
        logits: positions whose logits are wanted.
    """
    a = architecture
    attention_width = a.heads * a.head_size
    projections = 2 * a.width * (2 * attention_width + 2 * a.key_value_heads * a.head_size)
    feed_forward = 2 * 3 * a.width * a.mlp_width
    layer = tokens * (projections + feed_forward) + pairs * 4 * attention_width
    return a.layers * layer + logits * 2 * a.width * a.vocabulary


def step_flops(architecture: Architecture, shape: StepShape) -> dict[str, float]:
    """Return the least operations of one step, by part: each prompt is read once for all its completions.

    `prefill` reads the prompts; `decode` reads every sampled token that another one follows; `forward` reads
    prompts and completions again (no completion's last token), `backward` costs twice that.
    """
    prefill, decode = _read(architecture, shape.prompts, shape.prompt_tokens, shape.sampled)
    parts = _read(architecture, shape.trained_prompts, shape.prompt_tokens, shape.trained)
    return {"prefill": prefill, "decode": decode, "forward": sum(parts), "backward": 2 * sum(parts)}


def step_flops_unshared(architecture: Architecture, shape: StepShape) -> dict[str, float]:
    """Return the operations of one step without sharing: each completion reads its prompt itself, and
    completions without signal are in the training pass as well."""
    rows = shape.sampled[0]
    prefill, decode = _read(architecture, rows, shape.prompt_tokens, shape.sampled)
    return {
        "prefill": prefill,
        "decode": decode,
        "forward": prefill + decode,
        "backward": 2 * (prefill + decode),
    }


def _read(
    architecture: Architecture, prompts: float, prompt_tokens: float, alive: Sequence[float]
) -> tuple[float, float]:
    """Return the forward operations of prompts (logits at their ends) and of completions."""
    pairs = prompts * prompt_tokens * (prompt_tokens + 1) / 2
    first = forward_flops(architecture, prompts * prompt_tokens, pairs, prompts)
    read = list(alive[1:])  # the token at position j is read by the rows that have one at j + 1
    seen = sum(rows * (prompt_tokens + position + 1) for position, rows in enumerate(read))
    return first, forward_flops(architecture, sum(read), seen, sum(read))


def decode_bytes(architecture: Architecture, shape: StepShape, bytes_each: int) -> float:
    """Return the least bytes that decoding one step's completions reads, prompts apart.

    For every token of the longest completion all weights once, the embedding only as the head, and for every row that
    goes on the keys and values of all positions before: what caches hold between two tokens is not counted.

    Args:
        architecture: of the model.
        shape: of the step.
        bytes_each: of a weight, and of a number in the cache.
    """
    a = architecture
    layer = a.width * a.head_size * (2 * a.heads + 2 * a.key_value_heads) + 3 * a.width * a.mlp_width
    weights = a.layers * layer + a.width * a.vocabulary
    of_a_position = a.layers * 2 * a.key_value_heads * a.head_size
    read = list(shape.sampled[1:])
    positions = sum(rows * (shape.prompt_tokens + position + 1) for position, rows in enumerate(read))
    return float(bytes_each * (len(read) * weights + positions * of_a_position))
