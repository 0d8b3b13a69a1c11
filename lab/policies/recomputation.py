"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) for a model that is otherwise in evaluation mode.

Transformers checkpoints a layer only while that layer is in training mode, which turns on what dropout the layer itself
applies. So each layer's forward pass is checkpointed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lab.errors import BadInput
from lab.policies.decoder_layers import decoder_layers


@contextmanager
def recomputing(model: PreTrainedModel) -> Iterator[None]:
    """Let the model's layers keep only their inputs in the forward passes inside.

    Raises:
        BadInput: see `recomputable_layers`.
    """
    layers = recomputable_layers(model)
    own = [layer.__dict__.get("forward") for layer in layers]
    for layer in layers:
        # Below `__call__`, so that what weights cut up hang around a layer is done once each way.
        layer.forward = _checkpointed(layer.forward)
    try:
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            del layer.forward  # the class's own shows again
            if forward is not None:
                layer.forward = forward


def recomputable_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the layers whose activations can be computed again.

    Raises:
        BadInput: the model cannot do it.
    """
    layers = decoder_layers(model)
    if not layers or not model.supports_gradient_checkpointing:
        raise BadInput(
            f"policy.gradient_checkpointing: {type(model).__name__} cannot do it; set it to false, and lower "
            "objective.micro_batch_prompts if memory is short"
        )
    return layers


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return `forward` such that it keeps only its arguments. Nothing in it is random, dropout being off."""

    def compute(*inputs: Any, **named: Any) -> Any:
        return checkpoint(partial(forward, *inputs, **named), use_reentrant=False, preserve_rng_state=False)

    return compute
