"""`LogitSource` of a Llama-architecture model with a preallocated key-value cache and packed weights.

Prompts are read by the model itself. Keys and values are written in place, not into a cache that is copied when it
grows. Rows that leave stay in their slot, unused, until half of the slots are free; then the cache is packed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedModel

from lab.policies.logit_source import positions
from lab.policies.packed_llama import PackedLlama

_LARGEST_SHARE_LEFT = 0.5
_TOLERANCE = 1e-3


@dataclass
class PrefixState:
    """What the model computed of the prompts, before they are repeated for their rollouts."""

    cache: DynamicCache
    mask: Tensor
    """int64 [prompt, position]."""
    packed: PackedLlama
    """What the next tokens are computed with."""


@dataclass
class StaticState:
    """Cache of all rows, those that have left included until the next packing."""

    packed: PackedLlama
    caches: list[Tensor]
    """Of each layer: float [slot, 2 x key-value heads, position, size], keys first."""
    readable: Tensor
    """bool [slot, position]: neither padding nor not yet written."""
    next_position: Tensor
    """int64 [slot]: position id of the next token."""
    length: int
    """Positions written so far."""
    slots: Tensor
    """int64 [row]: slot of each row."""
    padded: bool
    """Whether any written position is padding."""


class StaticSource:
    """See the module. Make one for a model and keep it: its buffers are used again.

    Under autocast products, keys and values are in autocast's type, and the residual stream is in the model's.

    Args:
        model: a model for which `is_supported` holds.
        new_tokens: tokens that will be appended at most; may be changed between rollouts.

    Attributes:
        device: of the weights when the source was made, and of its buffers.
    """

    def __init__(self, model: PreTrainedModel, new_tokens: int) -> None:
        self.model = model
        self.new_tokens = new_tokens
        self.device = model.device
        self._packed: dict[torch.dtype, PackedLlama] = {}

    def start(self, ids: Tensor, mask: Tensor) -> tuple[PrefixState, Tensor]:
        """Read the prompts with the model itself; see `LogitSource.start`."""
        cache = DynamicCache()
        logits = self.model(
            input_ids=ids,
            attention_mask=mask if bool((mask == 0).any()) else None,
            position_ids=positions(mask),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        first: Any = cache.layers[0]
        # The model's own layers keep keys and values in float32 under autocast, and would read them so.
        kind = ids.device.type
        mixed = torch.is_autocast_enabled(kind)
        dtype: torch.dtype = torch.get_autocast_dtype(kind) if mixed else first.keys.dtype
        if dtype not in self._packed:
            self._packed[dtype] = PackedLlama(self.model, dtype)
        packed = self._packed[dtype]
        if packed.refresh(ids.shape[1] + self.new_tokens):
            self._has_moved(packed)
        return PrefixState(cache, mask, packed), logits

    def select(self, state: PrefixState | StaticState, rows: Tensor) -> StaticState:
        """See `LogitSource.select`; the first call, on the prompts, lays out the cache."""
        if isinstance(state, PrefixState):
            return self._lay_out(state, rows)
        slots = state.slots[rows]
        kept = len(rows) / len(state.next_position)
        if kept > _LARGEST_SHARE_LEFT and len(rows) < len(state.slots):
            return replace(state, slots=slots)
        packed = StaticState(
            state.packed,
            [cache[slots] for cache in state.caches],
            state.readable[slots],
            state.next_position[slots],
            state.length,
            torch.arange(len(rows), device=rows.device),
            state.padded,
        )
        packed.padded = packed.padded and not bool(packed.readable[:, : packed.length].all())
        return packed

    def advance(self, state: StaticState, tokens: Tensor) -> tuple[StaticState, Tensor]:
        """See `LogitSource.advance`; the state is changed in place."""
        slots = len(state.next_position)
        whole = len(state.slots) == slots
        spread = tokens if whole else tokens.new_zeros(slots).index_copy_(0, state.slots, tokens)
        length = state.length + 1
        state.readable[:, state.length] = True
        bias = state.packed.bias(state.readable[:, :length]) if state.padded else None

        def write(layer: int, new: Tensor) -> Tensor:
            cache = state.caches[layer]
            cache[:, :, state.length] = new
            return cache[:, :, :length]  # the positions written so far only

        logits = state.packed.step(spread, state.next_position, write, bias)
        state.next_position += 1
        state.length = length
        return state, logits if whole else logits[state.slots]

    def _has_moved(self, packed: PackedLlama) -> None:
        """Called when buffers of `packed` have new addresses."""

    def _lay_out(self, state: PrefixState, rows: Tensor) -> StaticState:
        length = state.mask.shape[1]
        packed = state.packed
        shape = (len(rows), 2 * packed.groups, length + self.new_tokens, packed.size)
        caches = [
            torch.zeros(shape, dtype=packed.dtype, device=rows.device) for _ in range(len(packed.layers))
        ]
        write_prefix(state, rows, caches)
        readable = torch.zeros(len(rows), shape[2], dtype=torch.bool, device=rows.device)
        readable[:, :length] = (state.mask == 1)[rows]
        slots = torch.arange(len(rows), device=rows.device)
        padded = bool((state.mask == 0).any())
        return StaticState(packed, caches, readable, state.mask.sum(-1)[rows], length, slots, padded)


def write_prefix(state: PrefixState, rows: Tensor, caches: list[Tensor]) -> None:
    """Write keys and values of the prompts `rows`, int64 [slot], to the front of `caches` (see `StaticState`)."""
    length, groups = state.mask.shape[1], state.packed.groups
    layers: list[Any] = state.cache.layers
    for layer, cache in zip(layers, caches, strict=True):
        cache[:, :groups, :length] = layer.keys[rows]
        cache[:, groups:, :length] = layer.values[rows]


def is_supported(model: PreTrainedModel) -> bool:
    """Whether the packed step computes what the model computes: looked at, and tried out on two tokens."""
    config = model.config
    if type(model) is not LlamaForCausalLM or config.hidden_act != "silu":
        return False
    if getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        return False
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", "default") not in ("default", "linear"):  # others change with the length
        return False
    device = model.device
    if device.type not in ("cpu", "cuda"):
        return False
    ids = torch.tensor([[1, 0], [0, 1]], device=device) % config.vocab_size
    mask = torch.ones_like(ids)
    source = StaticSource(model, 1)
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        state, _ = source.start(ids[:, :1], mask[:, :1])
        laid_out = source.select(state, torch.arange(2, device=device))
        _, logits = source.advance(laid_out, ids[:, 1])
        expected = model(input_ids=ids).logits[:, -1]
    return agree(logits, expected)


def agree(logits: Tensor, expected: Tensor) -> bool:
    """Whether logits are equal up to rounding of the type that `expected` was computed in."""
    precision = torch.finfo(expected.dtype).eps
    absolute = max(_TOLERANCE, 8 * precision * float(expected.abs().max()))
    return torch.allclose(logits.float(), expected.float(), rtol=_TOLERANCE, atol=absolute)
