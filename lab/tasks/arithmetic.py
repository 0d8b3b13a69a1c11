"""Built-in arithmetic: integers of a chosen number of digits under one operation, or a mixture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lab.settings import require
from lab.tasks.task import Task, TaskSettings


@dataclass(frozen=True)
class ArithmeticSettings(TaskSettings):
    """Keys of the arithmetic tasks."""

    digits: int
    """Digits of each operand, 1 to 6; operands are uniform over the numbers that have just so many."""
    terms: int
    """Number of operands, 2 to 5."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.digits <= 6, "digits", f"must be 1 to 6, got {self.digits}")
        require(2 <= self.terms <= 5, "terms", f"must be 2 to 5, got {self.terms}")


class Arithmetic(Task):
    """Common part: draw operands, write the expression, name it up to commutation."""

    settings_class: ClassVar[type[TaskSettings]] = ArithmeticSettings
    settings: ArithmeticSettings
    symbol: str

    def propose(self, generator: np.random.Generator) -> tuple[str, str, str]:
        low = 0 if self.settings.digits == 1 else 10 ** (self.settings.digits - 1)
        drawn = generator.integers(low, 10**self.settings.digits, size=self.settings.terms)
        operands = self.arrange([int(number) for number in drawn])
        key = f"{self.symbol}:{','.join(str(number) for number in sorted(operands))}"
        return self.write(operands), str(self.value(operands)), key

    def arrange(self, operands: list[int]) -> list[int]:
        """Return the operands in the order in which they are written."""
        return operands

    def write(self, operands: list[int]) -> str:
        """Return the expression as text."""
        return self.symbol.join(str(number) for number in operands)

    def value(self, operands: list[int]) -> int:
        """Return what the expression is worth."""
        raise AssertionError("each arithmetic task says what its expressions are worth")


class Addition(Arithmetic):
    """a+b(+c...)"""

    symbol = "+"

    def value(self, operands: list[int]) -> int:
        return sum(operands)


class Subtraction(Arithmetic):
    """a-b(-c...) with the largest first; the result may still be negative with three terms."""

    symbol = "-"

    def arrange(self, operands: list[int]) -> list[int]:
        largest = max(operands)
        rest = list(operands)
        rest.remove(largest)
        return [largest, *rest]

    def value(self, operands: list[int]) -> int:
        return operands[0] - sum(operands[1:])


class Multiplication(Arithmetic):
    """a*b(*c...)"""

    symbol = "*"

    def value(self, operands: list[int]) -> int:
        return int(np.prod(np.array(operands, dtype=object)))


class Maximum(Arithmetic):
    """a,b(,c...) under max: the largest of the operands."""

    symbol = ","

    def write(self, operands: list[int]) -> str:
        return f"max({','.join(str(number) for number in operands)})"

    def value(self, operands: list[int]) -> int:
        return max(operands)


@dataclass(frozen=True)
class ModularSettings(ArithmeticSettings):
    """Keys of modular addition."""

    modulus: int
    """The sum is taken modulo this number, at least 2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.modulus >= 2, "modulus", f"must be at least 2, got {self.modulus}")


class ModularAddition(Arithmetic):
    """(a+b)%m"""

    settings_class = ModularSettings
    settings: ModularSettings
    symbol = "%"

    def write(self, operands: list[int]) -> str:
        return f"({'+'.join(str(number) for number in operands)})%{self.settings.modulus}"

    def value(self, operands: list[int]) -> int:
        return sum(operands) % self.settings.modulus
