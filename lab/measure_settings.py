"""Settings of a measurement, without the libraries that measuring needs."""

from __future__ import annotations

from dataclasses import dataclass

from lab.linearity.filters import get_protocol
from lab.settings import require


@dataclass(frozen=True)
class MeasureSettings:
    """How a run is measured."""

    protocol: str
    """`unfiltered`, or `paper` for the published filter and bf16 cast."""
    flips: int
    """Sign-flip patterns of the null where not all can be enumerated."""

    def __post_init__(self) -> None:
        get_protocol(self.protocol)
        require(self.flips >= 19, "flips", f"at least 19 are needed for p <= .05, got {self.flips}")
