"""Log-probabilities of chosen tokens without ever holding all logits.

A batch of completions under a large vocabulary makes logits far larger than the model itself (64 completions of 48
tokens over 49,152 words are 600 MB, several times over in training). Here the output layer is applied to a slice
of the positions at a time, forward and again backward, so memory is slice x vocabulary whatever the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ChosenLogProbs(torch.autograd.Function):
    """log softmax(hidden W' / temperature)[token], with its exact gradient recomputed slice by slice."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float, slice_rows: int
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, tokens)
        ctx.temperature, ctx.slice_rows = temperature, slice_rows
        result = hidden.new_empty(len(hidden), dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            output_layer = weight.to(hidden.dtype)
            for start in range(0, len(hidden), slice_rows):
                rows = slice(start, start + slice_rows)
                logits = _logits(hidden[rows], output_layer, temperature)
                chosen = logits.gather(-1, tokens[rows, None])[:, 0]
                result[rows] = chosen - logits.logsumexp(-1)
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, tokens = ctx.saved_tensors
        grad = grad_outputs[0]
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            output_layer = weight.to(hidden.dtype)
            for start in range(0, len(hidden), ctx.slice_rows):
                rows = slice(start, start + ctx.slice_rows)
                # d logp / d logits = onehot - softmax
                slope = torch.softmax(_logits(hidden[rows], output_layer, ctx.temperature), dim=-1).neg_()
                slope.scatter_add_(-1, tokens[rows, None], torch.ones_like(slope[:, :1]))
                slope = (slope * (grad[rows, None] / ctx.temperature)).to(hidden.dtype)
                grad_hidden[rows] = slope @ output_layer
                grad_weight += (slope.T @ hidden[rows]).float()
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None


def chosen_log_probs(
    hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float, slice_elements: int = 2**24
) -> Tensor:
    """Return log softmax(hidden W' / temperature)[token] for each row.

    Args:
        hidden: float [row, width].
        weight: float [vocabulary, width], the output layer.
        tokens: int64 [row].
        temperature: logits are divided by it.
        slice_elements: logits held at a time; 2**24 are 64 MiB in float32.

    Returns:
        float32 [row], nats.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    rows = max(1, slice_elements // weight.shape[0])
    result: Tensor = ChosenLogProbs.apply(hidden, weight, tokens, temperature, rows)
    return result


def _logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    logits = hidden @ weight.T
    return logits.float().div_(temperature)
