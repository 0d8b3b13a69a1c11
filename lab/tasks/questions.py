"""Tasks whose problems are whole questions, from a source that has its own train and held-out parts."""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lab.errors import BadInput
from lab.settings import require
from lab.tasks.task import Problem, Split, Task, TaskSettings

_MAX_TRIES = 10_000


@dataclass(frozen=True)
class QuestionSettings(TaskSettings):
    """Keys of the tasks that ask questions: in `prompt`, `{question}` is replaced by the question."""

    def __post_init__(self) -> None:
        require("{question}" in self.prompt, "prompt", "must contain {question}")
        TaskSettings(self.name, "{expression}", self.held_out_share)  # checks the share


class QuestionTask(Task):
    """Common part: a question of a split comes from that split's part of the source, and keeps to it.

    Parts that are apart may still hold the same question by chance; the hash of its name decides then, as in every
    task, so that no question is ever on both sides.
    """

    settings_class: ClassVar[type[TaskSettings]] = QuestionSettings

    @abstractmethod
    def ask(self, split: Split, generator: np.random.Generator) -> tuple[str, str, str]:
        """Draw (question, answer, canonical key) from the part of `split`."""

    def propose(self, generator: np.random.Generator) -> tuple[str, str, str]:
        held_out = generator.random() < self.settings.held_out_share
        return self.ask("held_out" if held_out else "train", generator)

    def draw(self, split: Split, count: int, generator: np.random.Generator) -> list[Problem]:
        return [self._draw_one(split, generator) for _ in range(count)]

    def _draw_one(self, split: Split, generator: np.random.Generator) -> Problem:
        for _ in range(_MAX_TRIES):
            question, answer, key = self.ask(split, generator)
            if self.split_of(key) == split:
                return Problem(self.settings.prompt.replace("{question}", question), answer, key)
        raise BadInput(
            f"task.held_out_share: {self.settings.name} has no {split} problem among {_MAX_TRIES} draws; change the "
            "share, or make the task larger"
        )


def require_package(package: str, task: str) -> None:
    """Refuse a task whose package is not installed.

    Raises:
        BadInput: with the command that installs it.
    """
    if importlib.util.find_spec(package) is None:
        raise BadInput(f"task={task}: {package} is not installed; pip install 'rlvr-linear-lab[tasks]'")
