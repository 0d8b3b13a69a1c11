"""The weights of a Llama packed for decoding, and one decoding step over them.

Generic layers spend most of a decoding step on overhead: many small products, and a launch for each operation. Here
query, key and value projections are one product, so are the two of the gated feed-forward layer; query heads that share
keys stand side by side as positions of one query, so that keys and values are read once; rotations are done in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

_TABLE_STEP = 32  # rotary tables grow by a multiple of this

Write = Callable[[int, Tensor], Tensor]
"""Given a layer and its new keys and values, float [row, 2 x key-value heads, size], keys first: writes them to the
layer's cache and returns what is to be read of it, float [row, 2 x key-value heads, position, size]."""


@dataclass
class _Layer:
    """Packed weights of one layer: norms in the model's own type, products in that of the step."""

    input_norm: Tensor
    query_key_value: Tensor
    output: Tensor
    feed_forward_norm: Tensor
    gate_up: Tensor
    down: Tensor


class PackedLlama:
    """See the module.

    Args:
        model: whose weights are packed; see `lab.policies.static_source.is_supported`.
        dtype: of products, keys and values; the residual stream keeps the model's type.
    """

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype) -> None:
        config = model.config
        self.model = model
        self.dtype = dtype
        self.heads: int = config.num_attention_heads
        self.groups: int = config.num_key_value_heads
        self.size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.layers: list[_Layer] = []
        self._epsilon: float = config.rms_norm_eps
        self._weights: dict[str, Tensor] = {}
        self._cosine = self._sine = torch.empty(0)

    @torch.no_grad()
    def refresh(self, length: int) -> bool:
        """Take the model's weights of now, and rotary tables for at least `length` positions.

        Returns:
            whether any buffer has a new address.
        """
        layers, weights = _pack(self.model, self.dtype)
        fresh = [*weights.values(), *(tensor for layer in layers for tensor in vars(layer).values())]
        known = [
            *self._weights.values(),
            *(tensor for layer in self.layers for tensor in vars(layer).values()),
        ]
        moved = not _alike(known, fresh)
        if moved:
            self.layers, self._weights = layers, weights
        else:
            for old, new in zip(known, fresh, strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)
        return self._grow_tables(length) or moved

    def _grow_tables(self, length: int) -> bool:
        device = self.model.device
        if len(self._cosine) >= length and self._cosine.device == device:
            return False
        steps = torch.arange(-(-length // _TABLE_STEP) * _TABLE_STEP, device=device)[None]
        base: Any = self.model.base_model
        cosine, sine = base.rotary_emb(torch.zeros(1, device=device, dtype=self.dtype), steps)
        sine = sine.clone()
        sine[..., : self.size // 2].neg_()
        self._cosine, self._sine = cosine[0].to(self.dtype), sine[0].to(self.dtype)
        return True

    def step(self, tokens: Tensor, next_position: Tensor, write: Write, bias: Tensor | None) -> Tensor:
        """Return the logits after one more token, float [row, vocabulary].

        Args:
            tokens: int64 [row].
            next_position: int64 [row], position id of the token.
            write: see `Write`.
            bias: float [row, 1, 1, position], 0 where a position may be read and -inf elsewhere; None if all may.
        """
        rows, heads, groups, size = len(tokens), self.heads, self.groups, self.size
        with torch.autocast(tokens.device.type, enabled=False):
            hidden = functional.embedding(tokens, self._weights["embedding"])
            cosine = self._cosine[next_position][:, None]
            sine = self._sine[next_position][:, None]
            for index, layer in enumerate(self.layers):
                normed = self._norm(hidden, layer.input_norm).to(self.dtype)
                mixed = functional.linear(normed, layer.query_key_value).view(rows, heads + 2 * groups, size)
                _rotate(mixed[:, : heads + groups], cosine, sine)
                read = write(index, mixed[:, heads:])
                attended = functional.scaled_dot_product_attention(
                    mixed[:, :heads].reshape(rows, groups, heads // groups, size),
                    read[:, :groups],
                    read[:, groups:],
                    attn_mask=bias,
                )
                hidden = hidden + functional.linear(attended.reshape(rows, heads * size), layer.output)
                normed = self._norm(hidden, layer.feed_forward_norm).to(self.dtype)
                gate, up = functional.linear(normed, layer.gate_up).chunk(2, dim=-1)
                hidden = hidden + functional.linear(functional.silu(gate) * up, layer.down)
            return functional.linear(
                self._norm(hidden, self._weights["norm"]).to(self.dtype), self._weights["head"]
            )

    def bias(self, readable: Tensor) -> Tensor:
        """Return what makes attention leave positions out, float [row, 1, 1, position], from bool [row, position]."""
        zeros = torch.zeros(readable.shape, dtype=self.dtype, device=readable.device)
        return zeros.masked_fill_(~readable, -torch.inf)[:, None, None]

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(hidden, (hidden.shape[-1],), weight, self._epsilon)


def _rotate(vectors: Tensor, cosine: Tensor, sine: Tensor) -> None:
    """Rotary position embedding (Su et al. 2021), in place, in the order of Llama checkpoints: halves, not pairs.

    `sine` has the sign of the first half turned, so that swapping the halves is all that is left to do.
    """
    swapped = vectors.roll(vectors.shape[-1] // 2, dims=-1)
    vectors.mul_(cosine).addcmul_(swapped, sine)


def _pack(model: PreTrainedModel, dtype: torch.dtype) -> tuple[list[_Layer], dict[str, Tensor]]:
    base: Any = model.base_model
    layers = []
    for block in base.layers:
        attention, feed_forward = block.self_attn, block.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        layers.append(
            _Layer(
                input_norm=block.input_layernorm.weight,
                query_key_value=torch.cat([part.weight for part in projections]).to(dtype),
                output=attention.o_proj.weight.to(dtype),
                feed_forward_norm=block.post_attention_layernorm.weight,
                gate_up=torch.cat([feed_forward.gate_proj.weight, feed_forward.up_proj.weight]).to(dtype),
                down=feed_forward.down_proj.weight.to(dtype),
            )
        )
    head: Any = model.get_output_embeddings()
    weights = {"embedding": base.embed_tokens.weight, "norm": base.norm.weight, "head": head.weight.to(dtype)}
    return layers, weights


def _alike(first: list[Tensor], second: list[Tensor]) -> bool:
    if len(first) != len(second):
        return False
    return all(a.device == b.device and a.dtype == b.dtype for a, b in zip(first, second, strict=True))
