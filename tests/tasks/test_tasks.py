"""Built-in tasks: exact answers, a split that holds up to commutation, strict verification."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest

from lab.draw import Draw
from lab.errors import BadInput
from lab.tasks import TASKS, Problem, Task, build_task
from lab.tasks.arithmetic import Arithmetic
from lab.tasks.mixture import Mixture

ARITHMETIC = [name for name, task in TASKS.items() if issubclass(task, (Arithmetic, Mixture))]
COMMON: dict[str, Any] = {"prompt": "{expression}=", "held_out_share": 0.1, "digits": 2, "terms": 2}
EXTRA: dict[str, dict[str, Any]] = {
    "modular_addition": {"modulus": 97},
    "mixture": {
        "parts": ["addition", "subtraction", "multiplication", "maximum"],
        "digits": 1,
        "max_digits": 2,
    },
}
NUMBER = re.compile(r"\d+")


def make(name: str, **changes: Any) -> Task:
    """The task `name` at its shipped settings, changed by `changes`."""
    return build_task({"name": name, **COMMON, **EXTRA.get(name, {}), **changes})


def solve(prompt: str) -> tuple[str, list[int], int]:
    """Read a prompt with regular expressions alone: (operation, operands, value)."""
    if found := re.fullmatch(r"max\((\d+(?:,\d+)+)\)=", prompt):
        operands = [int(word) for word in found[1].split(",")]
        return "maximum", operands, sorted(operands)[-1]
    if found := re.fullmatch(r"\((\d+(?:\+\d+)+)\)%(\d+)=", prompt):
        operands, modulus = [int(word) for word in found[1].split("+")], int(found[2])
        total = 0
        for operand in operands:
            total += operand
        while total >= modulus:
            total -= modulus
        return "modular_addition", operands, total
    found = re.fullmatch(r"\d+(?:([-+*])\d+)(?:\1\d+)*=", prompt)
    assert found, f"unreadable prompt {prompt!r}"
    operands = [int(word) for word in NUMBER.findall(prompt)]
    value = operands[0]
    for operand in operands[1:]:
        if found[1] == "+":
            value += operand
        elif found[1] == "-":
            value -= operand
        else:
            value *= operand
    return {"+": "addition", "-": "subtraction", "*": "multiplication"}[found[1]], operands, value


def generator(seed: int = 0) -> np.random.Generator:
    """A stream of problems."""
    return Draw(seed).generator("problem")


@pytest.mark.parametrize("terms", [2, 3, 5])
@pytest.mark.parametrize("name", ARITHMETIC)
def test_answers_are_right(name: str, terms: int) -> None:
    task = make(name, terms=terms)
    for problem in [*task.draw("train", 150, generator()), *task.draw("held_out", 50, generator())]:
        operation, _, value = solve(problem.prompt)
        assert problem.answer == str(value), problem
        assert name in (operation, "mixture")


@pytest.mark.parametrize(("digits", "terms"), [(1, 2), (1, 5), (3, 2), (6, 3)])
@pytest.mark.parametrize("name", [name for name in ARITHMETIC if name != "mixture"])
def test_operands_have_the_digits_and_the_number_asked_for(name: str, digits: int, terms: int) -> None:
    for problem in make(name, digits=digits, terms=terms).draw("train", 100, generator()):
        _, operands, _ = solve(problem.prompt)
        assert len(operands) == terms
        assert {len(str(operand)) for operand in operands} == {digits}


def test_one_digit_operands_reach_from_zero_to_nine() -> None:
    problems = make("addition", digits=1).draw("train", 600, generator())
    assert {operand for problem in problems for operand in solve(problem.prompt)[1]} == set(range(10))


def test_operands_are_uniform_over_the_two_digit_numbers() -> None:
    task, stream = make("addition"), generator()
    operands = [int(word) for _ in range(10_000) for word in NUMBER.findall(task.propose(stream)[0])]
    observed = np.bincount(operands, minlength=100)[10:]
    assert len(observed) == 90 and sum(observed) == 20_000
    expected = 20_000 / 90
    statistic = float(((observed - expected) ** 2 / expected).sum())
    assert abs(statistic - 89) < 5 * math.sqrt(2 * 89)  # chi-square with 89 degrees of freedom


def test_two_term_subtraction_is_never_negative() -> None:
    problems = make("subtraction").draw("train", 500, generator())
    assert min(int(problem.answer) for problem in problems) >= 0


def test_the_mixture_holds_all_parts_and_sizes() -> None:
    seen = set()
    for problem in make("mixture").draw("train", 600, generator()):
        operation, operands, _ = solve(problem.prompt)
        lengths = {len(str(operand)) for operand in operands}
        assert len(lengths) == 1
        seen.add((operation, lengths.pop()))
    parts = ["addition", "subtraction", "multiplication", "maximum"]
    assert seen == set(itertools.product(parts, [1, 2]))


def test_a_problem_is_on_the_same_side_in_the_mixture_and_in_its_own_task() -> None:
    for problem in make("mixture").draw("held_out", 200, generator()):
        operation, operands, _ = solve(problem.prompt)
        own = make(operation, digits=len(str(operands[0])))
        assert own.split_of(problem.key) == "held_out"


@pytest.mark.parametrize("name", ARITHMETIC)
def test_the_same_seed_draws_the_same_problems(name: str) -> None:
    first, again = (make(name).draw("train", 40, generator(7)) for _ in range(2))
    assert first == again
    assert first != make(name).draw("train", 40, generator(8))


@pytest.mark.parametrize("name", ARITHMETIC)
def test_train_and_held_out_are_disjoint_up_to_commutation(name: str) -> None:
    task = make(name, digits=1)
    sides: dict[str, set[tuple[str, tuple[int, ...]]]] = {}
    for split in ("train", "held_out"):
        drawn = task.draw(split, 400, generator())
        sides[split] = {(solve(p.prompt)[0], tuple(sorted(solve(p.prompt)[1]))) for p in drawn}
    assert sides["train"] and sides["held_out"]
    assert not sides["train"] & sides["held_out"]


@pytest.mark.parametrize(("name", "symbol"), [("addition", "+"), ("multiplication", "*")])
def test_every_two_digit_pair_lies_on_one_side_in_either_order(
    name: str, symbol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 8,100 ordered pairs are put through the task, whose generator is made to yield them in turn."""
    task = make(name)

    class Scripted:
        """Yields one given pair of operands."""

        def __init__(self, pair: tuple[int, int]) -> None:
            self.pair = pair

        def integers(self, low: int, high: int, size: int) -> np.ndarray:
            assert low == 10 and high == 100 and size == 2
            return np.array(self.pair)

    side: dict[tuple[int, int], str] = {}
    names: dict[str, set[tuple[int, ...]]] = {}
    for pair in itertools.product(range(10, 100), repeat=2):
        expression, answer, key = task.propose(Scripted(pair))  # type: ignore[arg-type]
        assert expression == f"{pair[0]}{symbol}{pair[1]}"
        assert int(answer) == (pair[0] + pair[1] if symbol == "+" else pair[0] * pair[1])
        side[pair] = task.split_of(key)
        names.setdefault(key, set()).add(tuple(sorted(pair)))
    assert all(side[a, b] == side[b, a] for a, b in side)
    assert all(len(operands) == 1 for operands in names.values()) and len(names) == 90 * 91 // 2
    held_out = sum(split == "held_out" for (a, b), split in side.items() if a <= b)
    assert abs(held_out - 409.5) < 4 * math.sqrt(4095 * 0.1 * 0.9)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_the_held_out_share_is_the_one_asked_for(share: float) -> None:
    task = make("addition", held_out_share=share)
    held_out = sum(task.split_of(f"name {index}") == "held_out" for index in range(20_000))
    assert abs(held_out - 20_000 * share) < 5 * math.sqrt(20_000 * share * (1 - share))


