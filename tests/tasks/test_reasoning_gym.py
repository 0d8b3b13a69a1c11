"""Problems of reasoning-gym: answers re-derived from the questions, splits, and what is refused."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import math
import operator
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lab.draw import Draw
from lab.errors import BadInput
from lab.tasks import Task, build_task
from lab.tasks.reasoning_gym import ALLOWED, REFUSED

NODE = {
    "name": "reasoning_gym",
    "prompt": "{question} End with the final answer.",
    "held_out_share": 0.1,
    "dataset": "chain_sum",
    "parameters": None,
    "answer": "last",
}
OPERATORS: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.LShift: operator.lshift,
}


def make(dataset: str = "chain_sum", **changes: Any) -> Task:
    return build_task({**NODE, "dataset": dataset, **changes})


def value(expression: str) -> int:
    """Whole-number arithmetic with the usual precedence."""

    def of(node: Any) -> int:
        if isinstance(node, ast.Constant):
            assert isinstance(node.value, int)
            return node.value
        if isinstance(node, ast.UnaryOp):
            assert isinstance(node.op, ast.USub)
            return -of(node.operand)
        return OPERATORS[type(node.op)](of(node.left), of(node.right))

    return of(ast.parse(expression.strip(), mode="eval").body)


def whole_numbers(text: str) -> list[int]:
    return [int(word) for word in re.findall(r"-?\d+", text)]


def is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def convert(text: str) -> str:
    source, digits, target = re.findall(
        r"the (\S+) number (\S+) to (\S+)", text.replace("base-", "").replace("  ", " ")
    )[0]
    bases = {"binary": 2, "hexadecimal": 16}
    number, base = int(digits, bases.get(source) or int(source)), bases.get(target) or int(target)
    out = ""
    while number:
        number, digit = divmod(number, base)
        out = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + out
    return out or "0"


def kept(text: str) -> list[float]:
    word, side, limit, inside = re.findall(
        r"(Keep|Remove) all numbers (\w+) than (\S+) in this list: \[(.*)\]", text
    )[0]
    numbers = [float(item.strip(" '")) for item in inside.split(",")]
    hit = [number > float(limit) if side == "larger" else number < float(limit) for number in numbers]
    return [number for number, one in zip(numbers, hit, strict=True) if one == (word == "Keep")]


def sorted_numbers(text: str) -> list[float]:
    direction, inside = re.findall(r"in (\w+) order: (.*)\n", text)[0]
    return sorted((float(item) for item in inside.split(",")), reverse=direction == "descending")


def sorted_words(text: str) -> str:
    direction, inside = re.findall(r"words in (\w+) order .*: (.*)$", text.strip())[0]
    return ", ".join(sorted(inside.split(", "), reverse=direction == "descending"))


def counted(text: str) -> int:
    letter, inside = re.findall(r'letter "(.)" appear in the text: "(.*)"\?', text)[0]
    return inside.lower().count(letter)


def solved(text: str) -> str:
    """The variable of a linear equation, by its values at 0 and 1."""
    equation = re.findall(r": (.*)$", text)[0]
    (variable,) = set(re.findall(r"[a-z]", equation))
    left, right = equation.split("=")
    at = [value(left.replace(variable, f"({number})")) for number in (0, 1)]
    return str((int(right) - at[0]) // (at[1] - at[0]))


REDERIVED: dict[str, Callable[[str], Any]] = {
    "base_conversion": convert,
    "basic_arithmetic": lambda text: value(re.findall(r"Calculate (.*)\.$", text)[0]),
    "chain_sum": lambda text: value(re.findall(r": (.*) =$", text)[0]),
    "count_bits": lambda text: sum(whole_numbers(text)[-1] >> bit & 1 for bit in range(40)),
    "count_primes": lambda text: sum(
        is_prime(n) for n in range(whole_numbers(text)[0], whole_numbers(text)[1] + 1)
    ),
    "gcd": lambda text: math.gcd(*whole_numbers(text)),
    "lcm": lambda text: math.lcm(*whole_numbers(text)),
    "letter_counting": counted,
    "number_filtering": kept,
    "number_sorting": sorted_numbers,
    "products": lambda text: math.prod(whole_numbers(text)),
    "simple_equations": solved,
    "spell_backward": lambda text: "".join(reversed(text.rsplit(": ")[-1])),
    "word_sequence_reversal": lambda text: ", ".join(reversed(text.rsplit(": ")[-1].split(", "))),
    "word_sorting": sorted_words,
}


@pytest.mark.parametrize("dataset", REDERIVED)
def test_answers_are_right(dataset: str) -> None:
    task = make(dataset, prompt="{question}", answer="exact")
    generator = np.random.default_rng(0)
    count = 15 if dataset == "count_primes" else 60
    for problem in [*task.draw("train", count, generator), *task.draw("held_out", 5, generator)]:
        found = REDERIVED[dataset](problem.prompt)
        text = str([f"{number:.6f}" for number in found]) if isinstance(found, list) else str(found)
        assert task.verify(text, problem) == 1, (problem, text)


@pytest.mark.parametrize(
    ("dataset", "parameters"),
    [
        ("basic_arithmetic", {"max_terms": 10}),
        ("basic_arithmetic", {"allow_parentheses": False, "operators": ["+", "-"]}),
        ("basic_arithmetic", {"allow_negation": False, "whitespace": "random"}),
        ("chain_sum", {"allow_negation": True, "max_terms": 8}),
    ],
)
def test_answers_are_right_under_other_parameters(dataset: str, parameters: dict[str, Any]) -> None:
    task = make(dataset, prompt="{question}", parameters=parameters)
    for problem in task.draw("train", 200, np.random.default_rng(1)):
        assert int(problem.answer) == REDERIVED[dataset](problem.prompt)


def holds(statement: Any, knights: tuple[bool, ...]) -> bool:
    """Whether a statement of knights and knaves is true."""
    kind, *parts = statement
    if kind in ("telling-truth", "lying"):
        return knights[parts[0]] == (kind == "telling-truth")
    truths = [holds(part, knights) for part in parts]
    rules: dict[str, Callable[[], bool]] = {
        "not": lambda: not truths[0],
        "and": lambda: all(truths),
        "or": lambda: any(truths),
        "->": lambda: truths[1] or not truths[0],
        "<=>": lambda: truths[0] == truths[1],
    }
    return rules[kind]()


@pytest.mark.parametrize("people", [2, 3])
def test_knights_and_knaves_have_the_one_solution_that_is_taken_as_right(people: int) -> None:
    import reasoning_gym

    parameters = {"n_people": people, "depth_constraint": 2, "width_constraint": 2}
    task = make("knights_knaves", parameters=parameters)
    dataset = reasoning_gym.create_dataset("knights_knaves", seed=0, size=10, **parameters)
    for index in range(8):
        _, answer, _ = task._item("train", index)  # type: ignore[attr-defined]
        item = dataset[index]["metadata"]
        names, words = item["names"], item["knight_knave_terms"]
        solutions = [
            knights
            for knights in itertools.product([True, False], repeat=people)
            if all(holds(said, knights) == knights[who] for who, said in enumerate(item["statements"]))
        ]
        assert len(solutions) == 1
        roles = [words["knight"] if knight else words["knave"] for knight in solutions[0]]
        expected = {f"{name} is {role}" for name, role in zip(names, roles, strict=True)}
        assert {re.sub(r" an? ", " ", part) for part in re.split(", and |, ", answer.rstrip("."))} == expected


@pytest.mark.parametrize("dataset", ALLOWED)
def test_every_dataset_accepts_its_answers_and_no_others(dataset: str) -> None:
    task = make(dataset)
    problems = task.draw("train", 12, np.random.default_rng(2))
    for problem, other in itertools.pairwise(problems):
        assert problem.prompt.endswith("End with the final answer.")
        for completion in (problem.answer, f"Let me think.\nThe answer is: {problem.answer}"):
            assert task.verify(completion, problem) == 1
        if problem.answer != other.answer:
            assert task.verify(other.answer, problem) == 0
        for junk in ("", "?", "\x00", "2**2**2**2**9", "[" * 1000, "__import__('os').abort()"):
            assert task.verify(junk, problem) == 0


@pytest.mark.parametrize("dataset", ["products", "knights_knaves"])
def test_no_question_is_on_both_sides_even_where_there_are_few(dataset: str) -> None:
    parameters = {"products": {"min_digits": 1, "max_digits": 1}, "knights_knaves": None}[dataset]
    task, generator = make(dataset, parameters=parameters), np.random.default_rng(3)
    train = {problem.key for problem in task.draw("train", 150, generator)}
    held_out = {problem.key for problem in task.draw("held_out", 20, generator)}
    assert train and held_out and not train & held_out


def test_items_of_the_two_splits_come_from_seeds_far_apart() -> None:
    import reasoning_gym

    task = make("count_bits", prompt="{question}")
    near = reasoning_gym.create_dataset("count_bits", seed=5, size=10)
    assert task._item("train", 7)[0] == near[2]["question"].strip()  # type: ignore[attr-defined]
    far = reasoning_gym.create_dataset("count_bits", seed=2**40, size=10)
    assert task._item("held_out", 7)[0] == far[7]["question"].strip()  # type: ignore[attr-defined]


def test_problems_depend_on_seed_and_step_alone() -> None:
    def drawn(seed: int, step: int) -> list[str]:
        return [p.prompt for p in make().draw("train", 20, Draw(seed).generator("problem", step))]

    assert drawn(1, 5) == drawn(1, 5)
    assert drawn(1, 5) != drawn(1, 6)
    assert drawn(1, 5) != drawn(2, 5)


def test_problems_do_not_depend_on_the_seed_of_python_s_hash() -> None:
    code = (
        "import json, sys, numpy as np\n"
        "from lab.tasks import build_task\n"
        "nodes = json.loads(sys.argv[1])\n"
        "print([build_task(node).draw('train', 10, np.random.default_rng(0)) for node in nodes])\n"
    )
    nodes = [{**NODE, "dataset": name} for name in ALLOWED]
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    there = subprocess.run(
        [sys.executable, "-c", code, json.dumps(nodes)],
        env={**os.environ, "PYTHONHASHSEED": other, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    here = [build_task(node).draw("train", 10, np.random.default_rng(0)) for node in nodes]
    assert there == f"{here}\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataset": "word_ladder"},
            r"task\.dataset: word_ladder is not allowed: its problems change with PYTHONHASHSEED",
        ),
        ({"dataset": "countdown"}, r"task\.dataset: countdown is not allowed: many expressions are right"),
        ({"dataset": "chain_sums"}, r"task\.dataset: 'chain_sums' is not among .*did you mean 'chain_sum'"),
        ({"dataset": "sudoku"}, r"task\.dataset: 'sudoku' is not among the datasets known to be sound"),
        ({"parameters": {"seed": 1}}, r"task\.parameters\.seed: is not yours to set"),
        ({"parameters": {"size": 1}}, r"task\.parameters\.size: is not yours to set"),
        (
            {"parameters": {"min_term": 1}},
            r"task\.parameters\.min_term: no parameter of chain_sum; did you mean",
        ),
        (
            {"parameters": {"min_terms": 0}},
            r"task\.parameters: chain_sum refuses .*min_terms must be positive",
        ),
        ({"parameters": {"min_terms": "two"}}, r"task\.parameters: chain_sum refuses"),
        ({"parameters": {"min_terms": 2.5}}, r"task\.parameters: chain_sum refuses"),
        ({"parameters": [1]}, r"task\.parameters: expected a group of keys"),
        (
            {"dataset": "basic_arithmetic", "parameters": {"operators": ["+", "/"]}},
            r"task\.parameters\.operators: no division",
        ),
        (
            {"dataset": "basic_arithmetic", "parameters": {"allow_parentheses": False}},
            r"task\.parameters\.operators: no \* without parentheses",
        ),
        (
            {"dataset": "base_conversion", "parameters": {"min_base": 16}},
            r"task\.parameters\.max_base: must be above min_base",
        ),
        (
            {"dataset": "knights_knaves", "parameters": {"n_people": 1}},
            r"task\.parameters\.n_people: must be at least 2",
        ),
        (
            {"dataset": "knights_knaves", "parameters": {"width_constraint": 9}},
            r"task\.parameters\.width_constraint: must be 2 to 2 n_people - 1 = 3",
        ),
        ({"prompt": "{expression}"}, r"task\.prompt: must contain \{question\}"),
        ({"held_out_share": 0.0}, r"task\.held_out_share"),
        ({"answer": "first"}, r"task\.answer: unknown 'first'"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        build_task({**NODE, **changes})


def test_no_dataset_is_allowed_and_refused() -> None:
    from reasoning_gym.factory import DATASETS

    assert not set(ALLOWED) & set(REFUSED)
    assert {*ALLOWED, *REFUSED} <= set(DATASETS)


def test_a_missing_package_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        BadInput, match=r"reasoning_gym is not installed; pip install 'rlvr-linear-lab\[tasks\]'"
    ):
        make()
