"""Kinds of answer: what is right, what is wrong, and that no completion is run or gets part of a point."""

from __future__ import annotations

import pytest

from lab.tasks.answers import Answer, Assignment, NumberList, WholeNumber, WordList, Words

KNIGHTS = "Ann is a knight, and Bob is a knave."
MEGABYTE = 2**20


@pytest.mark.parametrize(
    ("kind", "right", "completion", "last", "exact"),
    [
        (WholeNumber, "-60", "-60", 1, 1),
        (WholeNumber, "-60", " -60.\n", 1, 1),
        (WholeNumber, "-60", "21 - 81 = -60", 1, 0),
        (WholeNumber, "-60", "60", 0, 0),
        (WholeNumber, "1234", "It is 1,234.", 1, 0),
        (WholeNumber, "1234", "12,34", 0, 0),
        (WholeNumber, "12", "12 or 13", 0, 0),
        (WholeNumber, "12", "12.0", 0, 0),
        (WholeNumber, "12", "012", 0, 0),
        (WholeNumber, "12", "１２", 0, 0),
        (WholeNumber, "12", "٢", 0, 0),
        (WholeNumber, "12", "1\x002", 0, 0),
        (WholeNumber, "12", "2**2**2**2**9", 0, 0),
        (WholeNumber, "12", "__import__('os').abort()", 0, 0),
        (WholeNumber, "12", "1" * MEGABYTE, 0, 0),
        (WholeNumber, "12", "1," * (MEGABYTE // 2), 0, 0),
        (WholeNumber, "12", "(" * MEGABYTE + "12" + ")" * MEGABYTE, 1, 0),
        (WholeNumber, "12", "", 0, 0),
        (Words, "olleh", "olleh", 1, 1),
        (Words, "olleh", 'It is "olleh".', 1, 0),
        (Words, "olleh", "**olleh**", 1, 0),
        (Words, "olleh", "Olleh", 0, 0),
        (Words, "olleh", "olleh hello", 0, 0),
        (Words, "olleh", "xolleh", 0, 0),
        (Words, "olleh", "x" * MEGABYTE + "olleh", 0, 0),
        (Words, "olleh", "x " * MEGABYTE + "olleh", 1, 0),
        (Words, "WAS WITH DR", "It says: WAS WITH  DR.", 1, 0),
        (Words, "WAS WITH DR", "WAS WITH DR", 1, 1),
        (Words, "WAS WITH DR", "WITH DR", 0, 0),
        (Words, "3f", "3F", 0, 0),
        (Words, "3f", "", 0, 0),
        (WordList, "b, a, c", "b, a, c", 1, 1),
        (WordList, "b, a, c", "Sorted:\nthe words are: b,a, c.", 1, 0),
        (WordList, "b, a, c", "a, b, c", 0, 0),
        (WordList, "b, a, c", "b, a", 0, 0),
        (WordList, "b, a, c", "b, a, c,", 0, 0),
        (WordList, "b, a, c", "," * MEGABYTE, 0, 0),
        (NumberList, "['-2.5', '3.0']", "['-2.5', '3.0']", 1, 1),
        (NumberList, "['-2.5', '3.0']", "The list [1, 2] becomes [-2.50, 3].", 1, 0),
        (NumberList, "['-2.5', '3.0']", '["-2.5","3"]', 1, 1),
        (NumberList, "['-2.5', '3.0']", "-2.5, 3.0", 0, 0),
        (NumberList, "['-2.5', '3.0']", "['3.0', '-2.5']", 0, 0),
        (NumberList, "['-2.5', '3.0']", "['-2.5', '3.0', '3.0']", 0, 0),
        (NumberList, "['-2.5', '3.0']", "[-2.5, 3e0]", 0, 0),
        (NumberList, "['-2.5', '3.0']", "[-2.5, __import__('os').abort()]", 0, 0),
        (NumberList, "['-2.5', '3.0']", "[" * MEGABYTE + "]" * MEGABYTE, 0, 0),
        (NumberList, "['-2.5', '3.0']", "[" + "1," * MEGABYTE + "1]", 0, 0),
        (NumberList, "['0.0']", "[-0]", 1, 1),
        (NumberList, "[]", "None are left: []", 1, 0),
        (NumberList, "[]", "[ ]", 1, 1),
        (NumberList, "[]", "[,]", 0, 0),
        (NumberList, "[]", "", 0, 0),
        (Assignment, KNIGHTS, "Ann is a knight, and Bob is a knave.", 1, 1),
        (Assignment, KNIGHTS, "Bob is a knave and Ann is a knight", 1, 1),
        (
            Assignment,
            KNIGHTS,
            "If Ann is a knave then Bob is a knave, so Ann is a knight, Bob is a knave.",
            1,
            0,
        ),
        (Assignment, KNIGHTS, "Ann is a knight, and Bob is a knight.", 0, 0),
        (Assignment, KNIGHTS, "Ann is a knight.", 0, 0),
        (Assignment, KNIGHTS, "Ann is a knight, and Ann is a knight.", 0, 0),
        (Assignment, KNIGHTS, "Ann is a knight, Bob is a knave, and Bob is a knight.", 0, 0),
        (Assignment, KNIGHTS, "Ann is a knight/knave, and Bob is a knight/knave", 0, 0),
        (
            Assignment,
            "Ann is a fool, and Bob is a fool.",
            "(like: Ann is a fool/sage, and Bob is a fool/sage)",
            0,
            0,
        ),
        (Assignment, KNIGHTS, "If Ann is a knight then Bob is a knave.", 0, 0),
        (Assignment, KNIGHTS, "- Bob is a knave.\n- Ann is a knight.\n", 1, 0),
        (Assignment, KNIGHTS, "Ann is a " * 10**5, 0, 0),
        (Assignment, KNIGHTS, "Ann is a knight, " * 10**5, 0, 0),
        (Assignment, KNIGHTS, "A" + "n" * MEGABYTE, 0, 0),
        (Assignment, "Luke is an egoist.", "Luke is a egoist", 1, 1),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else repr(value)[:24],
)
def test_what_is_right(kind: type[Answer], right: str, completion: str, last: int, exact: int) -> None:
    assert kind().verify(completion, right, "last") == last
    assert kind().verify(completion, right, "exact") == exact
