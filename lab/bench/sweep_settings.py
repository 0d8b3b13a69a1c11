"""Settings of the benchmark of sweeps, torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from lab.settings import require


@dataclass(frozen=True)
class SweepBenchSettings:
    """What is swept, and how often."""

    what: str
    """Registered name of the benchmark, `sweep`."""
    rounds: int
    """Rounds; in each, one worker and several have their turn at a study of their own."""
    trials: int
    """Points of a study, one seed each."""
    workers: int
    """Workers of the side that has several."""
    steps: int
    """RL steps of a trial."""
    prompts: int
    """Prompts of a step."""
    rollouts: int
    """Completions of each prompt."""
    measure: bool
    """Whether each trial's records are measured against their nulls too, as a sweep does unless told not to."""
    overhead_trials: int
    """Short trials, the first of them left out, whose time besides the run is measured."""

    def __post_init__(self) -> None:
        for field in ("rounds", "steps", "prompts", "rollouts"):
            require(getattr(self, field) >= 1, field, f"must be at least 1, got {getattr(self, field)}")
        require(self.workers >= 2, "workers", f"must be at least 2 to compare with one, got {self.workers}")
        require(
            self.trials >= self.workers, "trials", f"must give each of {self.workers} workers at least one"
        )
        require(
            self.overhead_trials >= 2, "overhead_trials", f"must be at least 2, got {self.overhead_trials}"
        )
