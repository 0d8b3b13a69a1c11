"""The rollout engine: samples completions from any `LogitSource` by inverting the cumulative distribution.

The uniforms are drawn beforehand, one for each (row, position), so neither the order of the rows, nor
how they are split into micro-batches, nor which rows have left changes what is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lab.policies.logit_source import LogitSource

_BLOCK = 256  # tokens
_LOOK_EVERY_ON_A_GPU = 8  # tokens; to look whether rows are done, the CPU has to wait for the GPU


@dataclass
class Rollouts:
    """Sampled completions; rows are prompt-major: rollout g of prompt p is row p * G + g."""

    tokens: Tensor
    """int64 [row, position]; after a row is done, the padding id."""
    mask: Tensor
    """bool [row, position]; True for sampled tokens, the end token included."""
    log_probs: Tensor
    """float32 [row, position], nats, of the sampled tokens under the distribution sampled from, temperature and
    nucleus included (at temperature 0: see `sample_tokens`); 0 where masked."""
    entropies: Tensor
    """float32 [row, position], nats, of the distribution sampled from; 0 where masked."""
    finished: Tensor
    """bool [row]; whether the row ended with the end token (otherwise it was cut off)."""

    @property
    def lengths(self) -> Tensor:
        """int64 [row]: number of sampled tokens, the end token included."""
        return self.mask.sum(-1)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Return which tokens belong to the nucleus (Holtzman et al. 2020, arXiv 1904.09751), bool [row, vocabulary].

    It is the smallest set of most likely tokens whose probability reaches `top_p`; of equally likely tokens the one
    with the lower id comes first, and the most likely token always belongs to it.

    Args:
        probabilities: float [row, vocabulary], rows of sum 1.
        top_p: in (0, 1].
    """
    ordered, ids = probabilities.double().sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(probabilities, dtype=torch.bool).scatter_(-1, ids, before < top_p)


def sample_tokens(
    logits: Tensor, uniforms: Tensor, temperature: float, top_p: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample one token for each row.

    Logits are divided by the temperature, the nucleus of the resulting distribution is kept, and the cumulative
    distribution of its tokens, in the order of the vocabulary, is inverted at the uniform.

    Args:
        logits: float [row, vocabulary].
        uniforms: float64 [row], in [0, 1).
        temperature: logits are divided by it; 0 takes the most likely token.
        top_p: probability that the nucleus has to reach, in (0, 1]; 1 keeps every token. Not used at temperature 0.

    Returns:
        tokens int64 [row], their log-probabilities and the entropies, float32 [row], nats, both of the distribution
        sampled from: after temperature and, with top_p < 1, cut to the nucleus and normalised again. At
        temperature 0 they are of the whole distribution at temperature 1.
    """
    scaled = logits.float() / (temperature if temperature > 0 else 1.0)
    log_probs = torch.log_softmax(scaled, dim=-1)
    if top_p < 1 and temperature > 0:
        outside = ~nucleus(log_probs.exp(), top_p)
        log_probs = torch.log_softmax(log_probs.masked_fill(outside, -torch.inf), dim=-1)
    probabilities = log_probs.exp()
    tokens = _invert(probabilities, uniforms) if temperature > 0 else scaled.argmax(-1)
    chosen = log_probs.gather(-1, tokens[:, None])[:, 0]
    entropies = -(probabilities * log_probs.masked_fill(probabilities == 0, 0.0)).sum(-1)
    return tokens, chosen, entropies


def _invert(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Return the first token at which the cumulative probability exceeds each uniform, int64 [row].

    Sums are in float64. Those of whole blocks of the vocabulary are searched first, then the block that is found, so
    that no cumulative sum is made of all of a large vocabulary.
    """
    rows, vocabulary = probabilities.shape
    if vocabulary <= _BLOCK:
        return _first_above(probabilities.double().cumsum(-1), uniforms)
    blocks = functional.pad(probabilities, (0, -vocabulary % _BLOCK)).view(rows, -1, _BLOCK)
    until = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    block = _first_above(until, uniforms)
    at = torch.arange(rows, device=block.device)
    within = blocks[at, block].double().cumsum(-1)
    largest = within[:, -1]
    target = uniforms * until[:, -1] - (until[at, block] - largest)
    # Rounding may put it at an edge of the block, where a token without probability could be found.
    target = target.clamp_min(0).minimum(torch.nextafter(largest, torch.zeros_like(largest)))
    return block * _BLOCK + torch.searchsorted(within, target[:, None], right=True)[:, 0]


def _first_above(cumulative: Tensor, uniforms: Tensor) -> Tensor:
    """Return the first column in which each row exceeds its uniform times the row's total, int64 [row]."""
    targets = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, targets, right=True)[:, 0].clamp_max(cumulative.shape[-1] - 1)


