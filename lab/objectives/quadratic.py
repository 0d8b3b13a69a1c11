"""The noisy quadratic: gradient h (theta - optimum) + slope + noise, one curvature h for each coordinate.

With plain SGD it is a discrete Ornstein-Uhlenbeck process (theory.curved_bowl), with h = 0 a random walk with drift.
The gradient is written block by block of replicates, so that a block stays in the cache from its random numbers to
the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
import torch
from torch import Tensor

from lab.draw import Draw, Stream
from lab.objectives.quadratic_settings import QuadraticSettings
from lab.objectives.synthetic import BLOCK, Synthetic, SyntheticBatch
from lab.objectives.synthetic_settings import vector

_DRAWN_TOGETHER = 16  # normals come by multiples of this
_WIDE = 64  # fewer coordinates than this are repeated over a block: short rows are slow to broadcast

Term = Tensor | float
"""One number for all coordinates, or float32 [row of a block, coordinate]."""


@dataclass(frozen=True)
class _Terms:
    """What the gradient of a cell is made of."""

    curvature: Term
    optimum: Term
    slope: Term
    noise: Term
    directions: Tensor | None
    """[direction, coordinate], for noise of low rank: normals [replicate, direction] times these."""


class Quadratic(Synthetic[QuadraticSettings]):
    """See the module; arguments as `Synthetic`."""

    def prepare(self, draw: Draw) -> None:
        self._rows = min(rows_of_a_block(self.settings.coordinates), self.settings.replicates)
        self._scratch = torch.empty(_rounded_up(self._rows * self.settings.coordinates))
        self._away = torch.empty(self._rows, self.settings.coordinates)
        self._terms = [self._make_terms(cell.settings, draw) for cell in self.cells]

    def start(self, settings: QuadraticSettings, draw: Draw) -> np.ndarray:
        return np.array(vector(settings.start, settings.coordinates, "start"))

    def gradients(self, batch: SyntheticBatch, out: Sequence[Tensor]) -> None:
        self._to(out[0].device)
        values = self.values
        for group in self._cells_by_stream():
            stream = self.stream(batch, "gradient", group[0])
            for start in range(0, self.settings.replicates, self._rows):
                rows = slice(start, min(start + self._rows, self.settings.replicates))
                self._write_block(
                    group, stream, [value[rows] for value in values], [each[rows] for each in out]
                )

    def mechanism(self) -> dict[str, np.ndarray]:
        """Return `loss`, the noiseless loss: half the sum of h (theta - optimum)² plus that of slope theta."""
        losses = []
        for cell, value in zip(self.cells, self.values, strict=True):
            theta = value.double().cpu().numpy()
            away = theta - np.array(vector(cell.settings.optimum, cell.settings.coordinates, "optimum"))
            losses.append(0.5 * away**2 @ cell.settings.curvatures() + theta @ cell.settings.slopes())
        return {"loss": np.stack(losses)}

    def _make_terms(self, settings: QuadraticSettings, draw: Draw) -> _Terms:
        noise = settings.noise_of_an_update()
        directions = None
        if settings.noise_rank is not None:
            shape = (settings.noise_rank, settings.coordinates)
            normals = draw.generator("noise_directions").standard_normal(shape)
            directions = torch.from_numpy(np.float32(noise * normals / np.linalg.norm(normals, axis=0)))
        optimum = np.array(vector(settings.optimum, settings.coordinates, "optimum"))
        return _Terms(
            self._term(settings.curvatures()),
            self._term(optimum),
            self._term(settings.slopes()),
            self._term(noise),
            directions,
        )

    def _term(self, numbers: np.ndarray) -> Term:
        if (numbers == numbers[0]).all():
            return float(numbers[0])
        row = torch.from_numpy(np.float32(numbers))
        return row[None] if len(row) >= _WIDE else row.repeat(self._rows, 1)

    def _to(self, device: torch.device) -> None:
        """Move what gradients are made of to where the parameters are."""
        if self._away.device == device:
            return
        self._away = self._away.to(device)
        self._terms = [
            _Terms(*(part.to(device) if isinstance(part, Tensor) else part for part in vars(terms).values()))
            for terms in self._terms
        ]

    def _cells_by_stream(self) -> list[list[int]]:
        """Return the cells in groups that read the same random numbers, as many of each."""
        if not self.settings.shared_draws:
            return [[index] for index in range(len(self.cells))]
        groups: dict[int | None, list[int]] = {}
        for index, cell in enumerate(self.cells):
            groups.setdefault(cell.settings.noise_rank, []).append(index)
        return list(groups.values())

    def _write_block(self, group: list[int], stream: Stream, values: list[Tensor], out: list[Tensor]) -> None:
        """Write the gradient of some cells at some replicates; `values` and `out` are [replicate, coordinate]."""
        first, terms = out[group[0]], self._terms[group[0]]
        alone = len(group) == 1 and terms.directions is None and isinstance(terms.noise, float)
        if alone and first.device.type == "cpu" and first.numel() % _DRAWN_TOGETHER == 0:
            assert isinstance(terms.noise, float)
            stream.normal_(first.view(-1), terms.noise)  # one pass less, the same numbers
            self._add_signal(terms, values[group[0]], first)
            return
        width = self.settings.coordinates if terms.directions is None else len(terms.directions)
        count = len(first) * width
        drawn = stream.normal_(self._scratch[: _rounded_up(count)])
        normals = drawn[:count].view(len(first), width).to(first.device)
        for index in group:
            terms = self._terms[index]
            if terms.directions is not None:
                torch.mm(normals, terms.directions, out=out[index])
            else:
                torch.mul(normals, _some_rows(terms.noise, len(first)), out=out[index])
            self._add_signal(terms, values[index], out[index])

    def _add_signal(self, terms: _Terms, value: Tensor, out: Tensor) -> None:
        rows = len(out)
        curvature, optimum = _some_rows(terms.curvature, rows), _some_rows(terms.optimum, rows)
        if isinstance(curvature, Tensor) or curvature != 0:
            away = value
            if isinstance(optimum, Tensor) or optimum != 0:
                away = torch.sub(value, optimum, out=self._away[:rows])
            if isinstance(curvature, Tensor):
                out.addcmul_(away, curvature)
            else:
                out.add_(away, alpha=curvature)
        slope = _some_rows(terms.slope, rows)
        if isinstance(slope, Tensor) or slope != 0:
            out.add_(slope)


def rows_of_a_block(coordinates: int) -> int:
    """Return how many replicates are handled in one go; for all but the widest a multiple of 16 normals."""
    rows = max(1, BLOCK // coordinates)
    even = _DRAWN_TOGETHER // gcd(_DRAWN_TOGETHER, coordinates)
    return rows - rows % even if rows >= even else rows


def _rounded_up(count: int) -> int:
    return -(-count // _DRAWN_TOGETHER) * _DRAWN_TOGETHER


def _some_rows(term: Term, rows: int) -> Term:
    return term[:rows] if isinstance(term, Tensor) and len(term) > rows else term
