"""What all synthetic objectives share: coordinates with a replicate axis, and gradients known without a network.

The parameter of a cell is [replicate, coordinate ...]: every replicate is a run of its own, from the same start, with
its own noise. Gradients are written into `.grad` in place, since at this size every pass over the coordinates counts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from lab.draw import Draw, Stream
from lab.errors import BadInput
from lab.objectives.objective import Batch, Objective
from lab.objectives.synthetic_settings import Cell, SyntheticSettings, build_cells

BLOCK = 2**16  # coordinates handled in one go: few calls, and what they touch stays in the cache

S = TypeVar("S", bound=SyntheticSettings)


@dataclass
class SyntheticBatch(Batch):
    """The random numbers of one step, drawn when they are needed."""

    step: int
    draw: Draw


class Synthetic(Objective, Generic[S]):
    """Common part of the synthetic objectives.

    Args:
        settings: of the objective; each of its cells becomes a parameter `cell_0`, `cell_1`, ...
        seed: root seed, for what is made once: data, directions of the noise, starting points.
    """

    independent_replicates = True

    def __init__(self, settings: S, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.seed = seed
        self.cells: list[Cell[S]] = build_cells(settings)
        self.prepare(Draw(seed))
        self.starts = [
            torch.from_numpy(np.float32(self.start(cell.settings, Draw(seed)))) for cell in self.cells
        ]
        for index, start in enumerate(self.starts):
            values = start.expand(settings.replicates, *start.shape).clone()
            self.register_parameter(f"cell_{index}", nn.Parameter(values))
        self._trained = dict(self.named_parameters())

    def prepare(self, draw: Draw) -> None:
        """Make what all cells share, once."""

    @abstractmethod
    def start(self, settings: S, draw: Draw) -> np.ndarray:
        """Return where every replicate of a cell starts, [coordinate ...]."""

    @abstractmethod
    def gradients(self, batch: SyntheticBatch, out: Sequence[Tensor]) -> None:
        """Write each cell's gradient at its present parameters into `out`, float32 [replicate, coordinate ...]."""

    # ---- the interface of an objective ----------------------------------------------------------------

    @property
    def values(self) -> list[Tensor]:
        """The parameters of the cells, detached, float32 [replicate, coordinate ...]."""
        return [parameter.detach() for parameter in self._trained.values()]

    def trainable(self) -> dict[str, nn.Parameter]:
        return dict(self._trained)

    def learning_rates(self, common: float) -> dict[str, float]:
        rates = [cell.peak_learning_rate(common) for cell in self.cells]
        return dict(zip(self._trained, rates, strict=True))

    def coordinate_labels(self, name: str, flat_index: np.ndarray) -> dict[str, np.ndarray]:
        replicate, coordinate = np.divmod(flat_index, self.settings.coordinates_each)
        cell = np.full(len(flat_index), int(name.removeprefix("cell_")))
        return {"cell": cell, "replicate": replicate, "coordinate": coordinate}

    def collect(self, step: int, draw: Draw) -> SyntheticBatch:
        return SyntheticBatch(step, draw)

    @torch.no_grad()
    def write_gradients(self, batch: SyntheticBatch, update: int) -> bool:
        for parameter in self._trained.values():
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
        self.gradients(
            batch, [parameter.grad for parameter in self._trained.values() if parameter.grad is not None]
        )
        return True

    def losses(self, batch: SyntheticBatch, update: int) -> Iterator[Tensor]:
        out = [torch.empty_like(value) for value in self.values]
        with torch.no_grad():
            self.gradients(batch, out)
        for gradient, parameter in zip(out, self._trained.values(), strict=True):
            yield (gradient.detach() * parameter).sum()

    def save_pretrained(self, directory: Any, state: Mapping[str, Tensor] | None = None) -> None:
        raise BadInput("recorder.checkpoint_every: a synthetic run has no model to save; set it to null")

    # ---- helps for those who write gradients ------------------------------------------------------------

    def stream(self, batch: SyntheticBatch, role: str, cell: int) -> Stream:
        """Return the random numbers of a step for a cell; the same for all cells with `shared_draws`."""
        own = role if self.settings.shared_draws or cell == 0 else f"{role}/cell_{cell}"
        return batch.draw.stream(own, batch.step)

    def uniforms(self, batch: SyntheticBatch, role: str, cell: int, shape: tuple[int, ...]) -> Tensor:
        """Return uniforms in [0, 1), float32, on the parameters' device; the first axis counts replicates."""
        drawn = self.stream(batch, role, cell).uniform_(torch.empty(shape))
        return drawn.to(self.values[0].device)

    def add_gradient_noise(
        self, batch: SyntheticBatch, standard_deviation: float, cell: int, out: Tensor
    ) -> None:
        """Add isotropic normal noise to the gradient of a cell, block by block."""
        if standard_deviation == 0:
            return
        stream, flat = self.stream(batch, "gradient_noise", cell), out.view(-1)
        noise = torch.empty(BLOCK)
        for start in range(0, len(flat), BLOCK):
            part = flat[start : start + BLOCK]
            drawn = stream.normal_(noise[: -(-len(part) // 16) * 16], standard_deviation)
            part.add_(drawn[: len(part)].to(part.device))
