"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) for a model that is otherwise in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from lab.errors import BadInput


@contextmanager
def recomputing(model: PreTrainedModel) -> Iterator[None]:
    """Let the model's layers keep only their inputs in the forward passes inside.

    Transformers checkpoints a layer only while the layer is in training mode; only the layers' own flag is set, so
    that dropout stays off.

    Raises:
        BadInput: the model cannot do it.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if not layers or not model.supports_gradient_checkpointing:
        raise BadInput(
            f"policy.gradient_checkpointing: {type(model).__name__} cannot do it; set it to false, and lower "
            "objective.micro_batch_prompts if memory is short"
        )
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
