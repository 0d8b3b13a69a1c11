"""Settings of `lab check`, and the choice of predictions by name or number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.errors import BadInput
from lab.settings import require, suggest

QUICK_SHARE = 0.04
"""Share of the samples that `quick=true` draws: the error bars are five times as long."""

QUICK_POINTS = 3
"""Points of a law that `quick=true` checks: the first, the last and one between."""


@dataclass(frozen=True)
class CheckSettings:
    """What is checked, and how hard."""

    prediction: Any
    """A prediction's name or number, a list of them, or null for all."""
    quick: bool
    """Take few samples and points."""
    effort: float
    """Factor on the samples of every simulation."""
    planted_error: float
    """Every formula is multiplied by one plus this before it is judged."""
    power: bool
    """Report the smallest planted error that would have been seen."""
    nulls: bool
    """Also tabulate what chance alone gives."""
    workers: int
    """Processes that share the laws."""

    def __post_init__(self) -> None:
        require(self.effort > 0, "effort", f"must be positive, got {self.effort}")
        require(self.planted_error > -1, "planted_error", f"must exceed -1, got {self.planted_error}")
        require(self.workers >= 1, "workers", f"must be at least 1, got {self.workers}")

    @property
    def sample_factor(self) -> float:
        """What every simulation's number of samples is multiplied by."""
        return self.effort * (QUICK_SHARE if self.quick else 1.0)

    @property
    def most_points(self) -> int | None:
        """Points of a law that are checked at most; None for all."""
        return QUICK_POINTS if self.quick else None


def select_predictions(wanted: Any) -> list[str]:
    """Names of the predictions asked for, in the order of their numbers, none twice.

    Raises:
        BadInput: an unknown name, or a number that no prediction has.
    """
    from theory import PREDICTION_MODULES

    if wanted is None:
        return list(PREDICTION_MODULES)
    chosen = {_name(item, PREDICTION_MODULES) for item in (wanted if isinstance(wanted, list) else [wanted])}
    if not chosen:
        raise BadInput("prediction: an empty list; null checks all predictions")
    return [name for name in PREDICTION_MODULES if name in chosen]


def _name(item: Any, names: tuple[str, ...]) -> str:
    if type(item) is int:
        if not 1 <= item <= len(names):
            raise BadInput(f"prediction: expected a number from 1 to {len(names)}, got {item}")
        return names[item - 1]
    if item not in names:
        raise BadInput(f"prediction: unknown {item!r}; {suggest(str(item), names)}")
    return str(item)
