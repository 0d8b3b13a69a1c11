"""What becomes of the optimiser's state when the weights jump.

`keep` leaves it. `reset` makes the optimiser forget everything, its count of updates included, as the published
re-grounding does by starting each block as a new run. `rescale` lets the first moment decay as it would have during
the updates that were jumped, beta1^updates, and keeps the second: the jump has already carried the block's gradients
on, and what the first moment holds of them would carry them on once more; the size of gradients, which the second
moment holds, is no smaller where the weights land. The count of updates, hence the bias correction, stays.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.optim import Optimizer

StateRule = Literal["keep", "reset", "rescale"]

_FIRST_MOMENTS = ("exp_avg", "momentum_buffer")


@torch.no_grad()
def after_jump(optimizer: Optimizer, rule: StateRule, updates: float) -> None:
    """Apply `rule` to the state of all parameters, in place.

    Args:
        optimizer: torch's AdamW, Adam or SGD.
        rule: see above.
        updates: optimiser updates that the jump stands for.
    """
    if rule == "reset":
        optimizer.state.clear()
        return
    if rule == "keep":
        return
    for group in optimizer.param_groups:
        decay = _first_moment_decay(group)
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for name in _FIRST_MOMENTS:
                if state.get(name) is not None:
                    state[name].mul_(decay**updates)


def _first_moment_decay(group: dict[str, Any]) -> float:
    return float(group["betas"][0]) if "betas" in group else float(group.get("momentum", 0.0))
