"""The list of a causal language model's layers, whatever its architecture calls it."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList | None:
    """Return the model's layers, input side first; None where no list is as long as the config says.

    Of a model that also sees images these are the layers of its language model.
    """
    decoder = model.get_decoder()
    count = getattr(decoder.config, "num_hidden_layers", None)
    lists = (module for module in decoder.modules() if isinstance(module, nn.ModuleList))
    return next((found for found in lists if len(found) == count), None)
