"""The benchmark of jumps: its bookkeeping. Nothing is timed but by a clock that the test turns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.bench import jump
from lab.module import LabModule
from lab.regrounding.regrounder import Regrounder

SMALL = ("jumps=2", "block_steps=3", "prompts=2", "rollouts=2", "schedules=[fixed]")


def test_a_jump_of_one_second_beside_steps_of_two(
    lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, acted = [0.0], []
    step, after_step = LabModule.training_step, Regrounder.after_step

    def stepping(module: LabModule, *arguments: Any) -> Any:
        seconds[0] += 2.0
        return step(module, *arguments)

    def jumping(regrounder: Regrounder, *arguments: Any) -> Any:
        outcome = after_step(regrounder, *arguments)
        if outcome is not None:
            seconds[0] += 1.0
            acted.append(arguments[0])
        return outcome

    monkeypatch.setattr(LabModule, "training_step", stepping)
    monkeypatch.setattr(Regrounder, "after_step", jumping)
    monkeypatch.setattr(jump, "time", SimpleNamespace(perf_counter=lambda: seconds[0]))
    outcome = lab("bench", "benchmark=jump", "name=a", *SMALL)
    assert outcome.code == 0, outcome.err
    found = json.loads(Path("runs/bench/a/summary.json").read_text())["fixed"]
    assert acted == [3, 6, 9]  # the first block is a warm-up
    assert (found["jump_ms"], found["step_ms"], found["steps_per_jump"]["median"]) == (1000, 2000, 0.5)
    assert "fixed 0.50" in outcome.last_line


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("block_steps=1", "at least 2"),
        ("jumps=0", "at least 1"),
        ("schedules=[]", "at least one"),
        ("schedules=[none]", "regrounding.block_steps: no such key"),
    ],
)
def test_impossible_settings_are_refused(lab: Callable[..., Any], word: str, message: str) -> None:
    outcome = lab("bench", "benchmark=jump", *SMALL, word)
    assert outcome.code == 2 and message in outcome.err
