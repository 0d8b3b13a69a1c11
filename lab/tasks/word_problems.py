"""Mixed arithmetic put as questions, for models that follow instructions: at least a thousand different problems
already with one-digit numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lab.settings import require
from lab.tasks.task import Problem, Task, TaskSettings

_NUMBER = re.compile(r"-?[0-9](?:[0-9,]*[0-9])?(?:\.[0-9]+)?")


@dataclass(frozen=True)
class Question:
    """One kind of question: how many numbers it takes, how it reads, what the answer is."""

    operands: int
    text: str
    answer: Callable[[list[int]], int]
    largest_first: bool = False


QUESTIONS: dict[str, Question] = {
    "sum": Question(2, "What is {0} + {1}?", sum),
    "difference": Question(2, "What is {0} - {1}?", lambda n: n[0] - n[1], largest_first=True),
    "product": Question(2, "What is {0} * {1}?", lambda n: n[0] * n[1]),
    "sum_of_three": Question(3, "What is {0} + {1} + {2}?", sum),
    "largest": Question(4, "Which is the largest of {0}, {1}, {2} and {3}?", max),
    "smallest": Question(4, "Which is the smallest of {0}, {1}, {2} and {3}?", min),
}


@dataclass(frozen=True)
class WordProblemSettings(TaskSettings):
    """Keys of the word problems."""

    kinds: tuple[str, ...]
    """Kinds of question, each as often as the others; a name given twice comes twice as often."""
    digits: int
    """Digits of each number, 1 to 4; numbers are uniform over those that have just so many."""
    answer: Literal["last_number", "exact"]
    """`last_number`: the last number in the completion counts; `exact`: the completion must be the number
    and nothing else."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.kinds) > 0, "kinds", "must name at least one kind")
        for kind in self.kinds:
            require(kind in QUESTIONS, "kinds", f"unknown {kind!r}; known: {', '.join(sorted(QUESTIONS))}")
        require(1 <= self.digits <= 4, "digits", f"must be 1 to 4, got {self.digits}")


class WordProblems(Task):
    """Questions with a whole number as their answer."""

    settings_class: ClassVar[type[TaskSettings]] = WordProblemSettings
    settings: WordProblemSettings

    def propose(self, generator: np.random.Generator) -> tuple[str, str, str]:
        kind = self.settings.kinds[int(generator.integers(len(self.settings.kinds)))]
        question = QUESTIONS[kind]
        low = 0 if self.settings.digits == 1 else 10 ** (self.settings.digits - 1)
        drawn = generator.integers(low, 10**self.settings.digits, size=question.operands)
        numbers = [int(number) for number in drawn]
        if question.largest_first:
            numbers.sort(reverse=True)
        key = f"{kind}:{','.join(str(number) for number in sorted(numbers))}"
        return question.text.format(*numbers), str(question.answer(numbers)), key

    def verify(self, completion: str, problem: Problem) -> int | None:
        """Return 1 if the completion answers with the right number, else 0; see the key `answer`.

        A full stop after the number and commas between its thousands are forgiven, `12.0` for 12 is not.
        """
        if self.settings.answer == "exact":
            return int(completion.strip().removesuffix(".") == problem.answer)
        numbers = _NUMBER.findall(completion)
        return int(bool(numbers) and numbers[-1].replace(",", "") == problem.answer)
