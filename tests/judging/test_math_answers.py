"""math-verify in the judging process: right and wrong answers, and completions made to break it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.judging import Judge, JudgeSettings

VERIFIER = "lab.judging.math_answers"
BOX = "\\boxed{"


@pytest.fixture(scope="module")
def patient() -> Iterator[Judge]:
    """A judge that waits long: for what ends by itself, on however busy a machine."""
    judge = Judge(VERIFIER, JudgeSettings(seconds=60.0, memory_mb=1024, characters=4096))
    yield judge
    judge.close()


@pytest.mark.parametrize(
    ("answer", "completion", "verdict"),
    [
        ("82", "82", 1),
        ("82", "The answer is 82.", 1),
        ("82", "It is 81, no: \\boxed{82}", 1),
        ("82", "82, or rather 81", 0),
        ("82", "\\boxed{82} or \\boxed{81}", 0),
        ("82", "", 0),
        ("82", "eighty-two", 0),
        ("\\frac{1}{2}", "\\boxed{0.5}", 1),
        ("\\frac{1}{2}", "so it is $\\frac{2}{4}$", 1),
        ("$\\frac{1}{2}$", "1/2", 1),
        ("0.5", "\\boxed{\\frac{1}{2}}", 1),
        ("\\frac{1}{2}", "\\boxed{0.51}", 0),
        ("x^2+1", "\\boxed{1+x^2}", 1),
        ("x^2+1", "\\boxed{1+x^3}", 0),
        ("5\\sqrt{2}", "$\\sqrt{50}$", 1),
        ("\\{1,2\\}", "\\boxed{\\{2,1\\}}", 1),
        ("-3", "\\boxed{-3}", 1),
        ("-3", "\\boxed{3}", 0),
    ],
)
def test_equal_answers_are_right_and_others_wrong(
    patient: Judge, answer: str, completion: str, verdict: int
) -> None:
    assert patient.judge([(answer, completion)]) == [verdict]


HARMLESS: list[tuple[str, str, int]] = [
    ("code", "__import__('os').system('touch {path}')", 0),
    ("code in a box", BOX + "__import__('os').system('touch {path}')}", 0),
    ("code that would give the answer", "eval('8' + '2')", 0),
    ("a megabyte of brackets", "(" * 2**20, 0),
    ("brackets round the answer", "(" * 10**5 + "82" + ")" * 10**5, 0),
    ("a megabyte of digits", "82" * 2**19, 0),
    ("a megabyte, then the answer", "so " * 350_000 + "\\boxed{82}", 1),
    ("a megabyte, then another", "82 " * 350_000 + "\\boxed{81}", 0),
    ("a megabyte in one word, then the answer", "a" * 2**20 + "\\boxed{82}", 1),
    ("a number that ends in the answer", "1" + "0" * 10**6 + "82", 0),
    ("NUL before the answer", "\x00\x00 82", 1),
    ("NUL in the answer", "\\boxed{8\x002}", 0),
    ("a lone surrogate", "\ud800 82", 1),
    ("full-width digits", "８２", 0),
    ("full-width digits in a box", "\\boxed{８２}", 0),
    ("Arabic digits", "٨٢", 0),
    ("superscript digits", "⁸²", 0),
    ("boxes in boxes", BOX * 50 + "82" + "}" * 50, 1),
    ("boxes cut open", BOX * 10**5 + "82" + "}" * 10**5, 0),
    ("boxes never closed", BOX * 500, 0),
    ("dollars", "$" * 4000, 0),
    ("the word answer", "answer: " * 500, 0),
    ("a huge float", "1e999999999", 0),
]


def test_hostile_completions_that_can_be_judged_get_the_right_score(patient: Judge, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    verdicts = patient.judge([("82", text.replace("{path}", str(path))) for _, text, _ in HARMLESS])
    found = {name: verdict for (name, _, _), verdict in zip(HARMLESS, verdicts, strict=True)}
    assert found == {name: verdict for name, _, verdict in HARMLESS}
    assert not path.exists()


ENDLESS = [
    "2**2**2**2**9",
    "9^9^9^9",
    "\\boxed{9^{9^{9^9}}}",
    "$82 \\times 10^{10^{10}}$",
    "$10^{10}!$",
    "$\\binom{10^8}{5\\cdot 10^7}$",
    "$\\sum_{i=1}^{10^9} i$",
    BOX + "1+" * 1500 + "1}",
    BOX + "x^" * 1000 + "x}",
    "$" + "(" * 2000 + "82" + ")" * 2000 + "$",
]


def test_hostile_completions_that_take_for_ever_are_wrong_or_not_judged() -> None:
    judge = Judge(VERIFIER, JudgeSettings(seconds=0.7, memory_mb=1024, characters=8192))
    verdicts = judge.judge([("83", text) for text in ENDLESS])
    judge.close()
    assert set(verdicts) <= {0, None}
    # No machine computes the towers.
    assert judge.counts.timeouts + judge.counts.crashes >= 3


def test_an_answer_that_cannot_be_read_is_never_judged(patient: Judge) -> None:
    before = patient.counts.unreadable
    assert patient.judge([("", "\\boxed{1}"), ("$$", "")]) == [None, None]
    assert patient.counts.unreadable == before + 2
