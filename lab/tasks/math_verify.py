"""Mathematical problems from a JSONL file, judged by math-verify in a process of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lab.errors import BadInput
from lab.judging import Judge, JudgeSettings
from lab.settings import require
from lab.tasks.questions import QuestionSettings, QuestionTask, require_package
from lab.tasks.task import Problem, Split, TaskSettings

_QUESTION_KEYS = ("problem", "prompt", "question")
_VERIFIER = "lab.judging.math_answers"
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class MathVerifySettings(QuestionSettings):
    """Keys of the math-verify adapter."""

    problems: str | None
    """Path of a JSONL file, each line an object with `problem` (or `prompt`, `question`) and `answer`: text, in which
    LaTeX may stand in dollar signs or not, or a number."""
    held_out_problems: str | None
    """Path of a file of held-out problems; null holds out a share of `problems`, by a hash of each one's text."""
    judge: JudgeSettings
    """Limits of judging one completion."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("problems", "held_out_problems"):
            require(getattr(self, field) != "", field, "name a file")
        require(self.problems is not None, "problems", "name a JSONL file of problems with answers")


class MathVerify(QuestionTask):
    """Problems of a file, each with an answer that mathematics decides: 1/2, 0.5 and \\frac{1}{2} are the same.

    Raises:
        BadInput: math-verify is not installed, or a file cannot be used; the message names the line.
    """

    settings_class: ClassVar[type[TaskSettings]] = MathVerifySettings
    settings: MathVerifySettings

    def __init__(self, settings: MathVerifySettings) -> None:
        super().__init__(settings)
        require_package("math_verify", settings.name)
        assert settings.problems is not None
        self._parts: dict[Split, list[_Entry]] = {"train": [], "held_out": []}
        self._sides: dict[str, Split] = {}
        known: dict[str, _Entry] = {}
        self._load(settings.problems, None if settings.held_out_problems is None else "train", known)
        if settings.held_out_problems is not None:
            self._load(settings.held_out_problems, "held_out", known)
        for split, entries in self._parts.items():
            if not entries:
                raise BadInput(
                    f"task.problems: there is no {split} problem in it; it needs more, or another task.held_out_share"
                )
        self.judge = Judge(_VERIFIER, settings.judge)

    def ask(self, split: Split, generator: np.random.Generator) -> tuple[str, str, str]:
        entries = self._parts[split]
        entry = entries[int(generator.integers(len(entries)))]
        return entry.question, entry.answer, entry.key

    def split_of(self, key: str) -> Split:
        return self._sides.get(key) or super().split_of(key)

    def draw_distinct(self, split: Split, count: int, generator: np.random.Generator) -> list[Problem]:
        entries = self._parts[split]
        chosen = generator.permutation(len(entries))[:count]
        return [
            Problem(self.settings.prompt.replace("{question}", entry.question), entry.answer, entry.key)
            for entry in (entries[index] for index in chosen)
        ]

    def verify(self, completion: str, problem: Problem) -> int | None:
        """Return 1 if the completion's final answer equals the right one, 0 if not, None if that took too long.

        Of a long completion the end is judged; see `judge_counts` for those that could not be.
        """
        return self.judge.judge([(problem.answer, completion)])[0]

    def judge_counts(self) -> dict[str, int]:
        """Return how often so far a completion could not be judged, by reason."""
        counts = self.judge.counts
        return {"timeouts": counts.timeouts, "crashes": counts.crashes, "unreadable": counts.unreadable}

    def _load(self, path: str, split: Split | None, known: dict[str, _Entry]) -> None:
        """Add the problems of a file to `split`, or to the one that the hash of each says."""
        for entry in _read(Path(path)):
            side = split or self.split_of(entry.key)
            before = known.get(entry.key)
            if before is None:
                known[entry.key] = entry
                self._sides[entry.key] = side
                self._parts[side].append(entry)
            elif before.answer != entry.answer:
                raise BadInput(f"{entry.place}: the problem of {before.place} again, with another answer")
            elif self._sides[entry.key] != side:
                raise BadInput(
                    f"{entry.place}: held out, but {before.place} trains on the same problem; remove one"
                )


@dataclass(frozen=True)
class _Entry:
    """One line of a file."""

    question: str
    answer: str
    key: str
    place: str


def _read(path: Path) -> Iterator[_Entry]:
    """Yield the problems of a JSONL file; a problem is named by its text, whatever its spaces and its case.

    Raises:
        BadInput: the message names the file and the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text ({error})") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            place = f"{path}, line {number}"
            question, answer = _fields(line, place)
            yield _Entry(question, answer, f"math:{_SPACE.sub(' ', question).casefold()}", place)


def _fields(line: str, place: str) -> tuple[str, str]:
    try:
        item: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{place}: not valid JSON ({error})") from None
    if not isinstance(item, dict):
        raise BadInput(f"{place}: expected an object with problem and answer, got {type(item).__name__}")
    names = [name for name in _QUESTION_KEYS if name in item]
    if not names or "answer" not in item:
        raise BadInput(
            f"{place}: expected problem (or prompt, question) and answer, got the keys {sorted(item)}"
        )
    question, answer = item[names[0]], item["answer"]
    if not isinstance(question, str) or not question.strip():
        raise BadInput(f"{place}: {names[0]} must be text")
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)) or not str(answer).strip():
        raise BadInput(f"{place}: answer must be text or a number, got {answer!r}")
    return question.strip(), str(answer).strip()
