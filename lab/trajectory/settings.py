"""Settings of the recorder, torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from lab.settings import require


@dataclass(frozen=True)
class SamplingSettings:
    """Which weights are followed, and how often they are looked at."""

    every: int
    """Steps between recorded points; step 0 and the last step are always recorded."""
    sample_fraction: float
    """Share of each tensor whose coordinates are followed, in (0, 1]."""
    sample_minimum: int
    """At least so many coordinates of each tensor; smaller tensors are kept whole."""

    def __post_init__(self) -> None:
        require(self.every >= 1, "every", f"must be at least 1, got {self.every}")
        require(
            0 < self.sample_fraction <= 1,
            "sample_fraction",
            f"must lie in (0, 1], got {self.sample_fraction}",
        )
        require(self.sample_minimum >= 1, "sample_minimum", "must be at least 1")


@dataclass(frozen=True)
class RecorderSettings(SamplingSettings):
    """What a run keeps of its path, and how often."""

    update_coordinates: int
    """Coordinates whose raw gradient and movement are kept at every optimiser update."""
    projections: int
    """Random projections of the whole raw gradient and movement, kept at every update; 0 for none."""
    evaluate: bool
    """Whether each recorded point has a held-out evaluation."""
    save_every: int
    """Steps between checkpoints to resume from."""
    checkpoint_every: int | None
    """Steps between full Hugging Face checkpoints `checkpoint-N`, step 0 included; null for none."""
    keep_last: int | None
    """How many of those are kept, the newest; null for all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.update_coordinates >= 0, "update_coordinates", "must not be negative")
        require(self.projections >= 0, "projections", "must not be negative")
        require(self.save_every >= 1, "save_every", "must be at least 1")
        require(
            self.checkpoint_every is None or self.checkpoint_every >= 1,
            "checkpoint_every",
            "must be at least 1, or null",
        )
        require(self.keep_last is None or self.keep_last >= 1, "keep_last", "must be at least 1, or null")
        require(
            self.keep_last is None or self.checkpoint_every is not None,
            "keep_last",
            "says how many checkpoints to keep, so set recorder.checkpoint_every as well",
        )
