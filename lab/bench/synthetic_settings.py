"""Settings of the benchmark of synthetic runs, torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from lab.settings import require

OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class SyntheticBenchSettings:
    """What is simulated, and for how long."""

    what: str
    """Registered name of the benchmark, `synthetic`."""
    optimizers: tuple[str, ...]
    """Optimisers that are timed: sgd, adamw."""
    coordinates: tuple[int, ...]
    """Coordinates of a trajectory: every one of these is timed with every optimiser."""
    numbers: int
    """Coordinates of all trajectories together: normals of a step."""
    blocks: int
    """Rounds; in each, every side has its turn."""
    steps_per_block: int
    """Steps of a turn."""
    loop_trajectories: int
    """Trajectories that the NumPy loop does in a turn, one after the other."""

    def __post_init__(self) -> None:
        for field in ("numbers", "blocks", "steps_per_block", "loop_trajectories"):
            require(getattr(self, field) >= 1, field, f"must be at least 1, got {getattr(self, field)}")
        require(bool(self.optimizers), "optimizers", "name at least one")
        for name in self.optimizers:
            require(name in OPTIMIZERS, "optimizers", f"unknown {name!r}; known: {', '.join(OPTIMIZERS)}")
        require(bool(self.coordinates), "coordinates", "name at least one number")
        for count in self.coordinates:
            require(
                1 <= count <= self.numbers,
                "coordinates",
                f"must lie between 1 and numbers={self.numbers}, got {count}",
            )
