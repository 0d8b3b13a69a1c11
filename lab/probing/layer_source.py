"""Why each layer's output changed between two checkpoints: because its input did, or because its weights did.

With f_a, f_b the layer under the first and the last checkpoint, x_a, x_b what it gets there,

    f_b(x_b) - f_a(x_a) = [f_a(x_b) - f_a(x_a)] + [f_b(x_a) - f_a(x_a)] + rest,

the change due to the input (weights held), due to the weights (input held), and the second-order rest. The parts are
not orthogonal, so their shares of the squared norm need not add up to one. A layer's output is the residual stream
after it, which carries its input along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lab.policies.policy import Policy
from lab.probing.sequences import Sequences, call_layer, layers_of, read_through

_MOST_VALUES = 2**25  # Hidden states kept of one checkpoint, 128 MiB; further probes are left out.


@dataclass
class LayerSource:
    """Squared norms over response positions, float64 [layer].

    Attributes:
        total: of the change of the output.
        from_input: of the part due to the input.
        from_weights: of the part due to the weights.
        second_order: of the rest.
        probes: how many were used.
    """

    total: np.ndarray
    from_input: np.ndarray
    from_weights: np.ndarray
    second_order: np.ndarray
    probes: int


def layer_source(
    first: Callable[[], Policy], last: Callable[[], Policy], batches: list[Sequences]
) -> LayerSource:
    """Compute the three parts, with one model in memory at a time.

    Args:
        first: loads the first checkpoint; called twice.
        last: loads the last one.
        batches: the probes; as many as fit into a fixed amount of memory are used, at least one batch.
    """
    policy = first()
    width, layers = int(policy.model.config.hidden_size), len(layers_of(policy))
    used = _fitting(batches, width * (layers + 1) * 2)
    before = [_states(policy, batch) for batch in used]
    del policy
    policy = last()
    sums = np.zeros((4, layers))
    after: list[list[tuple[Tensor, Tensor]]] = []
    of_weights: list[list[Tensor]] = []
    modules = layers_of(policy)
    for batch, states in zip(used, before, strict=True):
        calls = read_through(policy, batch)
        after.append([(call.hidden, call.output) for call in calls])
        of_weights.append(
            [
                call_layer(module, hidden, call.arguments)
                for module, call, (hidden, _) in zip(modules, calls, states, strict=True)
            ]
        )
    del policy, modules
    policy = first()
    modules = layers_of(policy)
    for index, batch in enumerate(used):
        calls = read_through(policy, batch)
        for layer, (module, call) in enumerate(zip(modules, calls, strict=True)):
            x_b, f_b_x_b = after[index][layer]
            f_a_x_a = before[index][layer][1]
            change = f_b_x_b - f_a_x_a
            inputs = call_layer(module, x_b, call.arguments) - f_a_x_a
            weights = of_weights[index][layer] - f_a_x_a
            for place, part in enumerate((change, inputs, weights, change - inputs - weights)):
                sums[place, layer] += float(batch.predicting(part).double().square().sum())
    total, from_input, from_weights, second_order = sums
    probes = sum(len(batch.tokens) for batch in used)
    return LayerSource(total, from_input, from_weights, second_order, probes)


def _states(policy: Policy, batch: Sequences) -> list[tuple[Tensor, Tensor]]:
    return [(call.hidden, call.output) for call in read_through(policy, batch)]


def _fitting(batches: list[Sequences], values_of_a_token: int) -> list[Sequences]:
    used: list[Sequences] = []
    size = 0
    for batch in batches:
        size += batch.inputs["input_ids"].numel() * values_of_a_token
        if used and size > _MOST_VALUES:
            break
        used.append(batch)
    return used
