"""What one checkpoint makes of the probes: log-probs of response tokens, and some activations of every layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lab.policies.policy import Policy
from lab.probing.sequences import Sequences, read_through
from lab.trajectory.sampling import sample_coordinates

ACTIVATIONS_OF_A_LAYER = 4000


@dataclass
class Outputs:
    """Of one checkpoint.

    Attributes:
        log_probs: float64 [token], nats, of the response tokens of all probes in order.
        activations: float32 [layer, sampled coordinate]: outputs of each layer (the residual stream after it) at
            the positions that predict response tokens.
        tokens: int64 [token], the response tokens, to see that all checkpoints share a tokenizer.
    """

    log_probs: np.ndarray
    activations: np.ndarray
    tokens: np.ndarray


def outputs(policy: Policy, batches: list[Sequences], seed: int) -> Outputs:
    """Read all batches; which activations are sampled depends on the seed, the layer and the number of tokens."""
    log_probs, tokens = [], []
    layers: list[list[np.ndarray]] = []
    for batch in batches:
        owner = torch.arange(len(batch.tokens), device=batch.tokens.device)
        with torch.no_grad():
            found = policy.completion_log_probs(batch.prompts, owner, batch.tokens, batch.mask)
        log_probs.append(found[batch.mask].double().cpu().numpy())
        tokens.append(batch.tokens[batch.mask].cpu().numpy())
    count = sum(len(part) for part in tokens)
    first = 0
    for batch, part in zip(batches, tokens, strict=True):
        sampled = []
        for index, call in enumerate(read_through(policy, batch)):
            states = batch.predicting(call.output).float().cpu().numpy()
            width = states.shape[1]
            chosen = sample_coordinates(
                seed, f"activations/{index}", count * width, 0.0, ACTIVATIONS_OF_A_LAYER
            )
            here = chosen[(chosen >= first * width) & (chosen < (first + len(part)) * width)] - first * width
            sampled.append(states.ravel()[here])
        layers.append(sampled)
        first += len(part)
    activations = np.stack([np.concatenate(parts) for parts in zip(*layers, strict=True)])
    return Outputs(np.concatenate(log_probs), activations, np.concatenate(tokens))
