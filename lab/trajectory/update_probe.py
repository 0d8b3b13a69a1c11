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

from lab.sharded_weights import whole
from lab.trajectory.sampling import random_signs, spread_coordinates

_BUCKET = 4_000_000  # elements handled in one go: few calls for small models, little memory for large ones


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
        sizes = {name: parameter.numel() for name, parameter in parameters.items()}
        self.chosen = spread_coordinates(seed, sizes, coordinates)
        self._projections = projections
        self._buckets = [
            _Bucket({name: parameters[name] for name in names}, self.chosen, seed, projections)
            for names in _in_buckets(sizes)
        ]
        self._before: list[Tensor] = []
        self._row: dict[str, np.ndarray] = {}

    @torch.no_grad()
    def before(self) -> None:
        """Read the raw gradients, and remember where the parameters are."""
        self._row = self._summary("gradient", [bucket.gradients() for bucket in self._buckets])
        self._before = [bucket.positions() for bucket in self._buckets]

    @torch.no_grad()
    def after(self) -> dict[str, np.ndarray]:
        """Return the row of this update: `gradient`, `applied` [coordinate] and their `_projection`."""
        moved = [
            bucket.positions() - before for bucket, before in zip(self._buckets, self._before, strict=True)
        ]
        self._before = []
        return {**self._row, **self._summary("applied", moved)}

    def _summary(self, kind: str, vectors: list[Tensor]) -> dict[str, np.ndarray]:
        pairs = list(zip(self._buckets, vectors, strict=True))
        row = {kind: _to_numpy(torch.cat([vector[bucket.indices] for bucket, vector in pairs]))}
        if self._projections:
            sketches = [bucket.sketch(vector) for bucket, vector in pairs]
            row[f"{kind}_projection"] = _to_numpy(torch.stack(sketches).sum(0))
        return row


class _Bucket:
    """Some parameters laid end to end, each filled up with zeros to a multiple of the number of projections."""

    def __init__(
        self, parameters: dict[str, nn.Parameter], chosen: dict[str, np.ndarray], seed: int, projections: int
    ) -> None:
        self._parameters = list(parameters.values())
        self._width = max(projections, 1)
        device = self._parameters[0].device
        gaps = [-parameter.numel() % self._width for parameter in self._parameters]
        self._gaps = [torch.zeros(gap, device=device) for gap in gaps]
        sizes = [parameter.numel() + gap for parameter, gap in zip(self._parameters, gaps, strict=True)]
        offsets = np.cumsum([0, *sizes])[:-1]
        named = zip(parameters, offsets, strict=True)
        inside = [chosen[name] + offset for name, offset in named if name in chosen]
        self.indices = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *inside])).to(device)
        if projections:
            signs = [
                np.pad(random_signs(seed, name, parameter.numel()), (0, gap))
                for (name, parameter), gap in zip(parameters.items(), gaps, strict=True)
            ]
            self._signs = torch.from_numpy(np.concatenate(signs)).to(device)

    def positions(self) -> Tensor:
        """Return all parameters, float [element]."""
        return self._end_to_end([whole(parameter.detach()) for parameter in self._parameters])

    def gradients(self) -> Tensor:
        """Return all gradients, float [element]; zero where there is none."""
        return self._end_to_end([whole(_gradient(parameter)) for parameter in self._parameters])

    def sketch(self, vector: Tensor) -> Tensor:
        """Return the sums of the signed elements, float32 [projection]."""
        return (vector.float() * self._signs).view(-1, self._width).sum(0)

    def _end_to_end(self, tensors: list[Tensor]) -> Tensor:
        pairs = zip(tensors, self._gaps, strict=True)
        return torch.cat([part for tensor, gap in pairs for part in (tensor.flatten(), gap.to(tensor.dtype))])


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _in_buckets(sizes: dict[str, int]) -> list[list[str]]:
    """Split names into consecutive groups of at most `_BUCKET` elements, or of one tensor."""
    buckets: list[list[str]] = []
    filled = _BUCKET
    for name, size in sizes.items():
        if filled + size > _BUCKET:
            buckets.append([])
            filled = 0
        buckets[-1].append(name)
        filled += size
    return buckets


def _to_numpy(values: Tensor) -> np.ndarray:
    result: np.ndarray = values.float().cpu().numpy()
    return result
