"""Weights, gradients and optimiser state cut up over the processes of a run: PyTorch's fully sharded data parallelism
(Zhao et al. 2023, arXiv 2304.11277), in its form of one `DTensor` for each parameter.

Between uses every process holds its share of each tensor. In training a layer is gathered when it is needed, forward
and backward, and its gradient is summed into the shares. To sample, where processes go at different paces, the whole
model is gathered first (`whole_weights`).

Where weights are cut up, every process has to call `shard_weights`, `whole_weights`, `whole` and `whole_state` in the
same order: they are collective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard_weights(root: nn.Module, layers: Iterable[nn.Module]) -> None:
    """Cut up the parameters of `root`, in place, over all processes; each of its `layers` is gathered on its own.

    Args:
        root: whose `forward` takes a function and calls it; what uses the weights is called through it.
        layers: modules in `root` that make up most of it.
    """
    device = next(root.parameters()).device
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(root, mesh=mesh)
    root(lambda: None)  # the first call decides which module is the outermost one
    assert isinstance(root, FSDPModule)
    root.reshard()


def is_sharded(module: nn.Module) -> bool:
    """Whether the parameters of `module` are cut up."""
    return isinstance(module, FSDPModule)


@contextmanager
def whole_weights(module: nn.Module) -> Iterator[None]:
    """Hold the whole weights while the block runs; they may be read, not changed. Nothing where they are not cut up."""
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            # What the outermost module holds itself is needed again at once, in the backward pass.
            part.set_reshard_after_forward(part is not module, recurse=False)


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor of which this process may hold a share."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """Return `module.state_dict()` with whole tensors; parameters that are tied stay one tensor."""
    gathered: dict[int, Tensor] = {}
    state = {name: value for name, value in module.state_dict().items() if not isinstance(value, DTensor)}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if isinstance(parameter, DTensor):
            if id(parameter) not in gathered:
                gathered[id(parameter)] = whole(parameter.detach())
            state[name] = gathered[id(parameter)]
    return state


def cut_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Return this process's share of `value`, which every process has whole, cut as `parameter` is."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


def optimizer_state_with(saved: dict[str, Any], change: Callable[[int, Tensor], Tensor]) -> dict[str, Any]:
    """Return an optimiser's `state_dict` with every tensor changed, given the number of its parameter as well."""
    state = {
        index: {
            name: change(index, value) if isinstance(value, Tensor) else value
            for name, value in values.items()
        }
        for index, values in saved["state"].items()
    }
    return {**saved, "state": state}