def rollout(
    source: LogitSource,
    ids: Tensor,
    mask: Tensor,
    uniforms: Tensor,
    *,
    temperature: float,
    top_p: float = 1.0,
    eos_id: int | Sequence[int],
    pad_id: int,
    look_every: int | None = None,
) -> Rollouts:
    """Sample completions of left-padded prompts, several for each.

    A prompt's prefix is computed once and shared by its rollouts; rows that have sampled the end token
    leave the batch.

    Args:
        source: what yields the logits.
        ids: int64 [prompt, position], left-padded.
        mask: int64 [prompt, position], 0 for padding.
        uniforms: float64 [row, token], rows prompt-major; its shape gives the rollouts for each prompt
            and the largest number of new tokens.
        temperature: see `sample_tokens`.
        top_p: see `sample_tokens`.
        eos_id: token that ends a completion, or several.
        pad_id: token written after the end.
        look_every: tokens between two looks at which rows are done; what is sampled does not depend on it. None
            looks after each on a CPU, and more rarely on a GPU.

    Raises:
        ValueError: the number of rows is no multiple of the number of prompts, or top_p is outside (0, 1].
    """
    rows, _ = uniforms.shape
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected a number in (0, 1], got {top_p}")
    if rows % len(ids):
        raise ValueError(f"uniforms: {rows} rows are no multiple of {len(ids)} prompts")
    look_every = look_every or (_LOOK_EVERY_ON_A_GPU if ids.is_cuda else 1)
    with torch.inference_mode():
        sampled = _sample(source, ids, mask, uniforms, temperature, top_p, eos_id, pad_id, look_every)
    # Copies, since a tensor made in inference mode may not be part of a loss.
    return Rollouts(*(tensor.clone() for tensor in sampled))


def _sample(
    source: LogitSource,
    ids: Tensor,
    mask: Tensor,
    uniforms: Tensor,
    temperature: float,
    top_p: float,
    eos_id: int | Sequence[int],
    pad_id: int,
    look_every: int,
) -> tuple[Tensor, ...]:
    rows, longest = uniforms.shape
    device = ids.device
    uniforms = uniforms.to(device)
    tokens = torch.full((rows, longest), pad_id, dtype=torch.int64, device=device)
    sampled = torch.zeros((rows, longest), dtype=torch.bool, device=device)
    log_probs = torch.zeros((rows, longest), dtype=torch.float32, device=device)
    entropies = torch.zeros_like(log_probs)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)
    ends = torch.tensor([eos_id] if isinstance(eos_id, int) else list(eos_id), device=device)

    state, logits = source.start(ids, mask)
    owner = torch.arange(len(ids), device=device).repeat_interleave(rows // len(ids))
    state, logits = source.select(state, owner), logits[owner]
    active = torch.arange(rows, device=device)
    going = torch.ones(rows, dtype=torch.bool, device=device)  # of the active rows: not done yet
    for first in range(0, longest, look_every):
        stop = min(first + look_every, longest)
        columns = []
        drawn = uniforms[active, first:stop]
        for position in range(first, stop):
            chosen, chosen_log_probs, entropy = sample_tokens(
                logits, drawn[:, position - first], temperature, top_p
            )
            columns.append((chosen, going, chosen_log_probs, entropy))
            going = going & (chosen[:, None] != ends).all(-1)
            if position + 1 < stop:
                state, logits = source.advance(state, chosen)
        of_each = [torch.stack(values, dim=1) for values in zip(*columns, strict=True)]
        written = of_each[1]
        tokens[active, first:stop] = of_each[0].where(written, pad_id)
        sampled[active, first:stop] = written
        log_probs[active, first:stop] = of_each[2].where(written, 0.0)
        entropies[active, first:stop] = of_each[3].where(written, 0.0)
        if not bool(going.all()):
            finished[active[~going]] = True
            keep = torch.nonzero(going)[:, 0]
            if len(keep) == 0:
                break
            active, chosen, state = active[keep], chosen[keep], source.select(state, keep)
            going = torch.ones(len(keep), dtype=torch.bool, device=device)
        if stop < longest:
            state, logits = source.advance(state, chosen)
    used = int(sampled.any(0).sum())
    return tokens[:, :used], sampled[:, :used], log_probs[:, :used], entropies[:, :used], finished
