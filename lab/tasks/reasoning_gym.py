"""Procedural problems of reasoning-gym (Stojanovski et al. 2025, arXiv 2505.24760), with verifiers of our own.

Only datasets that are known to be sound are allowed: one right answer, which depends on the item alone. Their scorers
are never called: some evaluate what the model wrote, and many give part of a point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from lab.errors import BadInput
from lab.settings import require, suggest
from lab.tasks.answers import Answer, Assignment, NumberList, Where, WholeNumber, WordList, Words
from lab.tasks.questions import QuestionSettings, QuestionTask, require_package
from lab.tasks.task import Problem, Split, TaskSettings

ALLOWED: dict[str, type[Answer]] = {
    "base_conversion": Words,
    "basic_arithmetic": WholeNumber,
    "caesar_cipher": Words,
    "chain_sum": WholeNumber,
    "count_bits": WholeNumber,
    "count_primes": WholeNumber,
    "gcd": WholeNumber,
    "knights_knaves": Assignment,
    "lcm": WholeNumber,
    "leg_counting": WholeNumber,
    "letter_counting": WholeNumber,
    "number_filtering": NumberList,
    "number_sorting": NumberList,
    "products": WholeNumber,
    "simple_equations": WholeNumber,
    "spell_backward": Words,
    "word_sequence_reversal": WordList,
    "word_sorting": WordList,
}
"""Dataset to the kind of its answers."""

_HASHED = "its problems change with PYTHONHASHSEED, so that no run of it can be repeated"
_FREE_FORM = "many expressions are right, and telling them takes computing what the model wrote"
_MANY = "several answers to one problem are right"
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        ("isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder"),
        _HASHED,
    ),
    **dict.fromkeys(("countdown", "puzzle24", "simple_integration", "intermediate_integration"), _FREE_FORM),
    **dict.fromkeys(("n_queens", "letter_jumble", "string_insertion"), _MANY),
    "game_of_life_halting": "its own score of junk is 1, and its answer is one of two words",
}
"""Datasets that were looked at and found wanting, with the reason."""

DEFAULTS: dict[str, dict[str, Any]] = {"basic_arithmetic": {"operators": ["+", "-", "*"]}}
"""Parameters that differ from reasoning-gym's own defaults."""

# Item i of seed s is item i - 1 of seed s + 1: all that counts is seed + item, and the parts lie far apart in it.
_FIRST_ITEM: dict[Split, int] = {"train": 0, "held_out": 2**40}
_ITEMS = 2**31
_TRIED_ITEMS = 8


@dataclass(frozen=True)
class ReasoningGymSettings(QuestionSettings):
    """Keys of the reasoning-gym adapter."""

    dataset: str
    """Name of an allowed dataset."""
    parameters: dict | None
    """The dataset's own parameters, apart from seed and size."""
    answer: Where
    """`last`: the last thing in the completion that has the form of an answer counts; `exact`: the completion must be
    the answer and nothing else."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.dataset in ALLOWED,
            "dataset",
            f"{self.dataset} is not allowed: {REFUSED[self.dataset]}; allowed: {', '.join(ALLOWED)}"
            if self.dataset in REFUSED
            else f"{self.dataset!r} is not among the datasets known to be sound; {suggest(self.dataset, ALLOWED)}",
        )
        for name in ("seed", "size"):
            require(
                name not in (self.parameters or {}),
                f"parameters.{name}",
                "is not yours to set; see the key seed",
            )
        _check_parameters(self.dataset, self.all_parameters)

    @property
    def all_parameters(self) -> dict[str, Any]:
        """The parameters given, on top of `DEFAULTS`."""
        return {**DEFAULTS.get(self.dataset, {}), **(self.parameters or {})}


class ReasoningGym(QuestionTask):
    """Problems of one reasoning-gym dataset.

    Raises:
        BadInput: reasoning-gym is not installed, or the dataset refuses the parameters.
    """

    settings_class: ClassVar[type[TaskSettings]] = ReasoningGymSettings
    settings: ReasoningGymSettings

    def __init__(self, settings: ReasoningGymSettings) -> None:
        super().__init__(settings)
        require_package("reasoning_gym", settings.name)
        self._kind = ALLOWED[settings.dataset]()
        self._parts = {split: _create(settings, first) for split, first in _FIRST_ITEM.items()}
        self._try_items()

    def ask(self, split: Split, generator: np.random.Generator) -> tuple[str, str, str]:
        return self._item(split, int(generator.integers(_ITEMS)))

    def verify(self, completion: str, problem: Problem) -> int | None:
        """Return 1 if the completion gives the right answer, else 0; see `lab.tasks.answers`."""
        return self._kind.verify(completion, problem.answer, self.settings.answer)

    def _item(self, split: Split, index: int) -> tuple[str, str, str]:
        item = self._parts[split][index]
        question = item["question"].strip()
        return question, item["answer"], f"{self.settings.dataset}:{question}"

    def _try_items(self) -> None:
        """Draw a few items, since some parameters pass the dataset's own check and fail only there."""
        for index in range(_TRIED_ITEMS):
            try:
                _, answer, _ = self._item("train", index)
            except Exception as error:  # whatever the dataset's code raises
                raise _bad_parameters(self.settings, error) from error
            if not self._kind.verify(answer, answer, "exact"):
                raise _bad_parameters(self.settings, ValueError(f"its answer {answer!r} cannot be read"))


def _create(settings: ReasoningGymSettings, first_item: int) -> Any:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    known = {field.name for field in fields(DATASETS[settings.dataset][1])} - {"seed", "size"}
    for name in settings.all_parameters:
        if name not in known:
            raise BadInput(
                f"task.parameters.{name}: no parameter of {settings.dataset}; {suggest(str(name), known)}"
            )
    try:
        return reasoning_gym.create_dataset(
            settings.dataset, seed=first_item, size=_ITEMS, **settings.all_parameters
        )
    except Exception as error:  # assertions, for the most part
        raise _bad_parameters(settings, error) from error


def _bad_parameters(settings: ReasoningGymSettings, error: Exception) -> BadInput:
    return BadInput(f"task.parameters: {settings.dataset} refuses {settings.all_parameters}: {error}")


def _check_parameters(dataset: str, parameters: Mapping[str, Any]) -> None:
    """Refuse values with which the dataset's own code gives wrong answers or never ends.

    Raises:
        Invalid: the message says which.
    """
    if dataset == "basic_arithmetic":
        operators = list(parameters.get("operators") or ())
        require(
            "/" not in operators, "parameters.operators", "no division: some of its answers are rounded down"
        )
        require(
            bool(parameters.get("allow_parentheses", True)) or len({*operators} & {"*"}) == 0,
            "parameters.operators",
            "no * without parentheses: its answers then ignore precedence",
        )
    elif dataset == "base_conversion":
        low, high = parameters.get("min_base", 2), parameters.get("max_base", 16)
        require(
            low != high, "parameters.max_base", "must be above min_base, or there is nothing to convert to"
        )
    elif dataset == "knights_knaves":
        people, width = parameters.get("n_people", 2), parameters.get("width_constraint", 2)
        require(
            type(people) is int and people >= 2, "parameters.n_people", f"must be at least 2, got {people!r}"
        )
        require(
            type(width) is int and 2 <= width < 2 * people,
            "parameters.width_constraint",
            f"must be 2 to 2 n_people - 1 = {2 * people - 1}, so that there are as many different statements",
        )
