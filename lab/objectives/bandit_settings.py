"""Settings of the softmax bandit, torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lab.noise import RewardFlips
from lab.objectives.advantages import AdvantageScale
from lab.objectives.synthetic_settings import SyntheticSettings, vector
from lab.settings import require


@dataclass(frozen=True)
class PassRates:
    """Pass rates of the contexts at the start, evenly spaced."""

    lowest: float
    """Of the first context, in (0, 1)."""
    highest: float
    """Of the last context, in (0, 1)."""

    def __post_init__(self) -> None:
        for field in ("lowest", "highest"):
            value = getattr(self, field)
            require(0 < value < 1, field, f"a pass rate at the start must lie inside (0, 1), got {value}")
        require(
            self.lowest <= self.highest,
            "highest",
            f"must not lie below lowest={self.lowest}, got {self.highest}",
        )


@dataclass(frozen=True)
class BanditSettings(SyntheticSettings):
    """Keys of the softmax bandit: RL with verifiable rewards on a table of logits [context, action]."""

    contexts: int
    """Rows of the table; a context is what a prompt is to a language model."""
    actions: int
    """Logits of a context; an action is what a completion is to a language model."""
    right_actions: int | tuple[int, ...]
    """How many actions are right, the first ones: one number, or one for each context."""
    initial_pass_rate: PassRates
    """Probability of the right actions at the start."""
    logit_spread: float
    """Standard deviation of the starting logits among the right and among the wrong actions; one draw for
    all replicates."""
    prompts: int
    """Contexts of a step, drawn with replacement."""
    rollouts: int
    """Actions sampled in each: the group."""
    advantage_scale: AdvantageScale
    """What the centred rewards are divided by: std, unbiased_std, batch or none."""
    advantage_epsilon: float
    """Added to that divisor."""
    flips: RewardFlips
    """Noise put on the verified rewards; `per: prompt` fixes it for a context of a replicate."""
    reward_noise: float
    """Standard deviation of normal noise added to the rewards."""
    policy_noise: float
    """Amplitude of gradient noise with the covariance of the policy gradient: that of a second batch of as many
    prompts and rollouts, its advantages permuted within each group."""
    gradient_noise: float
    """Standard deviation of isotropic normal noise added to the gradient of an update."""

    shape_keys: ClassVar[tuple[str, ...]] = ("contexts", "actions")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.contexts >= 1, "contexts", f"must be at least 1, got {self.contexts}")
        require(self.actions >= 2, "actions", f"a choice needs at least 2, got {self.actions}")
        for count in self.right_counts():
            require(
                1 <= count < self.actions,
                "right_actions",
                f"must lie between 1 and actions - 1 = {self.actions - 1}, got {count}",
            )
        require(self.prompts >= 1, "prompts", f"a step needs at least one prompt, got {self.prompts}")
        require(
            self.rollouts >= 2,
            "rollouts",
            f"a group of {self.rollouts} has no spread: every advantage would be zero; use at least 2",
        )
        for field in ("logit_spread", "advantage_epsilon", "reward_noise", "policy_noise", "gradient_noise"):
            require(getattr(self, field) >= 0, field, f"must not be negative, got {getattr(self, field)}")

    @property
    def coordinates_each(self) -> int:
        """See `SyntheticSettings`."""
        return self.contexts * self.actions

    @property
    def rollouts_per_step(self) -> int:
        """Actions sampled in a step, over all cells and replicates."""
        return max(len(self.cells), 1) * self.replicates * self.prompts * self.rollouts

    def right_counts(self) -> tuple[int, ...]:
        """Return the number of right actions of each context.

        Raises:
            Invalid: a list of another length.
        """
        return vector(self.right_actions, self.contexts, "right_actions")
