"""The interface of a follow-up, and what each of them gets to work with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.follow_up.pieces import Pieces
from lab.report import Picture, Row

if TYPE_CHECKING:
    from lab.training import TrainSettings


@dataclass(frozen=True)
class Trained:
    """A run that has been trained."""

    settings: TrainSettings
    """What was trained; `follow_up` is set."""
    path: Path
    """The run directory, with the store and the checkpoints in it."""
    pieces: Pieces
    """What is finished."""


@dataclass
class Findings:
    """What a follow-up has found."""

    numbers: dict[str, Any]
    """Keys of `summary.json`."""
    line: str
    """For the one-line result."""
    sections: list[tuple[str, list[Row]]] = field(default_factory=list)
    """Tables of the page, one column each."""
    pictures: list[Picture] = field(default_factory=list)
    """Figures of the page."""


class FollowUp(ABC):
    """One follow-up; made only where its settings ask for it."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained

    @abstractmethod
    def find(self) -> Findings:
        """Do what is left of it, piece by piece, and return what was found.

        Raises:
            BadInput: the run holds nothing that it could work on.
            Interrupted: between two pieces.
        """
