"""The benchmark of sweeps: its bookkeeping. Nothing is timed but by a clock that the test turns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.bench import sweep
from lab.bench.sweep_settings import SweepBenchSettings
from lab.errors import RunFailed
from lab.runs import Run

SMALL = ("rounds=2", "trials=2", "steps=1", "measure=false", "prompts=2", "rollouts=2")


def test_trials_an_hour_and_overhead_follow_from_the_clock_and_the_studies(
    lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker takes 90 s for two trials and two take 50 s;"""
    now, words = [0.0], []

    def command(line: list[str], **_: Any) -> Any:
        given = dict(word.split("=", 1) for word in line if "=" in word)
        words.append(given)
        now[0] += 90.0 if given["workers"] == "1" else 50.0
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(sweep, "subprocess", SimpleNamespace(run=command))
    monkeypatch.setattr(sweep, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(sweep, "_overheads", lambda *_: [9.5, 0.5, 0.4, 0.6])
    outcome = lab("bench", "benchmark=sweep", "name=a", *SMALL)
    assert outcome.code == 0, outcome.err
    found = json.loads(Path("runs/bench/a/summary.json").read_text())
    assert found["trials_per_hour"]["1"]["median"] == pytest.approx(3600 * 2 / 90)
    assert found["trials_per_hour"]["2"]["median"] == pytest.approx(3600 * 2 / 50)
    assert found["speed_up"]["median"] == pytest.approx(90 / 50)
    assert (found["overhead_s"]["median"], found["start_up_s"]) == (0.5, 9.0)
    assert [given["workers"] for given in words] == ["2", "1", "1", "2"]  # each round starts with the other
    assert len({given["runs_dir"] for given in words}) == 4  # a study of its own each time
    assert "144 trials an hour with 2 workers" in outcome.last_line


def test_whole_commands_run_every_point_and_their_overhead_is_read_back(tmp_path: Path) -> None:
    overheads = sweep._overheads(_settings(measure=False), tmp_path / "round", seed=3, threads=1)
    assert len(list(tmp_path.glob("round/study/study/points/*/seed_3/DONE"))) == 2
    assert len(overheads) == 2 and all(value > 0 for value in overheads)


def test_a_sweep_that_cannot_run_is_told_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="measuring needs at least 3"):
        sweep.run(_settings(measure=True), Run(tmp_path, {}, resumed=False), seed=0, threads=1)


def _settings(measure: bool) -> SweepBenchSettings:
    return SweepBenchSettings(
        "sweep",
        rounds=1,
        trials=2,
        workers=2,
        steps=1,
        prompts=2,
        rollouts=2,
        measure=measure,
        overhead_trials=2,
    )


@pytest.mark.parametrize(
    ("word", "message"),
    [("workers=1", "at least 2"), ("trials=1", "at least one"), ("overhead_trials=1", "at least 2")],
)
def test_impossible_settings_are_refused(lab: Callable[..., Any], word: str, message: str) -> None:
    outcome = lab("bench", "benchmark=sweep", word)
    assert outcome.code == 2 and message in outcome.err
