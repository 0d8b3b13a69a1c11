"""Settings of re-grounding and of its baselines, torch-free: one class an option of the group `regrounding`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lab.regrounding.schedule import Adaptive, Decaying, Fixed, Schedule
from lab.settings import build, choose, option_name, require

if TYPE_CHECKING:
    from lab.regrounding.outer_step import OuterStep


@dataclass(frozen=True)
class RegroundingSettings(ABC):
    """What every option has."""

    name: str
    """Registered name of the option."""

    @property
    @abstractmethod
    def period(self) -> int:
        """Steps between two moments at which there is something to do; 0 for never."""

    @property
    def copies_of_weights(self) -> int:
        """How many copies of all weights are kept between steps, and saved to resume from."""
        return 0

    @property
    def couples_replicates(self) -> str | None:
        """The key whose value makes independent replicates of a synthetic run depend on each other, if any."""
        return None

    @property
    def check(self) -> CheckSettings | None:
        """The held-out reward check, where there is one."""
        return None


@dataclass(frozen=True)
class NoRegroundingSettings(RegroundingSettings):
    """Plain training."""

    @property
    def period(self) -> int:
        return 0


@dataclass(frozen=True)
class CheckSettings:
    """The reward check that a jump has to pass."""

    problems: int
    """Held-out problems, none of them among the run's own test problems."""
    rollouts: int
    """Completions of each, before and after the jump, with the same random numbers."""
    tolerance: float
    """Standard errors of the mean paired difference by which the reward may fall."""

    def __post_init__(self) -> None:
        require(self.problems >= 2, "problems", f"must be at least 2, got {self.problems}")
        require(self.rollouts >= 1, "rollouts", f"must be at least 1, got {self.rollouts}")
        require(self.tolerance >= 0, "tolerance", f"must not be negative, got {self.tolerance}")


@dataclass(frozen=True)
class BlockSettings(RegroundingSettings):
    """An outer step at the end of every block of real steps."""

    block_steps: int
    """Real steps m of a block."""
    optimizer_state: Literal["keep", "reset", "rescale"]
    """What becomes of the optimiser's moments; see `lab.regrounding.moments`."""
    until_step: int | None
    """No outer step after this step; null for no end."""

    def __post_init__(self) -> None:
        require(self.block_steps >= 1, "block_steps", f"must be at least 1, got {self.block_steps}")
        require(self.until_step is None or self.until_step >= 1, "until_step", "must be at least 1, or null")

    @property
    def period(self) -> int:
        return self.block_steps

    @property
    def copies_of_weights(self) -> int:
        return 1

    @property
    def largest_move(self) -> float | None:
        """Largest norm of a move, as a share of the norm of all weights; None for no limit."""
        return None

    @abstractmethod
    def schedule(self) -> Schedule:
        """Return a new schedule."""

    @abstractmethod
    def outer_step(self) -> OuterStep | None:
        """Return a new rule; None leaves the weights where they are."""


@dataclass(frozen=True)
class JumpSettings(BlockSettings):
    """A jump along the block's displacement."""

    jump_steps: float
    """Steps n of a jump, of the first one where they change."""
    damping: float
    """Factor on the jump; 1 is the straight line."""
    norm_cap: float | None
    """Longest jump, as a share of the norm of all weights; a longer one is shortened. Null for no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.jump_steps > 0, "jump_steps", f"must be positive, got {self.jump_steps}")
        require(self.damping > 0, "damping", f"must be positive, got {self.damping}")
        require(self.norm_cap is None or self.norm_cap > 0, "norm_cap", "must be positive, or null")

    @property
    def largest_move(self) -> float | None:
        return self.norm_cap

    @property
    def couples_replicates(self) -> str | None:
        return None if self.norm_cap is None else "norm_cap"

    def outer_step(self) -> OuterStep | None:
        from lab.regrounding.outer_step import Jump

        return Jump(self.damping)


@dataclass(frozen=True)
class FixedSettings(JumpSettings):
    """m real steps, n jumped, and again."""

    def schedule(self) -> Schedule:
        return Fixed(self.jump_steps, self.until_step)


@dataclass(frozen=True)
class DecayingSettings(JumpSettings):
    """Every jump is shorter than the last; below one step there is none."""

    factor: float
    """n of a jump over that of the last."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.factor <= 1, "factor", f"must lie in (0, 1], got {self.factor}")

    def schedule(self) -> Schedule:
        return Decaying(self.jump_steps, self.factor, self.until_step)


@dataclass(frozen=True)
class AdaptiveSettings(JumpSettings):
    """A jump is kept only if a held-out reward check does not fall; n follows, and stops where skill is gone."""

    grow: float
    """Factor on n after a jump that was kept."""
    shrink: float
    """Factor on n after one that was taken back."""
    smallest_jump: float
    """n never falls below this."""
    largest_jump: float
    """n never exceeds this."""
    skill_blocks: int
    """Blocks over which the forecast skill is averaged."""
    least_skill: float
    """No jump while that average is below this."""
    reward_check: CheckSettings
    """The check."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.grow >= 1, "grow", f"must be at least 1, got {self.grow}")
        require(0 < self.shrink < 1, "shrink", f"must lie in (0, 1), got {self.shrink}")
        require(
            0 < self.smallest_jump <= self.jump_steps <= self.largest_jump,
            "jump_steps",
            f"must lie between smallest_jump={self.smallest_jump:g} (positive) and "
            f"largest_jump={self.largest_jump:g}, got {self.jump_steps:g}",
        )
        require(self.skill_blocks >= 1, "skill_blocks", f"must be at least 1, got {self.skill_blocks}")
        require(self.least_skill <= 1, "least_skill", f"no forecast is better than 1, got {self.least_skill}")

    @property
    def copies_of_weights(self) -> int:
        return 2  # the displacement of the block before as well

    @property
    def couples_replicates(self) -> str | None:
        return "name"

    @property
    def check(self) -> CheckSettings | None:
        return self.reward_check

    def schedule(self) -> Schedule:
        return Adaptive(
            self.jump_steps,
            self.grow,
            self.shrink,
            self.smallest_jump,
            self.largest_jump,
            self.skill_blocks,
            self.least_skill,
            self.until_step,
        )


@dataclass(frozen=True)
class LookaheadSettings(BlockSettings):
    """Baseline: slow weights that follow the fast ones a share of the way (Zhang et al. 2019)."""

    alpha: float
    """Share of the way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.alpha > 0, "alpha", f"must be positive, got {self.alpha}")

    def schedule(self) -> Schedule:
        return Fixed(self.block_steps, self.until_step)

    def outer_step(self) -> OuterStep | None:
        from lab.regrounding.outer_step import Lookahead

        return Lookahead(self.alpha)


