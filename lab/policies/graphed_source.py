"""The static source on a GPU: every step has one of a few shapes, is captured once as a CUDA graph, and replayed.

A step of a small model is a thousand small kernels; launched one by one they take longer than they run. A graph needs
every shape and address to be the same each time it is replayed. So the number of slots is a power of two, the length of
the cache is rounded up, and there is one set of buffers for each length and type, of which graphs for fewer slots use
the first ones. Only one rollout at a time can live in them.

Without capturing, the same steps run as they are, on any device: that is how the tests see them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lab.policies.logit_source import positions
from lab.policies.packed_llama import PackedLlama
from lab.policies.static_source import PrefixState, StaticSource, StaticState, agree, write_prefix

_LENGTH_STEP = 16  # cache lengths are multiples of this: few of them, and rows of masks stay aligned
_FEWEST_SLOTS = 8
_WARM_UPS = 2


@dataclass
class _Captured:
    """A recorded step and where it leaves its logits, [slot, vocabulary]."""

    graph: torch.cuda.CUDAGraph
    logits: Tensor


@dataclass
class _Buffers:
    """What steps over one length of cache read and write; the first slots are used."""

    packed: PackedLlama
    caches: list[Tensor]
    """See `StaticState`."""
    readable: Tensor
    next_position: Tensor
    tokens: Tensor
    """int64 [slot]."""
    write_at: Tensor
    """int64 [1]: position that the next token is written to."""
    captured: dict[int, _Captured] = field(default_factory=dict)
    """By number of slots."""


@dataclass
class FixedState(StaticState):
    """A state that lives in buffers shared with later rollouts."""

    buffers: _Buffers
    rollout: int
    """Which rollout of the source the buffers belong to as long as this state is used."""


class GraphedSource(StaticSource):
    """See the module.

    Args:
        model: see `StaticSource`.
        new_tokens: see `StaticSource`.
        capture: replay graphs; needs a GPU.
    """

    def __init__(self, model: PreTrainedModel, new_tokens: int, capture: bool = True) -> None:
        super().__init__(model, new_tokens)
        self.capture = capture
        self._buffers: dict[tuple[torch.dtype, int], _Buffers] = {}
        self._rollouts = 0
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None

    def select(self, state: PrefixState | StaticState, rows: Tensor) -> StaticState:
        """See `StaticSource.select`; the cache is packed as soon as a smaller number of slots will do."""
        if isinstance(state, PrefixState):
            return self._lay_out(state, rows)
        state = self._own(state)
        slots, fewer = state.slots[rows], _slots(len(rows))
        if fewer == len(state.next_position):
            return self._state(state.buffers, len(state.next_position), state.length, slots)
        buffers, from_slot = state.buffers, _filled(slots, fewer)
        for cache in buffers.caches:
            cache[:fewer, :, : state.length] = cache[from_slot, :, : state.length]
        for values in (buffers.readable, buffers.next_position):
            values[:fewer] = values[from_slot]
        return self._state(buffers, fewer, state.length, torch.arange(len(rows), device=rows.device))

    def advance(self, state: StaticState, tokens: Tensor) -> tuple[StaticState, Tensor]:
        """See `LogitSource.advance`; the logits hold until the next call."""
        state = self._own(state)
        buffers, slots = state.buffers, len(state.next_position)
        buffers.tokens.index_copy_(0, state.slots, tokens)
        if not self.capture:
            logits = self._step(buffers, slots)
        else:
            if slots not in buffers.captured:
                buffers.captured[slots] = self._captured(buffers, slots)
            known = buffers.captured[slots]
            known.graph.replay()
            logits = known.logits
        state.length += 1
        return state, logits if len(state.slots) == slots else logits[state.slots]

    # ---- one step ------------------------------------------------------------------------------------

    @staticmethod
    def _step(buffers: _Buffers, slots: int) -> Tensor:
        """Advance the first `slots` slots by their tokens; every shape and address is fixed."""
        readable, next_position = buffers.readable[:slots], buffers.next_position[:slots]
        readable.index_fill_(1, buffers.write_at, True)

        def write(layer: int, new: Tensor) -> Tensor:
            return buffers.caches[layer][:slots].index_copy_(2, buffers.write_at, new[:, :, None])

        bias = buffers.packed.bias(readable)
        logits = buffers.packed.step(buffers.tokens[:slots], next_position, write, bias)
        next_position += 1
        buffers.write_at += 1
        return logits

    def _captured(self, buffers: _Buffers, slots: int) -> _Captured:
        """Record a step, after a few on a side stream, as CUDA asks for; the buffers are left as they were."""
        if self._stream is None:
            self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        changed = (buffers.readable, buffers.next_position, buffers.write_at)
        before = [values.clone() for values in changed]

        def put_back() -> None:
            # What was written to the caches is beyond what may be read, and is written again.
            for values, kept in zip(changed, before, strict=True):
                values.copy_(kept)

        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                self._step(buffers, slots)
                put_back()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # One pool for all graphs: the logits of one are used before another is replayed.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            logits = self._step(buffers, slots)
        return _Captured(graph, logits)

    # ---- buffers -------------------------------------------------------------------------------------

    def _lay_out(self, state: PrefixState, rows: Tensor) -> FixedState:
        length, slots = state.mask.shape[1], _slots(len(rows))
        buffers = self._buffers_for(state.packed, length + self.new_tokens, slots)
        from_row = _filled(rows, slots)
        caches = [cache[:slots] for cache in buffers.caches]
        write_prefix(state, from_row, caches)
        for cache in caches:
            cache[:, :, length:] = 0  # masked, but a value that is not finite would show through a mask
        buffers.readable[:slots] = False
        buffers.readable[:slots, :length] = (state.mask == 1)[from_row]
        buffers.next_position[:slots] = state.mask.sum(-1)[from_row]
        buffers.tokens.zero_()
        buffers.write_at.fill_(length)
        self._rollouts += 1
        return self._state(buffers, slots, length, torch.arange(len(rows), device=rows.device))

    def _state(self, buffers: _Buffers, slots: int, length: int, rows: Tensor) -> FixedState:
        return FixedState(
            packed=buffers.packed,
            caches=[cache[:slots] for cache in buffers.caches],
            readable=buffers.readable[:slots],
            next_position=buffers.next_position[:slots],
            length=length,
            slots=rows,
            padded=True,
            buffers=buffers,
            rollout=self._rollouts,
        )

    def _own(self, state: StaticState) -> FixedState:
        assert isinstance(state, FixedState)
        if state.rollout != self._rollouts:
            raise RuntimeError("a later rollout has taken over the buffers of this one")
        return state

    def _buffers_for(self, packed: PackedLlama, length: int, slots: int) -> _Buffers:
        """Return buffers of at least this length and number of slots, those of an earlier rollout if they are."""
        rounded = -(-length // _LENGTH_STEP) * _LENGTH_STEP
        key = (packed.dtype, rounded)
        known = self._buffers.pop(key, None)
        if known is None or len(known.tokens) < slots:
            known = None  # freed before larger ones are made
            device = self.model.device
            shape = (slots, 2 * packed.groups, rounded, packed.size)
            known = _Buffers(
                packed,
                [torch.zeros(shape, dtype=packed.dtype, device=device) for _ in range(len(packed.layers))],
                torch.zeros(slots, rounded, dtype=torch.bool, device=device),
                torch.zeros(slots, dtype=torch.int64, device=device),
                torch.zeros(slots, dtype=torch.int64, device=device),
                torch.zeros(1, dtype=torch.int64, device=device),
            )
        self._buffers[key] = known
        return known

    def _has_moved(self, packed: PackedLlama) -> None:
        for buffers in self._buffers.values():
            if buffers.packed is packed:
                buffers.captured.clear()


def graphed_source(model: PreTrainedModel, new_tokens: int) -> GraphedSource:
    """Return a source of a model on a GPU that replays graphs; one that launches every kernel where graphs fail.

    Graphs are tried out first, in the precision in force: on prompts of two lengths, of which one leaves.
    """
    source = GraphedSource(model, new_tokens)
    try:
        works = _graphs_agree(model)
    except RuntimeError as error:
        works, reason = False, str(error).splitlines()[0]
    else:
        reason = "their logits differ from the model's"
    if not works:
        source.capture = False
        print(f"decoding without CUDA graphs, which is slower: {reason}", file=sys.stderr, flush=True)
    return source


def _graphs_agree(model: PreTrainedModel, capture: bool = True) -> bool:
    device = model.device
    ids = torch.tensor([[0, 1, 2], [3, 4, 5]], device=device) % model.config.vocab_size
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]], device=device)
    new = torch.tensor([[6, 7], [8, 9]], device=device) % model.config.vocab_size
    source = GraphedSource(model, new.shape[1], capture)
    with torch.inference_mode():
        state, _ = source.start(ids, mask)
        laid_out: StaticState = source.select(state, torch.arange(2, device=device))
        laid_out, _ = source.advance(laid_out, new[:, 0])
        laid_out = source.select(laid_out, torch.tensor([0], device=device))
        _, logits = source.advance(laid_out, new[:1, 1])
        whole = torch.cat([mask[:1], torch.ones_like(new[:1])], dim=1)
        expected = model(
            input_ids=torch.cat([ids[:1], new[:1]], dim=1),
            attention_mask=whole,
            position_ids=positions(whole),
        ).logits[:, -1]
        return agree(logits, expected.to(state.packed.dtype))


def _slots(rows: int) -> int:
    """Return the number of slots that `rows` rows take: a power of two."""
    return max(_FEWEST_SLOTS, 1 << (rows - 1).bit_length())


def _filled(indices: Tensor, count: int) -> Tensor:
    """Return `indices` with the first one repeated at the end up to `count`."""
    return torch.cat([indices, indices[:1].expand(count - len(indices))])
