"""`lab bench benchmark=extrapolate`: every side runs, ratios within rounds, no peer is no error. Nothing is timed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.bench import extrapolate

FAKE_PEER = """#!/bin/sh
if [ "$1" = "-I" ]; then echo 0.1.5; exit 0; fi
if [ -n "$FAKE_FAILS" ]; then echo "the fake is tired"; exit 7; fi
test -f "$3" && mkdir "$4"
"""


@pytest.fixture
def peers(tmp_path: Path) -> Path:
    python = tmp_path / "peers" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PEER, encoding="utf-8")
    python.chmod(0o755)
    return tmp_path / "peers"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"mlp.up_proj": 24, "self_attn.q_proj": 128, "self_attn.k_proj": 64}
    tensors = {"model.embed_tokens.weight": (16, 128)} | {
        f"model.layers.0.{name}.weight": (count, 128) for name, count in rows.items()
    }
    monkeypatch.setattr(extrapolate, "shapes", lambda weights: tensors)


def test_every_side_takes_its_turn(lab: Callable[..., Any], tmp_path: Path, peers: Path) -> None:
    outcome = lab(
        "bench", "benchmark=extrapolate", "weights=1", "repeats=1", f"peers={peers}", "dtypes=[bfloat16]"
    )
    assert outcome.code == 0, outcome.err
    assert "x cp" in outcome.last_line and "mergekit" in outcome.last_line
    folder = tmp_path / "runs/bench/001"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["mergekit"] == "0.1.5"
    assert {name: len(each) for name, each in summary["bfloat16"]["seconds"].items()} == {
        "cp": 1,
        "cp_synced": 1,
        "work": 1,
        "command": 1,
        "mergekit": 1,
    }
    assert summary["bfloat16"]["peak_rss_mb"]["command"] > 1
    assert not (folder / "out").exists() and not (folder / "models_bfloat16").exists()
    recipe = json.loads((folder / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["models"][0]["parameters"]["weight"] == 3.5  # the beta of our two-point forecast


def test_a_side_that_fails_fails_the_run(
    lab: Callable[..., Any], peers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAILS", "1")
    outcome = lab(
        "bench", "benchmark=extrapolate", "weights=1", "repeats=1", f"peers={peers}", "dtypes=[bfloat16]"
    )
    assert outcome.code == 3
    assert "exit code 7" in outcome.err and "the fake is tired" in outcome.err


def test_ratios_are_taken_within_a_round(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12")
    drift = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    found = {
        name: [{"seconds": factor * each} for each in drift]
        for name, factor in (("cp", 1.0), ("cp_synced", 2.0), ("work", 3.0), ("command", 6.0))
    }
    ratios = extrapolate.compare(found, [tmp_path / "file"])["ratios"]
    assert {name: each["median"] for name, each in ratios.items()} == {
        "work_over_cp": 3.0,
        "work_over_cp_synced": 1.5,
        "command_over_cp": 6.0,
    }
    assert ratios["work_over_cp"]["low"] == ratios["work_over_cp"]["high"] == 3.0


def test_without_mergekit_its_side_is_left_out(tmp_path: Path, peers: Path) -> None:
    assert extrapolate.mergekit_version(str(tmp_path / "nowhere")) is None
    (peers / "bin" / "python").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    assert extrapolate.mergekit_version(str(peers)) is None
