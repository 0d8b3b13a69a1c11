"""Settings of the benchmark of extrapolated decoding, torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lab.settings import require


@dataclass(frozen=True)
class ExtrapolatedDecodingSettings:
    """What is measured, and how often."""

    what: str
    """Registered name of the benchmark, `extrapolated_decoding`."""
    policy: Literal["tiny", "smollm2"]
    """Model that is decoded; the second checkpoint is the same with perturbed weights."""
    trainer: Literal["cpu", "gpu"]
    """Device; on a GPU the weights are in bfloat16."""
    alpha: float
    """How far along the line; neither 0 nor 1, where one model alone would be run."""
    rounds: int
    """Rounds; in each, both sides have their turn."""
    warmup: int
    """Rounds before the first that is measured."""
    repeats: int
    """Decodings in a turn."""
    prompts: int
    """Prompts decoded at a time."""
    rollouts: int
    """Completions of each."""
    new_tokens: int
    """Length of every completion in tokens: none ends early."""

    def __post_init__(self) -> None:
        for field in ("rounds", "warmup", "repeats", "prompts", "rollouts", "new_tokens"):
            require(getattr(self, field) >= 1, field, f"must be at least 1, got {getattr(self, field)}")
        require(self.alpha not in (0, 1), "alpha", f"at {self.alpha:g} only one model is run")
