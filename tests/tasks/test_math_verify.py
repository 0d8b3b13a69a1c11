"""Problems of a file: splits, duplicates, judging through the task, and files that cannot be used."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.errors import BadInput
from lab.objectives.held_out import verify_completions
from lab.tasks import Split, Task, build_task


def node(**changes: Any) -> dict[str, Any]:
    return {
        "name": "math_verify",
        "prompt": "{question} Put the final answer in \\boxed{}.",
        "held_out_share": 0.2,
        "problems": None,
        "held_out_problems": None,
        "judge": {"seconds": 60.0, "memory_mb": 1024, "characters": 4096},
        **changes,
    }


def write(path: Path, items: Iterable[object]) -> str:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(path)


def sums(path: Path, numbers: Iterable[int]) -> str:
    return write(path, ({"problem": f"What is {n} + {n}?", "answer": 2 * n} for n in numbers))


def make(**changes: Any) -> Task:
    return build_task(node(**changes))


def test_each_problem_is_on_one_side_and_every_one_is_found(tmp_path: Path) -> None:
    task = make(problems=sums(tmp_path / "sums.jsonl", range(300)))
    splits: list[Split] = ["train", "held_out"]
    found = {split: task.draw_distinct(split, 1000, np.random.default_rng(0)) for split in splits}
    keys = {split: {problem.key for problem in problems} for split, problems in found.items()}
    assert len(keys["train"]) + len(keys["held_out"]) == 300
    assert not keys["train"] & keys["held_out"]
    assert abs(len(keys["held_out"]) - 60) < 4 * (300 * 0.2 * 0.8) ** 0.5
    for split, problems in found.items():
        assert {problem.key for problem in task.draw(split, 500, np.random.default_rng(1))} <= keys[split]
        for problem in problems:
            number = int(problem.prompt.split()[2])
            assert problem.prompt == f"What is {number} + {number}? Put the final answer in \\boxed{{}}."
            assert problem.answer == str(2 * number)


def test_the_split_depends_on_neither_order_nor_company_nor_spacing(tmp_path: Path) -> None:
    few = make(problems=sums(tmp_path / "few.jsonl", range(50)))
    items = [{"question": f" what  IS {n} +\n{n}?", "answer": str(2 * n)} for n in reversed(range(200))]
    many = make(problems=write(tmp_path / "many.jsonl", items))
    names = {problem.key for problem in few.draw_distinct("held_out", 100, np.random.default_rng(0))}
    others = {problem.key for problem in many.draw_distinct("held_out", 500, np.random.default_rng(0))}
    assert names and names <= others
    trained = {problem.key for problem in few.draw_distinct("train", 100, np.random.default_rng(0))}
    assert trained and not trained & others


def test_files_of_their_own_are_the_splits(tmp_path: Path) -> None:
    task = make(
        problems=sums(tmp_path / "train.jsonl", range(20)),
        held_out_problems=sums(tmp_path / "test.jsonl", range(100, 105)),
    )
    generator = np.random.default_rng(0)
    assert len(task.draw_distinct("train", 100, generator)) == 20
    held_out = task.draw_distinct("held_out", 100, generator)
    assert {problem.answer for problem in held_out} == {"200", "202", "204", "206", "208"}
    assert all(task.split_of(problem.key) == "held_out" for problem in held_out)


def test_completions_are_judged_and_those_that_cannot_be_are_left_out(tmp_path: Path) -> None:
    items = [{"problem": f"half of {n}?", "answer": f"\\frac{{{n}}}{{2}}"} for n in range(1, 60, 2)]
    limits = {"seconds": 4.0, "memory_mb": 1024, "characters": 4096}
    task = make(problems=write(tmp_path / "halves.jsonl", items), judge=limits)
    problems = task.draw("train", 2, np.random.default_rng(0))
    halves = [str(int(problem.prompt.split()[2].rstrip("?")) / 2) for problem in problems]
    texts = [f"\\boxed{{{halves[0]}}}", "\\boxed{0.25}", "9^9^9^9", f"It is {halves[1]}", "", "\\boxed{0}"]
    found = verify_completions(task, problems, texts)
    np.testing.assert_array_equal(found, [[1, 0, np.nan], [1, 0, 0]])
    counts = task.judge_counts()
    assert counts["timeouts"] + counts["crashes"] == 1
    assert counts["unreadable"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"problem": "a", "answer": 1', "line 1: not valid JSON"),
        ('{"problem": "a", "answer": 1}\n[1]', "line 2: expected an object"),
        ('{"problem": "a"}', "line 1: expected problem .* and answer, got the keys"),
        ('{"answer": "a"}', "line 1: expected problem"),
        ('{"problem": " ", "answer": 1}', "line 1: problem must be text"),
        ('{"problem": 5, "answer": 1}', "line 1: problem must be text"),
        ('\n\n{"problem": "a", "answer": null}', "line 3: answer must be text or a number, got None"),
        ('{"problem": "a", "answer": true}', "line 1: answer must be"),
        ('{"problem": "a", "answer": ""}', "line 1: answer must be"),
        ('{"problem": "a", "answer": ["1"]}', "line 1: answer must be"),
        ("[" * 100_000, "line 1: not valid JSON"),
        (
            '{"problem": "a b", "answer": 1}\n{"problem": "A  b", "answer": 2}',
            "line 2: the problem of .*line 1 again",
        ),
        ("", "task.problems: there is no train problem in it"),
        ('{"problem": "a", "answer": 1}', "task.problems: there is no held_out problem|no train problem"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(BadInput, match=message):
        make(problems=str(tmp_path / "bad.jsonl"))


def test_a_problem_given_twice_with_one_answer_counts_once(tmp_path: Path) -> None:
    sums(tmp_path / "twice.jsonl", [*range(50), *range(50)])
    task, generator = make(problems=str(tmp_path / "twice.jsonl")), np.random.default_rng(0)
    found = [task.draw_distinct("train", 1000, generator), task.draw_distinct("held_out", 1000, generator)]
    assert len(found[0]) + len(found[1]) == 50


def test_a_problem_on_both_sides_is_refused(tmp_path: Path) -> None:
    train, held_out = sums(tmp_path / "train.jsonl", range(20)), sums(tmp_path / "test.jsonl", [50, 7])
    with pytest.raises(
        BadInput, match=r"test\.jsonl, line 2: held out, but .*train\.jsonl, line 8 trains on the same"
    ):
        make(problems=train, held_out_problems=held_out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problems": None}, r"task\.problems: name a JSONL file"),
        ({"problems": "no/such.jsonl"}, r"no/such\.jsonl: no such file"),
        ({"problems": "."}, r"\.: cannot be read"),
        ({"problems": "x", "prompt": "{expression}"}, r"task\.prompt: must contain \{question\}"),
        (
            {"problems": "x", "judge": {"seconds": 0, "memory_mb": 1024, "characters": 100}},
            r"task\.judge\.seconds: must lie in",
        ),
        ({"problems": "x", "judge": {"seconds": 1}}, r"task\.judge\.memory_mb: missing"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        build_task(node(**changes))


def test_a_missing_package_is_refused_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sums(tmp_path / "sums.jsonl", range(50))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        BadInput, match=r"math_verify is not installed; pip install 'rlvr-linear-lab\[tasks\]'"
    ):
        make(problems=path)
