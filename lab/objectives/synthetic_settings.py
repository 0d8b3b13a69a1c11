"""What the settings of all synthetic objectives share: replicates, and cells of hyper-parameters.

A cell is a set of overrides of the objective's own keys, and of the learning rate. One run simulates all cells side
by side, each with as many replicates; cells are compared at equal random numbers unless `shared_draws` is false.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from lab.errors import BadInput
from lab.objectives.family import ObjectiveSettings
from lab.settings import Invalid, build, require, suggest

CellOverrides = dict[str, Any]

_RATE_KEYS = ("learning_rate", "learning_rate_factor")
_COMMON_KEYS = ("name", "replicates", "cells", "shared_draws")


@dataclass(frozen=True)
class SyntheticSettings(ObjectiveSettings):
    """Keys of every synthetic objective."""

    name: str
    """Registered name of the objective."""
    replicates: int
    """Independent runs of each cell, from one start, each with its own noise."""
    cells: tuple[CellOverrides, ...]
    """For each cell the keys of the objective that it overrides (any but the shape), and `learning_rate`, or
    `learning_rate_factor` times that of the optimiser; empty for one cell of the objective as it stands."""
    shared_draws: bool
    """All cells see the same random numbers (common random numbers); false: each its own."""
    pure_noise: bool
    """No signal: gradients of mean zero with the covariance that they would have. `twin=true` sets it."""

    trains_language_model: ClassVar[bool] = False
    shape_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that decide the shape of a replicate; all cells share them."""

    def __post_init__(self) -> None:
        require(self.replicates >= 1, "replicates", f"must be at least 1, got {self.replicates}")

    def twin(self) -> SyntheticSettings:
        """Return the settings with the noise alone, in every cell."""
        cells = tuple(
            {key: value for key, value in cell.items() if key != "pure_noise"} for cell in self.cells
        )
        return replace(self, pure_noise=True, cells=cells)

    def check_processes(self, processes: int) -> None:
        """One process holds all replicates."""
        if processes > 1:
            raise Invalid(
                "replicates",
                f"a synthetic run is one process; start {processes} runs of different seeds instead",
            )

    @property
    def coordinates_each(self) -> int:
        """Trained coordinates of a replicate."""
        raise NotImplementedError

    @property
    def parameters(self) -> int:
        """Trained coordinates of the run: of all cells and replicates."""
        return max(len(self.cells), 1) * self.replicates * self.coordinates_each


S = TypeVar("S", bound=SyntheticSettings)
N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Cell(Generic[S]):
    """One cell: its settings, and how its learning rate differs from the optimiser's."""

    settings: S
    overrides: CellOverrides
    learning_rate: float | None
    """Its own peak learning rate; None: the optimiser's times `learning_rate_factor`."""
    learning_rate_factor: float

    def peak_learning_rate(self, common: float) -> float:
        """Return the peak learning rate of the cell, given the optimiser's."""
        return common * self.learning_rate_factor if self.learning_rate is None else self.learning_rate


def build_cells(settings: S, key: str = "objective") -> list[Cell[S]]:
    """Return the cells of a synthetic objective, at least one.

    Raises:
        BadInput: a cell overrides what it cannot, or with an impossible value; the message names the full key.
    """
    base = {field.name: _node(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    base["cells"] = []
    shared = (*_COMMON_KEYS, *settings.shape_keys)
    cells: list[Cell[S]] = []
    for index, overrides in enumerate(settings.cells or ({},)):
        where = f"{key}.cells[{index}]"
        own = {name: value for name, value in overrides.items() if name not in _RATE_KEYS}
        for name in own:
            if name in shared:
                raise BadInput(f"{where}.{name}: all cells share it; set {key}.{name} for the whole run")
            if name not in base:
                known = [*(name for name in base if name not in shared), *_RATE_KEYS]
                raise BadInput(f"{where}.{name}: no code reads this key; {suggest(str(name), known)}")
        rate, factor = _rates(overrides, where)
        made = build(type(settings), _merged(base, own), where if own else key)
        cells.append(Cell(made, dict(overrides), rate, factor))
    return cells


def _rates(overrides: CellOverrides, where: str) -> tuple[float | None, float]:
    """Return the learning rate that a cell sets, and the factor on the common one."""
    given = {name: overrides[name] for name in _RATE_KEYS if overrides.get(name) is not None}
    if len(given) > 1:
        raise BadInput(f"{where}: give learning_rate or learning_rate_factor, not both")
    for name, value in given.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value < float("inf"):
            raise BadInput(f"{where}.{name}: expected a number that is not negative, got {value!r}")
    rate = given.get("learning_rate")
    return None if rate is None else float(rate), float(given.get("learning_rate_factor", 1.0))


def vector(value: N | tuple[N, ...], size: int, field: str) -> tuple[N, ...]:
    """Return `size` numbers: those of `value`, or the one repeated.

    Raises:
        Invalid: a list of another length.
    """
    if isinstance(value, tuple):
        require(len(value) == size, field, f"expected one number or {size} of them, got {len(value)}")
        return value
    return (value,) * size


def _node(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _node(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return list(value) if isinstance(value, tuple) else value


def _merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for name, value in overrides.items():
        old = result.get(name)
        merges = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[name] = _merged(dict(old or {}), value) if merges else value
    return result
