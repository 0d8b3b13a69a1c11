"""Settings of the benchmark of jumps, torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from lab.settings import require


@dataclass(frozen=True)
class JumpSettings:
    """Which schedules jump, and how often."""

    what: str
    """Registered name of the benchmark, `jump`."""
    schedules: tuple[str, ...]
    """Options of the group `regrounding` that act at the ends of blocks."""
    jumps: int
    """Jumps of each schedule."""
    block_steps: int
    """Steps from one jump to the next."""
    prompts: int
    """Prompts of a step."""
    rollouts: int
    """Completions of each prompt."""

    def __post_init__(self) -> None:
        require(len(self.schedules) >= 1, "schedules", "name at least one")
        for field in ("jumps", "block_steps", "prompts", "rollouts"):
            require(getattr(self, field) >= 1, field, f"must be at least 1, got {getattr(self, field)}")
        require(self.block_steps >= 2, "block_steps", "must be at least 2, for steps without a jump")
