"""Settings of the benchmark of `lab extrapolate`, torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from lab.settings import require

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class ExtrapolateBenchSettings:
    """What is measured, and how often."""

    what: str
    """Registered name of the benchmark, `extrapolate`."""
    weights: int
    """About how many weights each of the two models has."""
    dtypes: tuple[str, ...]
    """Stored types that are timed."""
    repeats: int
    """Rounds; in each, every side has its turn."""
    workers: int
    """Threads that read, compute and write on our side."""
    peers: str
    """Path of the virtual environment that holds mergekit; where it does not, that side is left out and said so."""

    def __post_init__(self) -> None:
        for field in ("weights", "repeats", "workers"):
            require(getattr(self, field) >= 1, field, f"must be at least 1, got {getattr(self, field)}")
        require(bool(self.dtypes), "dtypes", "name at least one")
        for name in self.dtypes:
            require(name in DTYPES, "dtypes", f"unknown {name!r}; known: {', '.join(DTYPES)}")
