"""The list of a causal language model's layers, whatever its architecture calls it."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList | None:
    """Return the model's layers, input side first; None where no list is as long as the config says."""
    count = getattr(model.config, "num_hidden_layers", None)
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    return next((found for found in lists if len(found) == count), None)
