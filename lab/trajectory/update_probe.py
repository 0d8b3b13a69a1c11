"""What is kept of every single optimiser update: some coordinates and random projections of gradient and
movement.

The projection is a count sketch (Charikar, Chen & Farach-Colton 2002): each coordinate is given a random
sign and added to one of `projections` sums, so the expected squared norm of the sketch is the squared norm
of the vector, and a whole gradient costs one pass.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lab.trajectory.sampling import random_signs, spread_coordinates


class UpdateProbe:
    """Sees the raw gradient before an update and the parameters after it.

    Args:
        parameters: trained parameters by canonical name.
        seed: root seed; the same coordinates and signs after any resume.
        coordinates: how many coordinates.
        projections: how many projections; 0 for none.
    """

    def __init__(
        self, parameters: dict[str, nn.Parameter], seed: int, coordinates: int, projections: int
    ) -> None:
        self._parameters = parameters
        self._projections = projections
        sizes = {name: parameter.numel() for name, parameter in parameters.items()}
        self.chosen = spread_coordinates(seed, sizes, coordinates)
        self._indices = {
            name: torch.from_numpy(indices).to(parameters[name].device)
            for name, indices in self.chosen.items()
        }
        self._signs = {}
        if projections:
            for name, parameter in parameters.items():
                signs = torch.from_numpy(random_signs(seed, name, parameter.numel()))
                self._signs[name] = signs.to(parameter.device)
        self._before: dict[str, Tensor] = {}
        self._row: dict[str, np.ndarray] = {}

    @torch.no_grad()
    def before(self) -> None:
        """Read the raw gradients, and remember where the parameters are."""
        gradients = {name: value.grad for name, value in self._parameters.items() if value.grad is not None}
        self._row = self._summary("gradient", gradients)
        self._before = {name: value.detach().clone() for name, value in self._parameters.items()}

    @torch.no_grad()
    def after(self) -> dict[str, np.ndarray]:
        """Return the row of this update: `gradient`, `applied` [coordinate] and their `_projection`."""
        moved = {name: value.detach() - self._before[name] for name, value in self._parameters.items()}
        self._before = {}
        return {**self._row, **self._summary("applied", moved)}

    def _summary(self, kind: str, tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
        parts = [tensors[name].flatten()[indices] for name, indices in self._indices.items()]
        row = {kind: _to_numpy(torch.cat(parts)) if parts else np.zeros(0, np.float32)}
        if self._projections:
            total = torch.zeros(self._projections, device=next(iter(tensors.values())).device)
            for name, tensor in tensors.items():
                signed = tensor.flatten().float() * self._signs[name]
                whole = len(signed) // self._projections * self._projections
                total += signed[:whole].view(-1, self._projections).sum(0)
                total[: len(signed) - whole] += signed[whole:]
            row[f"{kind}_projection"] = _to_numpy(total)
        return row


def _to_numpy(values: Tensor) -> np.ndarray:
    result: np.ndarray = values.float().cpu().numpy()
    return result
