"""Settings of the GRPO benchmark, torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lab.settings import require


@dataclass(frozen=True)
class BenchSettings:
    """What is measured, and for how long."""

    what: str
    """Registered name of the benchmark, `grpo_step`."""
    peers: str
    """Path of the virtual environment that holds the peers."""
    install_peers: bool
    """Make that environment where there is none."""
    policy: Literal["tiny", "smollm2"]
    """Model that both sides train: the built-in one on two-digit sums, or SmolLM2 on word problems."""
    trainer: Literal["cpu", "gpu"]
    """Device of both sides; on a GPU both compute in bfloat16 on float32 weights."""
    micro_batch_prompts: int | None
    """Prompts that each side handles at a time, null for all; changes memory, not the gradient."""
    recorded: bool
    """Whether a third process measures ours with the recorder on."""
    blocks: int
    """Blocks of steps; the sides take turns block by block."""
    steps_per_block: int
    """Steps of a block."""
    warmup: int
    """Steps of each side before the first block; they are not measured."""
    profile_steps: int
    """Steps after the blocks in which our own phases are timed, and again for the operators."""
    prompts: int
    """Prompts of a step."""
    rollouts: int
    """Completions of each prompt."""
    max_new_tokens: int
    """Longest completion in tokens, the end token included."""
    learning_rate: float
    """Learning rate of AdamW on both sides."""

    def __post_init__(self) -> None:
        for field in ("blocks", "steps_per_block", "warmup", "profile_steps", "prompts", "max_new_tokens"):
            require(getattr(self, field) >= 1, field, f"must be at least 1, got {getattr(self, field)}")
        require(self.rollouts >= 2, "rollouts", f"a group needs at least 2, got {self.rollouts}")
        chunk = self.micro_batch_prompts
        require(
            chunk is None or (chunk >= 1 and self.prompts % chunk == 0),
            "micro_batch_prompts",
            f"must divide prompts={self.prompts}, or be null; got {chunk}",
        )
        require(self.learning_rate >= 0, "learning_rate", f"must not be negative, got {self.learning_rate}")

    @property
    def measured_steps(self) -> int:
        """Steps that each side does up to the end of the last block."""
        return self.warmup + self.blocks * self.steps_per_block
