"""When a run jumps and how far: state machines over blocks of real steps, without any weights.

A block is m real steps and ends at a multiple of m. At its end the schedule says how many steps n to jump, or None.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from lab.linearity.checks import FloatArray


class Schedule(ABC):
    """Says how far to jump at the end of a block, and learns what came of it.

    Args:
        until_step: no jump after this step; None for no end.
    """

    judges: bool = False
    """Whether a jump is put to a held-out reward check."""
    watches_skill: bool = False
    """Whether the skill of the forecast that a jump makes is to be told to `observe`."""

    def __init__(self, until_step: int | None = None) -> None:
        self.until_step = until_step

    def over(self, step: int) -> bool:
        """Return whether there is nothing left to do after `step`."""
        return self.until_step is not None and step >= self.until_step

    def next_jump(self, step: int) -> float | None:
        """Return the steps n, above 0, to jump at the end of the block that ends at `step`; None for none."""
        if self.until_step is not None and step > self.until_step:
            return None
        return self._steps()

    @abstractmethod
    def _steps(self) -> float | None:
        """Return the steps to jump now, were the end not reached."""

    def observe(self, skill: float) -> None:
        """Learn the forecast skill of the block that has ended; before `next_jump`."""
        return None

    def learn(self, accepted: bool) -> None:
        """Learn what became of the jump that `next_jump` asked for."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what changes as the run goes, as plain numbers and lists."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        return None


class Fixed(Schedule):
    """The same number of steps at the end of every block."""

    def __init__(self, jump_steps: float, until_step: int | None = None) -> None:
        super().__init__(until_step)
        self.jump_steps = jump_steps

    def _steps(self) -> float | None:
        return self.jump_steps


class Decaying(Schedule):
    """n, factor n, factor² n ...: each jump is shorter than the last, down to one step."""

    def __init__(self, jump_steps: float, factor: float, until_step: int | None = None) -> None:
        super().__init__(until_step)
        self.jump_steps, self.factor = jump_steps, factor
        self._jumps = 0

    def _steps(self) -> float | None:
        steps = self.jump_steps * self.factor**self._jumps
        return steps if steps >= 1 else None

    def learn(self, accepted: bool) -> None:
        self._jumps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"jumps": self._jumps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._jumps = int(state["jumps"])


class Adaptive(Schedule):
    """Longer after a jump that was accepted, shorter after one that was not, none while forecasts have no skill.

    Args:
        jump_steps: of the first jump.
        grow: factor after an accepted jump, at least 1.
        shrink: factor after a rejected one, in (0, 1).
        smallest: steps that n never falls below.
        largest: steps that n never exceeds.
        skill_blocks: blocks that the skill is averaged over.
        least_skill: no jump while the average is below this; an unknown skill does not stop one.
        until_step: no jump after this step.
    """

    judges = True
    watches_skill = True

    def __init__(
        self,
        jump_steps: float,
        grow: float,
        shrink: float,
        smallest: float,
        largest: float,
        skill_blocks: int,
        least_skill: float,
        until_step: int | None = None,
    ) -> None:
        super().__init__(until_step)
        self.grow, self.shrink, self.smallest, self.largest = grow, shrink, smallest, largest
        self.skill_blocks, self.least_skill = skill_blocks, least_skill
        self._next = jump_steps
        self._skills: list[float] = []

    @property
    def skill(self) -> float:
        """Mean forecast skill of the last blocks; NaN before there is one."""
        return sum(self._skills) / len(self._skills) if self._skills else float("nan")

    def _steps(self) -> float | None:
        return None if self.skill < self.least_skill else self._next

    def observe(self, skill: float) -> None:
        self._skills = [*self._skills, skill][-self.skill_blocks :]

    def learn(self, accepted: bool) -> None:
        factor = self.grow if accepted else self.shrink
        self._next = min(max(self._next * factor, self.smallest), self.largest)

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next, "skills": list(self._skills)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._next = float(state["next"])
        self._skills = [float(skill) for skill in state["skills"]]


def reward_holds(before: FloatArray, after: FloatArray, tolerance: float) -> bool:
    """Return whether a paired check finds no fall: mean difference >= -tolerance x its standard error.

    Args:
        before: score of each problem before the jump, float [problem]; NaN where not judged.
        after: after it, same problems and random numbers.
        tolerance: standard errors of the mean paired difference over problems; 0 allows no fall at all.

    Returns:
        False where fewer than two problems were judged both times.
    """
    differences = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    differences = differences[np.isfinite(differences)]
    if len(differences) < 2:
        return False
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5
    return float(differences.mean()) >= -tolerance * error
