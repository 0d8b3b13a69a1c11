"""What a verifiable task is: it draws problems from a seed and verifies a completion to 0 or 1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lab.draw import stable_hash
from lab.errors import BadInput
from lab.settings import require

Split = Literal["train", "held_out"]

_MAX_TRIES = 10_000
_MAX_REPEATS = 1_000  # known problems in a row after which a task is taken to have no more
_BUCKETS = 10_000


@dataclass(frozen=True)
class Problem:
    """One problem, ready to be put to a model."""

    prompt: str
    """Text that the policy continues."""
    answer: str
    """The one completion that is right."""
    key: str
    """Canonical name: problems that differ only by commutation share it."""


@dataclass(frozen=True)
class TaskSettings:
    """Keys that every task has."""

    name: str
    """Registered name of the task."""
    prompt: str
    """Template of the prompt; `{expression}` is replaced by the expression."""
    held_out_share: float
    """Share of all problems that is kept for evaluation and never trained on."""

    def __post_init__(self) -> None:
        require("{expression}" in self.prompt, "prompt", "must contain {expression}")
        require(
            0 < self.held_out_share < 1, "held_out_share", f"must lie in (0, 1), got {self.held_out_share}"
        )


class Task(ABC):
    """A family of problems with exact answers.

    Subclasses say how an expression is drawn, what its canonical name is and what it is worth.
    Train and held-out problems are told apart by a hash of the canonical name: the split depends on no
    seed, so the held-out problems of any run are held out from every run.
    """

    settings_class: ClassVar[type[TaskSettings]] = TaskSettings

    def __init__(self, settings: TaskSettings) -> None:
        self.settings = settings

    @abstractmethod
    def propose(self, generator: np.random.Generator) -> tuple[str, str, str]:
        """Draw (expression, answer, canonical key), regardless of the split."""

    def split_of(self, key: str) -> Split:
        """Return the split to which the problem named `key` belongs, for ever."""
        held_out = stable_hash("split", key) % _BUCKETS < self.settings.held_out_share * _BUCKETS
        return "held_out" if held_out else "train"

    def draw(self, split: Split, count: int, generator: np.random.Generator) -> list[Problem]:
        """Draw `count` problems of `split`, independently and with replacement.

        Raises:
            BadInput: no problem of the split turns up, so the task is too small to be split.
        """
        problems: list[Problem] = []
        tries = 0
        while len(problems) < count:
            expression, answer, key = self.propose(generator)
            tries += 1
            if self.split_of(key) == split:
                prompt = self.settings.prompt.replace("{expression}", expression)
                problems.append(Problem(prompt, answer, key))
                tries = 0
            elif tries >= _MAX_TRIES:
                raise BadInput(
                    f"task.held_out_share: {self.settings.name} has no {split} problem among {_MAX_TRIES} draws; "
                    "change the share, or make the task larger (task.digits)"
                )
        return problems

    def draw_distinct(self, split: Split, count: int, generator: np.random.Generator) -> list[Problem]:
        """Draw up to `count` different problems of `split`; fewer where the task has no more."""
        found: dict[str, Problem] = {}
        repeats = 0
        while len(found) < count and repeats < _MAX_REPEATS:
            problem = self.draw(split, 1, generator)[0]
            repeats = repeats + 1 if problem.key in found else 0
            found.setdefault(problem.key, problem)
        return list(found.values())

    def verify(self, completion: str, problem: Problem) -> int | None:
        """Return 1 if `completion` is right, 0 if it is wrong, None if it could not be judged.

        The default is strict: apart from white space at its ends the completion is the answer. The
        completion is only ever compared, never run.
        """
        return int(completion.strip() == problem.answer)

    def judge_counts(self) -> dict[str, int]:
        """Return how often so far a completion could not be judged, by reason; empty if that never happens."""
        return {}
