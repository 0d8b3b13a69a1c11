"""Kinds of answer: how each is found in a completion and brought to one form, by which right and wrong are told.

Verifiers are strict, give 0 or 1, and only ever compare: nothing is evaluated, and every expression runs in time
proportional to the completion. Digits are ASCII digits.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Literal

Where = Literal["last", "exact"]
"""`last`: the last thing in the completion that has the form of an answer counts; `exact`: the completion is the answer
and nothing else, apart from white space at its ends and a full stop."""

_NUMBER = re.compile(r"-?[0-9](?:[0-9,]*[0-9])?(?:\.[0-9]+)?")
_INTEGER = re.compile(r"-?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)")
_DECIMAL = re.compile(r"(-?)([0-9]{1,40})(?:\.([0-9]{1,40}))?")
_STATEMENT = re.compile(r"\b([A-Z][a-z]+) is an? ([a-z]+)\b(?!/)")
_BETWEEN_STATEMENTS = re.compile(r", and | and |, ")
_STATEMENTS = re.compile(rf"{_STATEMENT.pattern}(?:[\s,.;*-]+(?:and\s+)?{_STATEMENT.pattern})*")
_LONGEST = (
    1000  # beyond four times the right answer, a text is not equal to it, whatever its spaces and zeros
)
_QUOTES = "\"'`*"


class Answer(ABC):
    """One kind of answer."""

    @abstractmethod
    def find(self, completion: str, right: str) -> str:
        """Return the last part of `completion` that may be meant as the answer; `right` tells its extent."""

    @abstractmethod
    def read(self, text: str) -> Hashable | None:
        """Return the one form that equal answers share, or None if `text` is no answer of this kind."""

    def verify(self, completion: str, right: str, where: Where) -> int:
        """Return 1 if `completion` gives the answer `right`, else 0."""
        text = self.find(completion, right) if where == "last" else completion
        if len(text) > _LONGEST + 4 * len(right):
            return 0
        form = self.read(text.strip().removesuffix("."))
        return int(form is not None and form == self.read(right.strip().removesuffix(".")))


class WholeNumber(Answer):
    """A whole number, with or without commas between its thousands; `12.0` and `012` are not 12."""

    def find(self, completion: str, right: str) -> str:
        numbers = _NUMBER.findall(completion)
        return numbers[-1] if numbers else ""

    def read(self, text: str) -> Hashable | None:
        return text.replace(",", "") if _INTEGER.fullmatch(text) else None


class Words(Answer):
    """Words as they stand, upper and lower case told apart; `last` reads as many words as the answer has."""

    def find(self, completion: str, right: str) -> str:
        end = completion.rstrip()[-(len(right) + _LONGEST) :]
        words = end.rstrip("." + _QUOTES).split()
        return " ".join(words[-len(right.split()) :]).lstrip(_QUOTES)

    def read(self, text: str) -> Hashable | None:
        return tuple(text.split()) or None


class WordList(Answer):
    """Words with commas between them; `last` reads the last line, after its last colon."""

    def find(self, completion: str, right: str) -> str:
        return completion.rstrip().rpartition("\n")[2].rpartition(":")[2]

    def read(self, text: str) -> Hashable | None:
        words = tuple(word.strip() for word in text.split(","))
        return words if all(words) else None


class NumberList(Answer):
    """Decimal numbers in square brackets, with commas between them, each in quotes or not, compared by value."""

    def find(self, completion: str, right: str) -> str:
        end = completion.rfind("]")
        start = completion.rfind("[", 0, end + 1)
        return completion[start : end + 1] if start >= 0 else ""

    def read(self, text: str) -> Hashable | None:
        if not (text.startswith("[") and text.endswith("]")):
            return None
        inside = text[1:-1].strip()
        numbers = tuple(_decimal(item.strip()) for item in inside.split(",")) if inside else ()
        return None if None in numbers else numbers


class Assignment(Answer):
    """Who is what, as `Ann is a knight, and Bob is a knave`; the order is free, naming somebody twice is not.

    `last` reads the last unbroken row of statements.
    """

    def find(self, completion: str, right: str) -> str:
        row = ""
        for match in _STATEMENTS.finditer(completion):
            row = match.group()
        return ", ".join(match.group() for match in _STATEMENT.finditer(row))

    def read(self, text: str) -> Hashable | None:
        said = [_STATEMENT.fullmatch(part) for part in _BETWEEN_STATEMENTS.split(text)]
        pairs = [match.groups() for match in said if match is not None]
        if len(pairs) < len(said) or len({name for name, _ in pairs}) < len(pairs):
            return None
        return frozenset(pairs)


def _decimal(text: str) -> tuple[str, str, str] | None:
    """Return sign, whole part and fraction of a decimal number, without zeros that change nothing."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return None
    whole, fraction = match[2].lstrip("0"), (match[3] or "").rstrip("0")
    return (match[1] if whole or fraction else "", whole, fraction)
