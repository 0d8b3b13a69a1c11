"""The benchmark of extrapolated decoding: its bookkeeping. Nothing is timed but by a clock that the test turns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.bench import extrapolated_decoding
from lab.policies.static_source import StaticSource


def test_a_clock_that_counts_passes_reads_what_two_models_cost(
    lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a second for each position that a model reads, the ratio is exactly 2."""
    seconds = [0.0]
    start, advance = StaticSource.start, StaticSource.advance

    def starting(source: StaticSource, ids: Any, mask: Any) -> Any:
        seconds[0] += ids.numel()
        return start(source, ids, mask)

    def advancing(source: StaticSource, state: Any, tokens: Any) -> Any:
        seconds[0] += len(tokens)
        return advance(source, state, tokens)

    monkeypatch.setattr(StaticSource, "start", starting)
    monkeypatch.setattr(StaticSource, "advance", advancing)
    clock = SimpleNamespace(perf_counter=lambda: seconds[0], process_time=lambda: seconds[0])
    monkeypatch.setattr(extrapolated_decoding, "time", clock)
    small = ("rounds=6", "warmup=1", "repeats=2", "prompts=3", "rollouts=2", "new_tokens=4")
    outcome = lab("bench", "benchmark=extrapolated_decoding", "name=a", *small)
    assert outcome.code == 0, outcome.err
    found = json.loads(Path("runs/bench/a/summary.json").read_text())
    assert found["ratio"]["median"] == found["ratio"]["low"] == found["ratio"]["high"] == 2
    read = (
        3 * found["prompt_tokens"] + 6 * 3
    )  # each prompt once, and all but the last token of six completions
    assert found["microseconds_per_token"]["plain"] == pytest.approx(1e6 * read / (6 * 4))
    assert len(found["seconds_per_token_of_each_round"]["plain"]) == 6
    assert found["source"] == "StaticSource" and "2.00" in outcome.last_line


@pytest.mark.parametrize(
    ("word", "message"), [("alpha=1", "only one model is run"), ("rounds=0", "at least 1")]
)
def test_impossible_settings_are_refused(lab: Callable[..., Any], word: str, message: str) -> None:
    outcome = lab("bench", "benchmark=extrapolated_decoding", word)
    assert outcome.code == 2 and message in outcome.err
