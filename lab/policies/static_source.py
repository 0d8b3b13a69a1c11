"""`LogitSource` of a Llama-architecture model with a preallocated key-value cache and packed weights.

Generic layers spend most of a decoding step on overhead: many small products, a cache that is copied when it grows, a
launch for each operation. Here query, key and value projections are one product, so are the two of the gated
feed-forward layer; keys and values are written in place; on a GPU the step is captured once as a CUDA graph for
each number of rows and length of cache, and replayed. Prompts are read by the model itself.

Rows that leave stay in their slot, unused, until half of the slots are free; then the cache is packed. So few
shapes occur, and few graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedModel

from lab.policies.logit_source import positions

_LENGTH_STEP = 32  # cache lengths are rounded up to a multiple of this, so that graphs can be used again
_LARGEST_SHARE_LEFT = 0.5
_TOLERANCE = 1e-3


@dataclass
class _Layer:
    """Packed weights of one layer: norms in the model's own type, products in that of the cache."""

    input_norm: Tensor
    query_key_value: Tensor
    output: Tensor
    feed_forward_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass
class StaticState:
    """Cache of all rows, those that have left included until the next packing."""

    keys: list[Tensor]
    """Of each layer: float [slot, key-value head, position, size]."""
    values: list[Tensor]
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


