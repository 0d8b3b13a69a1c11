"""Probes as token batches, and a model's layers seen while it reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lab.errors import BadInput
from lab.policies.decoder_layers import decoder_layers
from lab.policies.logit_source import positions
from lab.policies.policy import EncodedPrompts, Policy
from lab.probing.probe_file import Probe

_TOKENS_TOGETHER = 4096


@dataclass
class Sequences:
    """A batch of probes: left-padded prompts followed by right-padded responses.

    Attributes:
        prompts: the prompts.
        tokens: int64 [row, position], responses with their end token.
        mask: bool [row, position], which of `tokens` are real.
    """

    prompts: EncodedPrompts
    tokens: Tensor
    mask: Tensor

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What a model reads to predict every response token: all but each row's last column."""
        ids = torch.cat([self.prompts.ids, self.tokens[:, :-1]], dim=1)
        mask = torch.cat([self.prompts.mask, torch.ones_like(self.tokens[:, :-1])], dim=1)
        return {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask)}

    def predicting(self, hidden: Tensor) -> Tensor:
        """Return the states that predict response tokens, [token, ...], of `hidden` [row, position, ...]."""
        return hidden[:, self.prompts.ids.shape[1] - 1 :][self.mask]


def encode(policy: Policy, probes: list[Probe]) -> list[Sequences]:
    """Tokenize probes in batches of a few thousand tokens, in order.

    Raises:
        BadInput: a text that the tokenizer cannot encode, or that is longer than the model's context.
    """
    batches, start = [], 0
    longest = max(len(probe.prompt) + len(probe.response) for probe in probes)  # Characters bound tokens.
    rows = max(1, _TOKENS_TOGETHER // longest)
    while start < len(probes):
        part = probes[start : start + rows]
        prompts = policy.encode([probe.prompt for probe in part])
        tokens, mask = policy.encode_completions([probe.response for probe in part])
        policy.check_context(prompts, tokens.shape[1])
        batches.append(Sequences(prompts, tokens, mask))
        start += rows
    return batches


def layers_of(policy: Policy) -> nn.ModuleList:
    """Return the policy's layers, input side first.

    Raises:
        BadInput: they are not found; see `decoder_layers`.
    """
    found = decoder_layers(policy.model)
    if found is None:
        raise BadInput(f"probes: {policy.source}: no list of layers found in {type(policy.model).__name__}")
    return found


@dataclass
class LayerCall:
    """What one layer was called with and what it returned."""

    hidden: Tensor
    """float [row, position, width]."""
    output: Tensor
    """Likewise."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Its other arguments: attention mask, rotary tables and the like."""


@contextmanager
def layer_calls(policy: Policy) -> Iterator[list[LayerCall]]:
    """Record the calls of all layers, in order, while the block runs."""
    calls: list[LayerCall] = []

    def record(module: nn.Module, words: tuple[Any, ...], names: dict[str, Any], result: Any) -> None:
        rest = dict(names)
        hidden = words[0] if words else rest.pop("hidden_states")
        calls.append(LayerCall(hidden, _first(result), rest))

    handles = [layer.register_forward_hook(record, with_kwargs=True) for layer in layers_of(policy)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def read_through(policy: Policy, batch: Sequences) -> list[LayerCall]:
    """Return the calls of all layers while the model reads a batch, without gradient."""
    with torch.no_grad(), layer_calls(policy) as calls:
        policy.model.base_model(**batch.inputs, use_cache=False)
    return calls


def call_layer(layer: nn.Module, hidden: Tensor, arguments: dict[str, Any]) -> Tensor:
    """Return what a layer makes of other hidden states, everything else as in the call recorded."""
    with torch.no_grad():
        return _first(layer(hidden, **arguments))


def _first(result: Any) -> Tensor:
    """The hidden states that a layer returns, alone or first of several."""
    tensor: Tensor = result[0] if isinstance(result, tuple) else result
    return tensor
