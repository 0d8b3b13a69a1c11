"""What the settings of every objective can be asked, so that training need not know which one it serves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar


class ObjectiveSettings(ABC):
    """Keys of an objective; a settings class of the family is a frozen dataclass besides."""

    name: str
    """Registered name of the objective."""

    trains_language_model: ClassVar[bool]
    """Whether it needs a policy and a task; a synthetic objective owns its parameters instead."""

    @abstractmethod
    def twin(self) -> ObjectiveSettings:
        """Return the settings of the pure-noise twin: the same noise, no signal.

        Raises:
            Invalid: a setting that leaves the twin a drift, named by its field.
        """

    @abstractmethod
    def check_processes(self, processes: int) -> None:
        """Refuse a step that cannot be split evenly among `processes`.

        Raises:
            Invalid: named by its field.
        """

    @property
    def rollouts_per_step(self) -> int:
        """Completions sampled in a step."""
        return 0