def test_distinct_problems_are_distinct_and_of_their_split() -> None:
    task = make("addition")
    problems = task.draw_distinct("held_out", 100, generator())
    operands = {tuple(sorted(solve(problem.prompt)[1])) for problem in problems}
    assert len(operands) == 100
    assert {task.split_of(problem.key) for problem in problems} == {"held_out"}


def test_a_small_task_yields_all_its_problems_and_no_more() -> None:
    task = make("maximum", digits=1)
    all_names = {f",:{a},{b}" for a in range(10) for b in range(a, 10)}
    expected = {name for name in all_names if task.split_of(name) == "held_out"}
    found = task.draw_distinct("held_out", 1000, generator())
    assert {problem.key for problem in found} == expected


def test_a_task_without_a_problem_of_the_split_says_so() -> None:
    task = make("maximum", digits=1, held_out_share=0.0001)
    with pytest.raises(BadInput, match=r"^task\.held_out_share: maximum has no held_out problem"):
        task.draw("held_out", 1, generator())


PROBLEM = Problem("45+37=", "82", "+:37,45")


@pytest.mark.parametrize("text", ["82", "82 ", " 82", "82\n", "\t82\r\n"])
def test_white_space_round_the_answer_is_allowed(text: str) -> None:
    assert make("addition").verify(text, PROBLEM) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "8 2",
        "082",
        "82.0",
        "+82",
        "-82",
        "82.",
        "8.2e1",
        "0x52",
        "82=82",
        "45+37",
        "82\x00",
        "８２",
        "٨٢",
        "⁸²",
        "eighty-two",
        "__import__('os').getpid()",
        "eval('82')",
        "82 82",
        "None",
        "1" * 2**20,
        "82" + "0" * 2**20,
        "(" * 2**20,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_anything_else_is_wrong_and_never_run(text: str) -> None:
    assert make("addition").verify(text, PROBLEM) == 0


