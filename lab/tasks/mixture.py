"""A mixture of arithmetic tasks, each problem drawn from one of them at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lab.settings import require
from lab.tasks.arithmetic import (
    Addition,
    Arithmetic,
    ArithmeticSettings,
    Maximum,
    Multiplication,
    Subtraction,
)
from lab.tasks.task import Task

_PARTS: dict[str, type[Arithmetic]] = {
    "addition": Addition,
    "subtraction": Subtraction,
    "multiplication": Multiplication,
    "maximum": Maximum,
}


@dataclass(frozen=True)
class MixtureSettings(ArithmeticSettings):
    """Keys of the mixture."""

    parts: tuple[str, ...]
    """Names of the tasks that are mixed."""
    max_digits: int
    """A problem has between `digits` and `max_digits` digits, at random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.parts) > 0, "parts", "must name at least one task")
        for part in self.parts:
            require(part in _PARTS, "parts", f"unknown {part!r}; known: {', '.join(sorted(_PARTS))}")
        require(
            self.digits <= self.max_digits <= 6, "max_digits", f"must be digits to 6, got {self.max_digits}"
        )


class Mixture(Task):
    """Problems of several arithmetic tasks and sizes."""

    settings_class = MixtureSettings
    settings: MixtureSettings

    def __init__(self, settings: MixtureSettings) -> None:
        super().__init__(settings)
        self._tasks = [
            _PARTS[part](
                ArithmeticSettings(
                    name=part,
                    prompt=settings.prompt,
                    held_out_share=settings.held_out_share,
                    digits=digits,
                    terms=settings.terms,
                )
            )
            for part in settings.parts
            for digits in range(settings.digits, settings.max_digits + 1)
        ]

    def propose(self, generator: np.random.Generator) -> tuple[str, str, str]:
        return self._tasks[int(generator.integers(len(self._tasks)))].propose(generator)
