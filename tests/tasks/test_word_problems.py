"""Questions put in words: answers re-derived from the text, splits, and the reading of the last number."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from lab.errors import BadInput
from lab.tasks import Problem, Task, build_task
from lab.tasks.word_problems import QUESTIONS

NODE = {
    "name": "word_problems",
    "prompt": "{expression} Answer with just the number.",
    "held_out_share": 0.1,
    "kinds": list(QUESTIONS),
    "digits": 1,
    "answer": "last_number",
}


def make(**changes: object) -> Task:
    return build_task({**NODE, **changes})


def answer_from_text(prompt: str) -> int:
    numbers = [int(word) for word in re.findall(r"\d+", prompt)]
    if "largest" in prompt:
        return sorted(numbers)[-1]
    if "smallest" in prompt:
        return sorted(numbers)[0]
    sign = re.search(r"\d ([-+*]) \d", prompt)
    assert sign is not None
    if sign.group(1) == "*":
        return numbers[0] * numbers[1]
    return numbers[0] - numbers[1] if sign.group(1) == "-" else sum(numbers)


@pytest.mark.parametrize("digits", [1, 3])
def test_the_answer_is_what_the_question_asks_for(digits: int) -> None:
    for problem in make(digits=digits).draw("train", 400, np.random.default_rng(0)):
        assert int(problem.answer) == answer_from_text(problem.prompt)
        assert all(len(number) == digits for number in re.findall(r"\d+", problem.prompt))


def test_there_are_over_a_thousand_one_digit_problems_and_the_splits_share_none() -> None:
    names = {
        f"{kind}:{','.join(map(str, numbers))}"
        for kind, question in QUESTIONS.items()
        for numbers in itertools.combinations_with_replacement(range(10), question.operands)
    }
    task = make()
    held_out = {name for name in names if task.split_of(name) == "held_out"}
    assert len(names) == 55 * 3 + 220 + 715 * 2
    assert 0.06 < len(held_out) / len(names) < 0.14
    generator = np.random.default_rng(1)
    assert {problem.key for problem in task.draw("train", 3000, generator)} <= names - held_out
    assert {problem.key for problem in task.draw("held_out", 3000, generator)} <= held_out


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("12", 1),
        ("7 + 5 is 12.", 1),
        ("7+5=12", 1),
        ("12 is 7 plus 5", 0),
        ("The answer is -12", 0),
        ("12.0", 0),
        ("112", 0),
        ("twelve", 0),
        ("", 0),
        ("1" * 1_000_000, 0),
        ("__import__('os').abort()", 0),
    ],
)
def test_the_last_number_counts(completion: str, right: int) -> None:
    assert make().verify(completion, Problem("What is 7 + 5?", "12", "sum:5,7")) == right


def test_commas_between_thousands_are_forgiven() -> None:
    assert make(digits=3).verify("It is 1,234.", Problem("", "1234", "k")) == 1


def test_exact_answers_forgive_space_and_a_full_stop_only() -> None:
    task, problem = make(answer="exact"), Problem("", "12", "k")
    assert [task.verify(text, problem) for text in (" 12.\n", "12", "is 12", "12..")] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinds": ["sums"]}, "task.kinds: unknown 'sums'"),
        ({"kinds": []}, "task.kinds"),
        ({"digits": 0}, "task.digits"),
        ({"answer": "any"}, "task.answer"),
    ],
)
def test_impossible_settings_name_their_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        make(**change)