@dataclass(frozen=True)
class OuterNesterovSettings(BlockSettings):
    """Baseline: SGD with Nesterov momentum on the displacements of blocks (Douillard et al. 2023)."""

    outer_learning_rate: float
    """1 with momentum 0 is plain training."""
    outer_momentum: float
    """Decay of the outer momentum for a block."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.outer_learning_rate > 0,
            "outer_learning_rate",
            f"must be positive, got {self.outer_learning_rate}",
        )
        require(
            0 <= self.outer_momentum < 1, "outer_momentum", f"must lie in [0, 1), got {self.outer_momentum}"
        )

    @property
    def copies_of_weights(self) -> int:
        return 2

    def schedule(self) -> Schedule:
        return Fixed(self.block_steps, self.until_step)

    def outer_step(self) -> OuterStep | None:
        from lab.regrounding.outer_step import OuterNesterov

        return OuterNesterov(self.outer_learning_rate, self.outer_momentum)


@dataclass(frozen=True)
class AdamResetSettings(BlockSettings):
    """Baseline: the optimiser, Adam or any other, forgets its moments at the end of every block; the weights stay."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.optimizer_state == "reset", "optimizer_state", "is reset here, or nothing would be done")

    @property
    def copies_of_weights(self) -> int:
        return 0

    def schedule(self) -> Schedule:
        return Fixed(self.block_steps, self.until_step)

    def outer_step(self) -> OuterStep | None:
        return None


@dataclass(frozen=True)
class FirstUpdateSettings(BlockSettings):
    """Baseline: the displacement of the first block, times alpha; plain training from there."""

    alpha: float
    """Displacement after the jump over that before."""
    norm_cap: float | None
    """Longest jump, as a share of the norm of all weights; a longer one is shortened. Null for no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.alpha > 1, "alpha", f"must be above 1, got {self.alpha}")
        require(self.norm_cap is None or self.norm_cap > 0, "norm_cap", "must be positive, or null")
        require(
            self.until_step == self.block_steps, "until_step", "is block_steps here: there is one jump only"
        )

    @property
    def largest_move(self) -> float | None:
        return self.norm_cap

    @property
    def couples_replicates(self) -> str | None:
        return None if self.norm_cap is None else "norm_cap"

    def schedule(self) -> Schedule:
        return Fixed((self.alpha - 1) * self.block_steps, self.until_step)

    def outer_step(self) -> OuterStep | None:
        from lab.regrounding.outer_step import Jump

        return Jump(damping=1.0)


@dataclass(frozen=True)
class CheckpointAverageSettings(RegroundingSettings):
    """Baseline: training is plain, evaluation is of an average of its last weights."""

    every: int
    """Steps between the weights that are averaged."""
    kind: Literal["last", "exponential"]
    """`last`: the mean of the last `count` (LAWA, Kaddour 2022); `exponential`: a <- decay a + (1 - decay) w."""
    count: int | None
    """For `last`: how many."""
    decay: float | None
    """For `exponential`: weight of the old average."""

    def __post_init__(self) -> None:
        require(self.every >= 1, "every", f"must be at least 1, got {self.every}")
        wanted, other = ("count", "decay") if self.kind == "last" else ("decay", "count")
        require(getattr(self, wanted) is not None, wanted, f"kind={self.kind} needs it")
        require(getattr(self, other) is None, other, f"kind={self.kind} does not read it; set it to null")
        require(self.count is None or self.count >= 1, "count", "must be at least 1")
        require(self.decay is None or 0 < self.decay < 1, "decay", "must lie in (0, 1)")

    @property
    def period(self) -> int:
        return self.every

    @property
    def copies_of_weights(self) -> int:
        return 1 if self.count is None else self.count


REGROUNDINGS: dict[str, type[RegroundingSettings]] = {
    "none": NoRegroundingSettings,
    "fixed": FixedSettings,
    "decaying": DecayingSettings,
    "adaptive": AdaptiveSettings,
    "lookahead": LookaheadSettings,
    "outer_nesterov": OuterNesterovSettings,
    "adam_reset": AdamResetSettings,
    "first_update": FirstUpdateSettings,
    "checkpoint_average": CheckpointAverageSettings,
}


def build_regrounding_settings(node: Mapping[str, Any], key: str = "regrounding") -> RegroundingSettings:
    """Build the settings of the option that the configuration group `node` names.

    Raises:
        BadInput: unknown option, unknown key or impossible value, named by its full key.
    """
    return build(choose(REGROUNDINGS, option_name(node, key), f"{key}.name"), node, key)
