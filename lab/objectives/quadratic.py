"""The noisy quadratic: gradient h (theta - optimum) + slope + noise, one curvature h for each coordinate.

With plain SGD it is a discrete Ornstein-Uhlenbeck process (theory.curved_bowl), with h = 0 a random walk with drift.
The gradient is written block by block of replicates, so that a block stays in the cache from its random numbers to
the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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

    def cut(self, out: Tensor) -> _Terms:
        """Return the terms for the rows of `out`, on its device."""
        return _Terms(
            curvature=_cut(self.curvature, out),
            optimum=_cut(self.optimum, out),
            slope=_cut(self.slope, out),
            noise=_cut(self.noise, out),
            directions=None if self.directions is None else self.directions.to(out.device),
        )


@dataclass(frozen=True)
class _Part:
    """A block of replicates of one cell; `value` and `out` are views, [replicate, coordinate]."""

    value: Tensor
    out: Tensor
    terms: _Terms

    @cached_property
    def flat(self) -> Tensor:
        """`out`, [element]."""
        return self.out.view(-1)

    @cached_property
    def is_drawn_in_place(self) -> bool:
        """Whether normals can be drawn right into `out`."""
        one_scale = self.terms.directions is None and isinstance(self.terms.noise, float)
        return one_scale and self.out.device.type == "cpu" and self.out.numel() % _DRAWN_TOGETHER == 0


class Quadratic(Synthetic[QuadraticSettings]):
    """See the module; arguments as `Synthetic`."""

    def prepare(self, draw: Draw) -> None:
        self._rows = min(rows_of_a_block(self.settings.coordinates), self.settings.replicates)
        self._scratch = torch.empty(_rounded_up(self._rows * self.settings.coordinates))
        self._away = torch.empty(self._rows, self.settings.coordinates)
        self._terms = [self._make_terms(cell.settings, draw) for cell in self.cells]
        self._groups = self._cells_by_stream()
        self._places: tuple[int, ...] = ()
        self._cut: list[list[list[_Part]]] = []

    def start(self, settings: QuadraticSettings, draw: Draw) -> np.ndarray:
        return np.array(vector(settings.start, settings.coordinates, "start"))

    def gradients(self, batch: SyntheticBatch, out: Sequence[Tensor]) -> None:
        for group, blocks in zip(self._groups, self._blocks(self.values, out), strict=True):
            stream = self.stream(batch, "gradient", group[0])
            for parts in blocks:
                self._write(parts, stream)

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

    def _blocks(self, values: Sequence[Tensor], out: Sequence[Tensor]) -> list[list[list[_Part]]]:
        """Return what is written together, by group of cells and by block of replicates.

        Kept as long as parameters and gradients stay where they are: cutting them up takes as long as writing them.
        """
        places = tuple(tensor.data_ptr() for tensor in (*values, *out))
        if places != self._places:
            self._places = places
            total, rows = self.settings.replicates, self._rows
            spans = [slice(start, min(start + rows, total)) for start in range(0, total, rows)]
            self._away = self._away.to(out[0].device)
            self._cut = [
                [
                    [_Part(values[i][span], out[i][span], self._terms[i].cut(out[i][span])) for i in group]
                    for span in spans
                ]
                for group in self._groups
            ]
        return self._cut

    def _cells_by_stream(self) -> list[list[int]]:
        """Return the cells in groups that read the same random numbers, as many of each."""
        if not self.settings.shared_draws:
            return [[index] for index in range(len(self.cells))]
        groups: dict[int | None, list[int]] = {}
        for index, cell in enumerate(self.cells):
            groups.setdefault(cell.settings.noise_rank, []).append(index)
        return list(groups.values())

    def _write(self, parts: list[_Part], stream: Stream) -> None:
        """Write the gradient of the cells of one group at the replicates of one block."""
        first = parts[0]
        if len(parts) == 1 and first.is_drawn_in_place:
            assert isinstance(first.terms.noise, float)
            stream.normal_(first.flat, first.terms.noise)  # one pass less, the same numbers
            self._add_signal(first)
            return
        directions = first.terms.directions
        width = self.settings.coordinates if directions is None else len(directions)
        count = len(first.out) * width
        drawn = stream.normal_(self._scratch[: _rounded_up(count)])
        normals = drawn[:count].view(len(first.out), width).to(first.out.device)
        for part in parts:
            if part.terms.directions is not None:
                torch.mm(normals, part.terms.directions, out=part.out)
            else:
                torch.mul(normals, part.terms.noise, out=part.out)
            self._add_signal(part)

    def _add_signal(self, part: _Part) -> None:
        terms, out = part.terms, part.out
        if isinstance(terms.curvature, Tensor) or terms.curvature != 0:
            away = part.value
            if isinstance(terms.optimum, Tensor) or terms.optimum != 0:
                away = torch.sub(part.value, terms.optimum, out=self._away[: len(out)])
            if isinstance(terms.curvature, Tensor):
                out.addcmul_(away, terms.curvature)
            else:
                out.add_(away, alpha=terms.curvature)
        if isinstance(terms.slope, Tensor) or terms.slope != 0:
            out.add_(terms.slope)


def rows_of_a_block(coordinates: int) -> int:
    """Return how many replicates are handled in one go; for all but the widest a multiple of 16 normals."""
    rows = max(1, BLOCK // coordinates)
    even = _DRAWN_TOGETHER // gcd(_DRAWN_TOGETHER, coordinates)
    return rows - rows % even if rows >= even else rows


def _cut(term: Term, out: Tensor) -> Term:
    return term[: len(out)].to(out.device) if isinstance(term, Tensor) else term


def _rounded_up(count: int) -> int:
    return -(-count // _DRAWN_TOGETHER) * _DRAWN_TOGETHER
