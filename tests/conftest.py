"""What every test shares: one thread, no network, and the command line called in-process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("LAB_DEBUG", None)


@dataclass(frozen=True)
class Outcome:
    """What one call of the command line returned and printed."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """The last line of stdout: the verb's one-line result."""
        lines = self.out.strip().splitlines()
        return lines[-1] if lines else ""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture
def lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Call `lab WORD ...` in-process, with an empty directory as the working directory."""
    from lab.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Outcome:
        capsys.readouterr()
        code = main(list(words))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def small_run() -> tuple[str, ...]:
    """Words of the command line for the run `train/a`: four steps, a record and a checkpoint every two."""
    return (
        "train",
        "name=a",
        "steps=4",
        "recorder.every=2",
        "recorder.save_every=2",
        "objective.prompts=4",
        "objective.rollouts=4",
        "evaluation.problems=8",
        "evaluation.rollouts=1",
        "probes.prompts=4",
        "probes.responses=2",
        "logger=none",
    )


@pytest.fixture
def assert_refused(tmp_path: Path) -> Callable[[Outcome, Sequence[str]], None]:
    """Assert exit code 2, one line that holds the parts, no traceback, and no file in the working directory."""

    def check(outcome: Outcome, parts: Sequence[str]) -> None:
        assert outcome.code == 2, outcome.err
        assert [part for part in parts if part not in outcome.err] == [], outcome.err
        assert len(outcome.err.strip().splitlines()) == 1 and "Traceback" not in outcome.err + outcome.out
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    return check