@dataclass
class _Graph:
    """One captured step with the buffers that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    state: StaticState
    tokens: Tensor
    write: Tensor
    logits: Tensor


@dataclass
class PrefixState:
    """What the model computed of the prompts, before they are repeated for their rollouts."""

    cache: DynamicCache
    mask: Tensor
    """int64 [prompt, position]."""


@dataclass
class _Buffers:
    layers: list[_Layer] = field(default_factory=list)
    embedding: Tensor | None = None
    norm: Tensor | None = None
    head: Tensor | None = None


class StaticSource:
    """See the module. Make one for a model and keep it: its buffers and graphs are used again.

    Args:
        model: a model for which `is_supported` holds.
        new_tokens: tokens that will be appended at most; may be changed between rollouts.
    """

    def __init__(self, model: PreTrainedModel, new_tokens: int) -> None:
        self.model = model
        self.new_tokens = new_tokens
        config = model.config
        self._heads: int = config.num_attention_heads
        self._groups: int = config.num_key_value_heads
        self._size: int = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self._epsilon: float = config.rms_norm_eps
        self._buffers = _Buffers()
        self._cosine = self._sine = torch.empty(0)
        self._graphs: dict[tuple[int, int], _Graph] = {}

    # ---- LogitSource -------------------------------------------------------------------------------

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
        self._refresh(first.keys.dtype, ids.shape[1] + self.new_tokens)
        return PrefixState(cache, mask), logits

    def select(self, state: PrefixState | StaticState, rows: Tensor) -> StaticState:
        """See `LogitSource.select`; the first call, on the prompts, lays out the cache."""
        if isinstance(state, PrefixState):
            return self._lay_out(state, rows)
        slots = state.slots[rows]
        kept = len(rows) / len(state.next_position)
        if kept > _LARGEST_SHARE_LEFT and len(rows) < len(state.slots):
            return StaticState(
                state.keys,
                state.values,
                state.readable,
                state.next_position,
                state.length,
                slots,
                state.padded,
            )
        packed = StaticState(
            [keys[slots] for keys in state.keys],
            [values[slots] for values in state.values],
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
        logits = self._captured(state, spread) if tokens.is_cuda else self._plain(state, spread)
        return state, logits if whole else logits[state.slots]

    # ---- one step ----------------------------------------------------------------------------------

    def _plain(self, state: StaticState, tokens: Tensor) -> Tensor:
        """A step over the positions written so far only."""
        length = state.length + 1
        state.readable[:, state.length] = True
        readable = state.readable[:, None, None, :length] if state.padded else None

        def write(cache: Tensor, new: Tensor) -> Tensor:
            cache[:, :, state.length] = new
            return cache[:, :, :length]

        logits = self._step(state, tokens, write, readable)
        state.next_position += 1
        state.length = length
        return logits

    def _captured(self, state: StaticState, tokens: Tensor) -> Tensor:
        """A step over the whole cache, replayed as a CUDA graph."""
        shape = (len(state.next_position), state.keys[0].shape[2])
        if shape not in self._graphs:
            self._graphs[shape] = self._capture(state, tokens)
        known = self._graphs[shape]
        if known.state.keys[0].data_ptr() != state.keys[0].data_ptr():
            _copy(state, known.state)
        known.tokens.copy_(tokens)
        known.write.fill_(state.length)
        known.graph.replay()
        state.length += 1
        known.state.length = state.length
        return known.logits.clone()

    def _fixed_shape_step(self, state: StaticState, tokens: Tensor, write_at: Tensor) -> Tensor:
        """A step whose every shape and address is fixed; `write_at` int64 [1] is the position written."""
        state.readable.index_fill_(1, write_at, True)

        def write(cache: Tensor, new: Tensor) -> Tensor:
            return cache.index_copy_(2, write_at, new[:, :, None])

        logits = self._step(state, tokens, write, state.readable[:, None, None])
        state.next_position += 1
        return logits

    def _capture(self, state: StaticState, tokens: Tensor) -> _Graph:
        """Record a step on buffers of its own, after a few steps on a side stream, as CUDA asks for."""
        own = StaticState(
            [keys.clone() for keys in state.keys],
            [values.clone() for values in state.values],
            state.readable.clone(),
            state.next_position.clone(),
            state.length,
            state.slots,
            True,
        )
        given, write_at = tokens.clone(), torch.tensor([state.length], device=tokens.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self._fixed_shape_step(own, given, write_at)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self._fixed_shape_step(own, given, write_at)
        return _Graph(graph, own, given, write_at, logits)

    def _step(
        self,
        state: StaticState,
        tokens: Tensor,
        write: Callable[[Tensor, Tensor], Tensor],
        readable: Tensor | None,
    ) -> Tensor:
        """One token through all layers; float [slot, vocabulary]."""
        buffers = self._buffers
        assert buffers.embedding is not None and buffers.norm is not None and buffers.head is not None
        rows, heads, groups, size = len(tokens), self._heads, self._groups, self._size
        with torch.autocast(tokens.device.type, enabled=False):
            hidden = functional.embedding(
                tokens, buffers.embedding
            )  # the residual stream keeps the model's type
            cosine = self._cosine[state.next_position][:, None]
            sine = self._sine[state.next_position][:, None]
            for layer, keys, values in zip(buffers.layers, state.keys, state.values, strict=True):
                normed = self._norm(hidden, layer.input_norm).to(keys.dtype)
                mixed = functional.linear(normed, layer.query_key_value).view(rows, heads + 2 * groups, size)
                turned = _rotate(mixed[:, : heads + groups], cosine, sine)
                attended = functional.scaled_dot_product_attention(
                    turned[:, :heads, None],
                    write(keys, turned[:, heads:]),
                    write(values, mixed[:, heads + groups :]),
                    attn_mask=readable,
                    enable_gqa=heads != groups,
                )
                hidden = hidden + functional.linear(attended.reshape(rows, heads * size), layer.output)
                normed = self._norm(hidden, layer.feed_forward_norm).to(keys.dtype)
                gate, up = functional.linear(normed, layer.gate_up).chunk(2, dim=-1)
                hidden = hidden + functional.linear(functional.silu(gate) * up, layer.down)
            return functional.linear(self._norm(hidden, buffers.norm).to(buffers.head.dtype), buffers.head)

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(hidden, (hidden.shape[-1],), weight, self._epsilon)

    # ---- buffers -----------------------------------------------------------------------------------

    def _lay_out(self, state: PrefixState, rows: Tensor) -> StaticState:
        length = state.mask.shape[1]
        capacity = length + self.new_tokens
        if rows.is_cuda:
            capacity = -(-capacity // _LENGTH_STEP) * _LENGTH_STEP
        keys: list[Tensor] = []
        values: list[Tensor] = []
        layers: list[Any] = state.cache.layers
        for layer in layers:
            for made, kept in ((keys, layer.keys), (values, layer.values)):
                whole = kept.new_zeros(len(rows), self._groups, capacity, self._size)
                whole[:, :, :length] = kept[rows]
                made.append(whole)
        readable = torch.zeros(len(rows), capacity, dtype=torch.bool, device=rows.device)
        readable[:, :length] = (state.mask == 1)[rows]
        return StaticState(
            keys,
            values,
            readable,
            state.mask.sum(-1)[rows],
            length,
            torch.arange(len(rows), device=rows.device),
            padded=bool((state.mask == 0).any()),
        )

    @torch.no_grad()
    def _refresh(self, dtype: torch.dtype, length: int) -> None:
        """Copy the model's weights of now into the packed buffers, which keep their addresses."""
        fresh = _pack(self.model, dtype)
        known = self._buffers
        if not _alike(known, fresh):
            self._buffers, self._graphs = fresh, {}
        else:
            for old, new in zip(_tensors(known), _tensors(fresh), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)
        device = self.model.device
        if len(self._cosine) < length or self._cosine.dtype != dtype or self._cosine.device != device:
            reach = -(-length // _LENGTH_STEP) * _LENGTH_STEP
            steps = torch.arange(reach, device=device)[None]
            like = torch.zeros(1, device=device, dtype=dtype)
            base: Any = self.model.base_model
            cosine, sine = base.rotary_emb(like, steps)
            self._cosine, self._sine = cosine[0].to(dtype), sine[0].to(dtype)
            self._graphs = {}


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
        logits = source._plain(laid_out, ids[:, 1])
        expected = model(input_ids=ids).logits[:, -1]
    return torch.allclose(logits.float(), expected.float(), rtol=_TOLERANCE, atol=_tolerance(expected))


def _tolerance(logits: Tensor) -> float:
    """Rounding of the type that the model computes in, beside logits of this size."""
    precision = torch.finfo(logits.dtype).eps
    return max(_TOLERANCE, 8 * precision * float(logits.abs().max()))


def _rotate(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021) in the order that Llama checkpoints have: halves, not pairs."""
    first, second = vectors.chunk(2, dim=-1)
    return vectors * cosine + torch.cat([-second, first], dim=-1) * sine


def _pack(model: PreTrainedModel, dtype: torch.dtype) -> _Buffers:
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
    return _Buffers(layers, base.embed_tokens.weight, base.norm.weight, head.weight.to(dtype))


def _tensors(buffers: _Buffers) -> list[Tensor]:
    parts: list[Tensor | None] = [buffers.embedding, buffers.norm, buffers.head]
    for layer in buffers.layers:
        parts += [layer.input_norm, layer.query_key_value, layer.output]
        parts += [layer.feed_forward_norm, layer.gate_up, layer.down]
    return [part for part in parts if part is not None]


def _alike(first: _Buffers, second: _Buffers) -> bool:
    mine, others = _tensors(first), _tensors(second)
    if len(mine) != len(others):
        return False
    return all(a.device == b.device and a.dtype == b.dtype for a, b in zip(mine, others, strict=True))


def _copy(source: StaticState, target: StaticState) -> None:
    """Move a state into the buffers of a graph, and let it live there from now on."""
    for name in ("keys", "values"):
        for old, new in zip(getattr(target, name), getattr(source, name), strict=True):
            old.copy_(new)
    target.readable.copy_(source.readable)
    target.next_position.copy_(source.next_position)
    source.keys, source.values = target.keys, target.values
    source.readable, source.next_position = target.readable, target.next_position
