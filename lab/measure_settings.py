"""Settings of a measurement, without the libraries that measuring needs."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lab.linearity.filters import get_protocol
from lab.settings import require

PAPER_FRACTION, PAPER_MINIMUM = 0.001, 50
"""The published script looks at max(50, 0.1 %) scalars of each tensor called `.weight`."""

_MOST_WORKERS = 8  # More would wait for the disk, and each holds buffers of some ten megabytes.


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


@dataclass(frozen=True)
class CheckpointSettings:
    """How a series of full checkpoints is measured."""

    protocol: str
    """`unfiltered`: every weight as it is. `paper`: the published filter and bf16 cast."""
    flips: int
    """Sign-flip patterns of the null where not all can be enumerated, and of each tensor's tests."""
    sample_fraction: float | None
    """Share of each tensor's weights that is looked at. None is the protocol's own: every weight, or the published
    max(50, 0.1 %) of each tensor whose name ends in `.weight`."""
    beta1: float
    """Decay of the first moment of the optimiser that made the checkpoints; 0 for none."""
    updates_per_step: int
    """Optimiser updates of one step of the checkpoints' numbering."""
    fit_share: float
    """Share of the span in steps that forecasts are fitted on; the checkpoints after it are held out."""
    nulls: bool
    """Test against chance; without it only the statistics themselves are computed."""
    workers: int | None
    """Threads that read and compute; None is one for each processor core, at most eight."""

    def __post_init__(self) -> None:
        MeasureSettings(self.protocol, self.flips)
        if self.sample_fraction is not None:
            fits = 0.0 < self.sample_fraction <= 1.0
            require(fits, "sample_fraction", f"expected above 0 and at most 1, got {self.sample_fraction}")
        require(0.0 <= self.beta1 < 1.0, "beta1", f"expected a number in [0, 1), got {self.beta1}")
        require(self.updates_per_step >= 1, "updates_per_step", f"at least 1, got {self.updates_per_step}")
        require(0.0 < self.fit_share < 1.0, "fit_share", f"expected between 0 and 1, got {self.fit_share}")
        require(self.workers is None or self.workers >= 1, "workers", f"at least 1, got {self.workers}")

    @property
    def threads(self) -> int:
        """How many threads `workers` comes to."""
        if self.workers is not None:
            return self.workers
        affinity = getattr(os, "sched_getaffinity", None)
        count = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
        return min(count, _MOST_WORKERS)

    @property
    def sampling(self) -> tuple[float, int, str]:
        """Share of a tensor's elements looked at, fewest of them, and what a tensor's name has to end in."""
        if self.sample_fraction is not None:
            return self.sample_fraction, 1, ""
        if self.protocol == "paper":
            return PAPER_FRACTION, PAPER_MINIMUM, ".weight"
        return 1.0, 1, ""
