"""Typed settings: what is accepted, and what each refusal says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from lab.errors import BadInput
from lab.settings import build, choose, require, suggest


@dataclass(frozen=True)
class Inner:
    rate: float
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Outer:
    steps: int
    flag: bool
    label: str | None
    resume: bool | str
    kind: Literal["a", "b"]
    inner: Inner
    extra: dict[str, Any]

    def __post_init__(self) -> None:
        require(self.steps > 0, "steps", "must be positive")


GOOD: dict[str, Any] = {
    "steps": 3,
    "flag": True,
    "label": None,
    "resume": "auto",
    "kind": "a",
    "inner": {"rate": 1, "sizes": [1, 2]},
    "extra": {"x": 1},
}


def test_values_get_their_types() -> None:
    settings = build(Outer, GOOD)
    assert settings.inner == Inner(rate=1.0, sizes=(1, 2))
    assert isinstance(settings.inner.rate, float)
    assert settings.label is None and settings.resume == "auto" and settings.extra == {"x": 1}
    assert build(Outer, {**GOOD, "resume": False}).resume is False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stepz": 1}, ["stepz", "no code reads", "did you mean 'steps'"]),
        ({"steps": 0}, ["steps", "must be positive"]),
        ({"steps": 1.5}, ["steps", "whole number"]),
        ({"steps": True}, ["steps", "whole number"]),
        ({"flag": 1}, ["flag", "true or false"]),
        ({"label": 7}, ["label", "text"]),
        ({"kind": "c"}, ["kind", "'c'", "a, b"]),
        ({"inner": 3}, ["inner", "group of keys"]),
        ({"inner": {"rate": "x", "sizes": []}}, ["inner.rate", "a number"]),
        ({"inner": {"rate": float("nan"), "sizes": []}}, ["inner.rate", "finite"]),
        ({"inner": {"rate": 1.0, "sizes": "12"}}, ["inner.sizes", "list"]),
        ({"inner": {"rate": 1.0, "sizes": [1, "x"]}}, ["inner.sizes[1]", "whole number"]),
        ({"inner": {"rate": 1.0}}, ["inner.sizes", "missing"]),
    ],
)
def test_a_refusal_names_the_full_key(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(BadInput) as refusal:
        build(Outer, {**GOOD, **change}, key="top")
    message = str(refusal.value)
    assert message.startswith("top.")
    assert all(word in message for word in words), message


def test_choose_and_suggest_list_what_exists() -> None:
    assert choose({"one": 1}, "one", "key") == 1
    with pytest.raises(BadInput, match="key: unknown 'onne'; did you mean 'one'[?] known: one, two"):
        choose({"two": 2, "one": 1}, "onne", "key")
    assert suggest("x", []) == "known: (none)"
