"""How a run in several processes says that one of them has gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import ranks
from lab.errors import RunFailed
from lab.ranks import other_ranks
from lab.runs import Run

KILL = "import os, signal; os.kill(os.getpid(), signal.{})"


@pytest.fixture
def others_do(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[subprocess.Popen[bytes]]]:
    """Let the other processes run a line of Python in place of the lab; return the list that holds them."""
    start = subprocess.Popen
    started: list[subprocess.Popen[bytes]] = []

    def choose(program: str) -> list[subprocess.Popen[bytes]]:
        def instead(_: list[str], **options: Any) -> subprocess.Popen[bytes]:
            started.append(start([sys.executable, "-c", program], **options))
            return started[-1]

        monkeypatch.setattr(ranks.subprocess, "Popen", instead)
        return started

    return choose


@pytest.mark.parametrize("while_it_runs", [False, True], ids=["at the end", "in a collective"])
@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            KILL.format("SIGKILL"),
            "process 1 of 2 was ended by SIGKILL; the system does so where memory runs out",
        ),
        (KILL.format("SIGTERM"), "process 1 of 2 was ended by SIGTERM"),
        ("raise SystemExit(3)", "process 1 of 2 failed; its message stands above"),
    ],
)
def test_the_message_says_what_ended_a_process(
    program: str,
    said: str,
    while_it_runs: bool,
    others_do: Callable[[str], list[subprocess.Popen[bytes]]],
    tmp_path: Path,
) -> None:
    others = others_do(program)
    before = dict(os.environ)
    with pytest.raises(RunFailed) as failure, other_ranks(Run(tmp_path, {}, resumed=False), world=2):
        if while_it_runs:
            others[0].wait(60)
            raise RuntimeError("Connection closed by peer")
    assert str(failure.value) == said
    assert dict(os.environ) == before


def test_an_error_of_this_process_is_passed_on_where_the_others_are_well(
    others_do: Callable[[str], list[subprocess.Popen[bytes]]], tmp_path: Path
) -> None:
    others_do("import time; time.sleep(60)")
    with pytest.raises(RuntimeError, match="^mine$"), other_ranks(Run(tmp_path, {}, resumed=False), world=2):
        raise RuntimeError("mine")


def test_a_process_that_does_not_leave_costs_nothing(
    others_do: Callable[[str], list[subprocess.Popen[bytes]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = others_do("import time; time.sleep(600)")
    monkeypatch.setattr(ranks, "_SECONDS_TO_LEAVE", 0.1)
    with other_ranks(Run(tmp_path, {}, resumed=False), world=2):
        pass
    assert others[0].returncode == -signal.SIGKILL
