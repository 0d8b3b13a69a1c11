"""The rows of the tables of `lab check`: one for each point of a law, one for each number of a null."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Check:
    """A law at one of its points, predicted and simulated.

    Attributes:
        prediction: module name within `theory`.
        law: name of the law.
        point: index into `Law.points`.
        parameters: of the point.
        predicted: what the formula gives.
        simulated: what the simulation gives, in the same unit.
        standard_error: of `simulated`; 0 for an experiment without randomness.
        tolerance: absolute error that an approximate law admits to; 0 for an exact one.
        exact: whether the law claims to be exact.
        samples: draws behind `simulated`.
    """

    prediction: str
    law: str
    point: int
    parameters: Mapping[str, Any]
    predicted: float
    simulated: float
    standard_error: float
    tolerance: float
    exact: bool
    samples: int

    @property
    def name(self) -> str:
        """`prediction.law[point]`, as it stands under `failed` in a summary."""
        return f"{self.prediction}.{self.law}[{self.point}]"


@dataclass(frozen=True)
class NullRow:
    """A number that chance alone gives.

    Attributes:
        null: what was drawn, such as "driftless walk, n = 14".
        statistic: of what, such as "median R²".
        source: `exact`, from theory, or `simulated`.
        value: the number.
        standard_error: of `value`; 0 where it is exact.
        stated: what was stated before it was computed, or None.
        tolerance: how far from `stated` counts as agreement (a number stated to two digits has half a digit), or None.
    """

    null: str
    statistic: str
    source: Literal["exact", "simulated"]
    value: float
    standard_error: float
    stated: float | None = None
    tolerance: float | None = None

    @property
    def as_stated(self) -> bool | None:
        """Whether the number is what was stated, within `tolerance` and five standard errors; None without one."""
        if self.stated is None or self.tolerance is None:
            return None
        return abs(self.value - self.stated) <= self.tolerance + 5 * self.standard_error
