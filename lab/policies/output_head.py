"""Whether a model's logits are a plain linear map of its last hidden state, so that they can be made in slices."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedModel

_CHANGES_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


class OutputHead:
    """The output layer of a causal LM.

    Args:
        model: any Hugging Face causal LM.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    @property
    def weight(self) -> Tensor:
        """The output layer's weights, float [vocabulary, width]; with gradient where they are trained."""
        weight: Tensor = self._model.get_output_embeddings().weight
        return weight

    @cached_property
    def is_plain(self) -> bool:
        """Whether logits = weight x last hidden state, without bias, scale or cap: looked at and tried out."""
        if not isinstance(self._model, PreTrainedModel):
            return False
        layer = self._model.get_output_embeddings()
        if not isinstance(layer, torch.nn.Linear) or layer.bias is not None:
            return False
        settings = (getattr(self._model.config, name, None) for name in _CHANGES_LOGITS)
        if self._model.base_model is self._model or any(value not in (None, 1, 1.0) for value in settings):
            return False
        ids = torch.arange(2, device=layer.weight.device)[None]
        with torch.no_grad(), torch.autocast(layer.weight.device.type, enabled=False):
            hidden = self._model.base_model(input_ids=ids).last_hidden_state
            logits = self._model(input_ids=ids).logits
        return torch.allclose(layer(hidden), logits, rtol=1e-3, atol=1e-3)
