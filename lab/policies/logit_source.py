"""What the rollout engine needs of a model: start from prompts, advance by one token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


class LogitSource(Protocol):
    """A model, or a combination of models, that yields next-token logits.

    `start` returns the logits next to its state, so that no prompt token has to be held back for the
    first `advance`; `repeat` and `select` let a prompt's prefix be computed once for all its rollouts,
    and rows that are done leave.
    """

    def start(self, ids: Tensor, mask: Tensor) -> tuple[Any, Tensor]:
        """Read left-padded prompts; ids, mask int64 [row, position]; logits float [row, vocabulary]."""
        ...

    def advance(self, state: Any, tokens: Tensor) -> tuple[Any, Tensor]:
        """Append tokens int64 [row]; return the new state and logits float [row, vocabulary]."""
        ...

    def select(self, state: Any, rows: Tensor) -> Any:
        """Return the state of the rows named by int64 `rows`, which may repeat or leave out any."""
        ...


@dataclass
class CachedState:
    """Key-value cache of one model with the attention mask of all positions so far."""

    cache: DynamicCache
    mask: Tensor
    """int64 [row, position]; 0 marks padding."""
    padded: bool
    """Whether any position of the mask is padding (if not, no mask is handed to the model)."""


def positions(mask: Tensor) -> Tensor:
    """Return position ids int64 of the shape of `mask`, counting only the positions that are not padding."""
    return (mask.cumsum(-1) - 1).clamp_min(0)


class ModelSource:
    """`LogitSource` of one causal LM, with a dynamic key-value cache."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def start(self, ids: Tensor, mask: Tensor) -> tuple[CachedState, Tensor]:
        state = CachedState(DynamicCache(), mask, padded=bool((mask == 0).any()))
        logits = self._forward(state, ids, positions(mask))
        return state, logits

    def advance(self, state: CachedState, tokens: Tensor) -> tuple[CachedState, Tensor]:
        mask = torch.cat([state.mask, state.mask.new_ones(len(tokens), 1)], dim=1)
        state = CachedState(state.cache, mask, state.padded)
        position = mask.sum(-1, keepdim=True) - 1
        return state, self._forward(state, tokens[:, None], position)

    def select(self, state: CachedState, rows: Tensor) -> CachedState:
        state.cache.batch_select_indices(rows)
        mask = state.mask[rows]
        return CachedState(state.cache, mask, padded=state.padded and bool((mask == 0).any()))

    def _forward(self, state: CachedState, ids: Tensor, position_ids: Tensor) -> Tensor:
        output = self.model(
            input_ids=ids,
            attention_mask=state.mask if state.padded else None,
            position_ids=position_ids,
            past_key_values=state.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]
