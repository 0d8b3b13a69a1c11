"""Trying a model out on a few tokens: is it causal, and does decoding with shared prefixes compute what it computes?

The reference is the model's plain forward pass, without padding and without a cache. Recurrent and hybrid models take
the key-value cache that they are handed and ignore it, so that nothing but the numbers tells them from others.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from lab.errors import BadInput
from lab.memory import is_out_of_memory
from lab.policies.error_text import in_words
from lab.policies.logit_source import ModelSource
from lab.policies.policy import EncodedPrompts, Policy

_ENCODER = "is an encoder: earlier positions see later ones; a causal LM is needed"
_NO_CACHE = "keeps no key-value cache that completions can share; not supported"

_LONG, _SHORT = [1, 2, 3, 4], [5, 6]
_OWNERS = [0, 1, 1]
_COMPLETIONS = [[7, 8, 9], [3, 1, 7], [2, 9, 4]]


class _Refusal(Exception):
    """Why the model cannot be used."""


def require_causal_and_cached(policy: Policy) -> None:
    """Refuse a model that cannot be sampled from and trained with shared prefixes.

    A Llama is left out: it is causal and cached by construction, and its packed step is tried out where it is made.

    Raises:
        BadInput: the model is an encoder, has no key-value cache, or fails on a few tokens.
    """
    if type(policy.model) is LlamaForCausalLM:
        return
    name = f"policy.path: {policy.source}: {type(policy.model).__name__}"
    try:
        with torch.no_grad(), torch.autocast(policy.device.type, enabled=False):
            _try_out(policy)
    except _Refusal as refusal:
        raise BadInput(f"{name} {refusal}") from None
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise BadInput(f"{name} {_NO_CACHE} ({in_words(error)})") from error


def _try_out(policy: Policy) -> None:
    """Compare rows of two ragged prompts, three completions of three tokens."""
    embeddings: Any = policy.model.get_input_embeddings()
    size = int(embeddings.num_embeddings)
    device = policy.device
    long, short, completions = (
        torch.tensor(ids, device=device) % size for ids in (_LONG, _SHORT, _COMPLETIONS)
    )
    owner = torch.tensor(_OWNERS, device=device)
    ids = torch.full((2, len(_LONG)), policy.pad_id, device=device)
    ids[0], ids[1, -len(_SHORT) :] = long, short
    mask = torch.ones_like(ids)
    mask[1, : -len(_SHORT)] = 0

    # One row more has another last token: nothing before it may change.
    whole = torch.cat([long, completions[0]])
    changed = whole.clone()
    changed[-1] = (changed[-1] + 1) % size
    first, other = _plain(policy, torch.stack([whole, changed]))
    if not bool(torch.isfinite(first).all()):
        raise _Refusal("gives logits that are not finite: its weights are damaged")
    precision = torch.finfo(first.dtype).eps
    if _distance(other[:-1], first[:-1]) > max(1e-5, precision / 4):
        raise _Refusal(_ENCODER)
    rest = _plain(policy, torch.cat([short.expand(2, -1), completions[1:]], dim=1))
    expected = torch.stack([first[len(_LONG) - 1 : -1], *rest[:, len(_SHORT) - 1 : -1]])

    tolerance = max(1e-4, 8 * precision)
    if not _distance(_decoded(policy, ids, mask, owner, completions), expected) <= tolerance:
        raise _Refusal(_NO_CACHE)
    given = torch.ones_like(completions, dtype=torch.bool)
    log_probs = policy.completion_log_probs(EncodedPrompts(ids, mask), owner, completions, given)
    wanted = torch.log_softmax(expected.float(), dim=-1).gather(-1, completions[..., None])[..., 0]
    if not _distance(log_probs, wanted) <= tolerance:
        raise _Refusal(_NO_CACHE)


def _plain(policy: Policy, ids: Tensor) -> Tensor:
    """Logits [row, position, vocabulary] of int64 ids [row, position]."""
    try:
        logits: Tensor = policy.model(input_ids=ids, use_cache=False).logits
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _Refusal(f"fails on a few tokens ({in_words(error)}); check its config.json") from error
    return logits


def _decoded(policy: Policy, ids: Tensor, mask: Tensor, owner: Tensor, completions: Tensor) -> Tensor:
    """Logits [row, position, vocabulary] that predict each completion token, as the rollout engine asks for them."""
    source = ModelSource(policy.model)
    state, logits = source.start(ids, mask)
    if state.cache.get_seq_length() != ids.shape[1]:
        raise _Refusal(_NO_CACHE)
    state, found = source.select(state, owner), [logits[owner]]
    for position in range(completions.shape[1] - 1):
        state, logits = source.advance(state, completions[:, position])
        found.append(logits)
    return torch.stack(found, dim=1)


def _distance(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference beside that of what is expected: one unlucky rounding weighs little."""
    return float((actual.float() - expected.float()).norm() / expected.float().norm().clamp_min(1e-30))
