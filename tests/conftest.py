"""What every test shares: one thread, no network, and the command line called in-process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
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
