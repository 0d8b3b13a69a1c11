"""Completing prompts with one policy, or with two of them extrapolated in output space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lab.policies.extrapolated_source import Extrapolated, require_same_size, require_same_vocabulary
from lab.policies.policy import Policy
from lab.policies.rollout import rollout


@dataclass(frozen=True)
class Completions:
    """What was sampled; rows are prompt-major."""

    texts: list[str]
    lengths: np.ndarray
    """int64 [row], tokens sampled, the end token included."""
    token_passes: int
    """Tokens sampled times models that were run for each."""


class Decoder:
    """See the module.

    Args:
        second: the policy that is decoded at alpha 1; its tokenizer and chat template are used.
        first: the policy at alpha 0, None where only `second` is decoded.

    Raises:
        BadInput: the two vocabularies differ.
    """

    def __init__(self, second: Policy, first: Policy | None = None) -> None:
        if first is not None:
            require_same_vocabulary(first.tokenizer, second.tokenizer)
            sizes = [policy.model.get_output_embeddings().weight.shape[0] for policy in (first, second)]
            require_same_size(sizes[0], sizes[1])
        self._first = first
        self._second = second

    def complete(
        self,
        prompts: list[str],
        uniforms: np.ndarray,
        temperature: float,
        top_p: float = 1.0,
        alpha: float = 1.0,
    ) -> Completions:
        """Sample completions.

        Args:
            prompts: texts.
            uniforms: float64 [prompt, rollout, token], in [0, 1).
            temperature: see `lab.policies.rollout.sample_tokens`.
            top_p: likewise.
            alpha: how far along the line from `first` through `second`; 1 where there is no `first`.

        Raises:
            BadInput: a prompt cannot be encoded or is too long, or the combined logits overflow.
        """
        if self._first is None and alpha != 1:
            raise ValueError("alpha: extrapolating takes a first policy")
        longest = uniforms.shape[-1]
        encoded = self._second.encode(prompts)
        self._second.check_context(encoded, longest)
        source = self._second.logit_source(longest)
        if self._first is not None:
            self._first.check_context(encoded, longest)
            source = Extrapolated(self._first.logit_source(longest), source, alpha)
        sampled = rollout(
            source,
            encoded.ids,
            encoded.mask,
            torch.from_numpy(uniforms.reshape(-1, longest)),
            temperature=temperature,
            top_p=top_p,
            eos_id=self._second.end_ids,
            pad_id=self._second.pad_id,
        )
        lengths = sampled.lengths.cpu().numpy()
        models = 1 if alpha in (0, 1) else 2
        texts = self._second.decode(sampled.tokens, sampled.mask)
        return Completions(texts, lengths, models * int(lengths.sum()))
