"""Settings of the benchmark of `lab measure checkpoints=`, torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from lab.settings import require

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class MeasureCheckpointsSettings:
    """What is measured, and how often."""

    what: str
    """Registered name of the benchmark, `measure_checkpoints`."""
    weights: int
    """About how many weights the timed model has."""
    checkpoint_count: int
    """Checkpoints of it."""
    dtypes: tuple[str, ...]
    """Stored types that are timed."""
    repeats: int
    """Rounds; in each, every side has its turn."""
    published_repeats: int
    """Rounds in which the published method has a turn as well; it holds every checkpoint in memory."""
    large_weights: int
    """About how many weights the model has whose peak memory is measured; 0 leaves it out."""
    large_checkpoint_count: int
    """Checkpoints of it."""
    workers: int
    """Threads that read and compute."""

    def __post_init__(self) -> None:
        for field in ("weights", "repeats", "workers"):
            require(getattr(self, field) >= 1, field, f"must be at least 1, got {getattr(self, field)}")
        for field in ("checkpoint_count", "large_checkpoint_count"):
            require(getattr(self, field) >= 3, field, f"must be at least 3, got {getattr(self, field)}")
        for field in ("published_repeats", "large_weights"):
            require(getattr(self, field) >= 0, field, f"must not be negative, got {getattr(self, field)}")
        require(bool(self.dtypes), "dtypes", "name at least one")
        for name in self.dtypes:
            require(name in DTYPES, "dtypes", f"unknown {name!r}; known: {', '.join(DTYPES)}")