@pytest.mark.parametrize("name", ARITHMETIC)
def test_every_task_accepts_its_answer_and_judges_everything(name: str) -> None:
    task = make(name)
    for problem in task.draw("train", 50, generator()):
        assert task.verify(problem.answer, problem) == 1
        assert task.verify(problem.answer + "0", problem) == 0
        assert task.verify(f"{problem.prompt}{problem.answer}", problem) == 0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("addition", {"digits": 0}, r"task\.digits: must be 1 to 6, got 0"),
        ("addition", {"digits": 7}, r"task\.digits: must be 1 to 6"),
        ("addition", {"digits": 1.5}, r"task\.digits: expected a whole number"),
        ("addition", {"terms": 1}, r"task\.terms: must be 2 to 5"),
        ("addition", {"terms": 6}, r"task\.terms: must be 2 to 5"),
        ("addition", {"held_out_share": 0.0}, r"task\.held_out_share: must lie in \(0, 1\)"),
        ("addition", {"held_out_share": 1.0}, r"task\.held_out_share: must lie in \(0, 1\)"),
        ("addition", {"prompt": "sum="}, r"task\.prompt: must contain \{expression\}"),
        ("addition", {"digitz": 2}, r"task\.digitz: no code reads this key; did you mean 'digits'"),
        ("addition", {"modulus": 7}, r"task\.modulus: no code reads"),
        ("modular_addition", {"modulus": 1}, r"task\.modulus: must be at least 2"),
        ("mixture", {"parts": []}, r"task\.parts: must name at least one"),
        ("mixture", {"parts": ["division"]}, r"task\.parts: unknown 'division'; known: addition"),
        ("mixture", {"parts": "addition"}, r"task\.parts: expected a list"),
        ("mixture", {"digits": 3}, r"task\.max_digits: must be digits to 6"),
        ("mixture", {"max_digits": 7}, r"task\.max_digits: must be digits to 6"),
    ],
)
def test_an_impossible_setting_is_refused_by_its_full_key(
    name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        make(name, **changes)


def test_an_unknown_task_is_refused_with_the_list_of_tasks() -> None:
    with pytest.raises(BadInput, match=r"^task\.name: unknown 'adition'; did you mean 'addition'"):
        make("adition")
