"""Output-space extrapolation inside `model.generate` of Transformers.

    from lab.integrations.logits_processor import ExtrapolatedLogits

    processor = ExtrapolatedLogits(earlier_model, alpha=1.5, attention_mask=inputs["attention_mask"])
    later_model.generate(**inputs, logits_processor=[processor])

`generate` runs the later model; the processor runs the earlier one on the same tokens, with a key-value cache of its
own, and returns l = l_earlier + alpha (l_later - l_earlier). Transformers calls it before temperature, top-k and
top-p. It samples with top_k=50 unless told otherwise (`top_k=0`), which this lab's rollouts do not. Beam search adds up
what a processor returns, so it needs `renormalize_logits=True`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

from lab.errors import BadInput
from lab.policies.extrapolated_source import extrapolate_logits, require_alpha, require_same_vocabulary
from lab.policies.logit_source import CachedState, ModelSource


class ExtrapolatedLogits(LogitsProcessor):
    """See the module. It follows one batch at a time: greedy, sampled, several sequences a prompt, or beams.

    Tokens that an earlier processor has forbidden (-inf) stay forbidden. Given an `attention_mask`, it is of use for
    that batch alone; without one, padding is what `pad_id` leads a row with.

    Args:
        model: the earlier checkpoint; the later one is the model that generates.
        alpha: 0 is the earlier model, 1 the later one.
        attention_mask: int64 [prompt, position] of the left-padded prompts, as handed to `generate`.
        pad_id: id of the padding token, in place of the mask; do not use it where a prompt may begin with that token.
        tokenizers: of the earlier and the later model, to be compared.

    Raises:
        BadInput: alpha is not finite, both or neither of `attention_mask` and `pad_id` are given, or the tokenizers
            differ.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        alpha: float,
        *,
        attention_mask: Tensor | None = None,
        pad_id: int | None = None,
        tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase] | None = None,
    ) -> None:
        require_alpha(alpha)
        if (attention_mask is None) == (pad_id is None):
            raise BadInput("give either attention_mask, the mask of the prompts, or pad_id")
        if tokenizers is not None:
            require_same_vocabulary(*tokenizers)
        self.alpha = float(alpha)
        self._source = ModelSource(model)
        self._device = model.device
        self._mask = attention_mask
        self._pad_id = pad_id
        self._seen: Tensor | None = None
        self._state: CachedState | None = None

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the extrapolated logits, float32 [row, vocabulary].

        Args:
            input_ids: int64 [row, position], prompts and what was generated so far.
            scores: float [row, vocabulary], raw logits of the later model.

        Raises:
            BadInput: see `lab.policies.extrapolated_source.extrapolate_logits`; or the mask given does not fit.
        """
        ids = input_ids.to(self._device)
        earlier = self._follow(ids).to(scores.device)
        forbidden = torch.isneginf(scores)
        # -inf has no place on a line
        combined = extrapolate_logits(earlier, scores.masked_fill(forbidden, 0.0), self.alpha)
        return combined.masked_fill(forbidden, -torch.inf)

    def _follow(self, ids: Tensor) -> Tensor:
        """Return the earlier model's logits, reading only the last token where the others were read before."""
        rows = self._rows_before(ids)
        if rows is None:
            self._state, logits = self._source.start(ids, self._prompt_mask(ids))
        else:
            assert self._state is not None
            unmoved = torch.equal(rows, torch.arange(len(rows), device=rows.device))
            whole = unmoved and len(rows) == len(self._state.mask)
            state = self._state if whole else self._source.select(self._state, rows)
            self._state, logits = self._source.advance(state, ids[:, -1])
        self._seen = ids
        return logits

    def _rows_before(self, ids: Tensor) -> Tensor | None:
        """Return which row of the last call each row goes on from, int64 [row]; None if this is another batch."""
        if self._seen is None or ids.shape[1] != self._seen.shape[1] + 1:
            return None
        if len(ids) == len(self._seen) and torch.equal(ids[:, :-1], self._seen):
            return torch.arange(len(ids), device=ids.device)
        same = (ids[:, None, :-1] == self._seen[None]).all(-1)  # beams change places
        return same.int().argmax(-1) if bool(same.any(-1).all()) else None

    def _prompt_mask(self, ids: Tensor) -> Tensor:
        if self._mask is None:
            assert self._pad_id is not None
            return (ids.ne(self._pad_id).cumsum(-1) > 0).long()
        prompts, length = self._mask.shape
        if length != ids.shape[1] or len(ids) % prompts:
            raise BadInput(
                f"attention_mask: of {prompts} prompts of {length} tokens, but there are {len(ids)} rows of "
                f"{ids.shape[1]}; make a new processor for each batch"
            )
        return self._mask.to(ids.device).repeat_interleave(len(ids) // prompts, dim=0)
