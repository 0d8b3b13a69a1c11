"""The coordinates of a model that are followed, and what is recorded there: weights and optimiser moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from lab.sharded_weights import whole
from lab.trajectory.parts import Arrays
from lab.trajectory.sampling import sample_coordinates

Moments = Callable[[str, nn.Parameter], Mapping[str, Tensor]]
"""Returns the optimiser's moments of a parameter by name, whole or none of them."""
Displacement = Callable[[str, nn.Parameter, Mapping[str, Tensor]], Tensor | None]
"""Returns what the momentum would still add, given moments at the coordinates followed; None without momentum."""


class SampledWeights:
    """Reads some coordinates of every parameter, the same ones at every step and after any resume.

    Args:
        parameters: by canonical name.
        seed: root seed.
        fraction: share of the coordinates of each tensor.
        minimum: at least so many of each; smaller tensors whole.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], seed: int, fraction: float, minimum: int
    ) -> None:
        self._parameters = dict(parameters)
        self.indices = {
            name: sample_coordinates(seed, name, parameter.numel(), fraction, minimum)
            for name, parameter in parameters.items()
        }

    def labels(self) -> Arrays:
        """Return `param/tensor`, text [coordinate], and `param/flat_index`, int64 [coordinate], for the store."""
        names = [name for name, indices in self.indices.items() for _ in indices]
        return {
            "param/tensor": np.array(names),
            "param/flat_index": np.concatenate(list(self.indices.values())),
        }

    def read(self, moments: Moments, displacement: Displacement) -> Arrays:
        """Return `weight`, every moment and, with momentum, `momentum_free`, float32 [coordinate]."""
        collected: dict[str, list[np.ndarray]] = {}
        for name, parameter in self._parameters.items():
            indices = torch.from_numpy(self.indices[name]).to(parameter.device)

            def at(tensor: Tensor, indices: Tensor = indices) -> Tensor:
                return whole(tensor.detach()).flatten()[indices].float()

            tensors = {"weight": at(parameter)}
            tensors |= {kind: at(tensor) for kind, tensor in moments(name, parameter).items()}
            held = {kind: tensor for kind, tensor in tensors.items() if kind != "weight"}
            ahead = displacement(name, parameter, held)
            if ahead is not None:
                tensors["momentum_free"] = tensors["weight"] + ahead.float()
            for kind, tensor in tensors.items():
                collected.setdefault(kind, []).append(tensor.cpu().numpy())
        return {kind: np.concatenate(parts) for kind, parts in collected.items()}
