"""The benchmark of `lab measure checkpoints=`: its data, the published method, its ratios. Nothing is timed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.bench import measure_checkpoints as bench
from lab.bench import measure_checkpoints_published as published
from lab.bench.measure_checkpoints_data import random_checkpoints, shapes
from lab.errors import BadInput

SMALL = {"model.layers.0.q_proj.weight": (300, 40), "model.layers.0.q_proj.bias": (30,), "norm.weight": (40,)}


@pytest.mark.parametrize("weights", [20_000_000, 100_000_000, 1_000_000_000])
def test_the_model_is_about_as_large_as_asked(weights: int) -> None:
    found = sum(int(np.prod(shape)) for shape in shapes(weights).values())
    assert found == pytest.approx(weights, rel=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_files_are_checkpoints_and_go_away(tmp_path: Path, dtype: str) -> None:
    from safetensors.torch import load_file

    from lab.trajectory.readers import open_series

    with random_checkpoints(tmp_path / "series", SMALL, 5, dtype, seed=0) as files:
        series = open_series(tmp_path / "series")
        assert series.steps.tolist() == [0, 200, 400, 600, 800]
        assert {name: info.shape for name, info in series.tensors.items()} == SMALL
        assert {info.dtype for info in series.tensors.values()} == {dtype}
        for index, file in enumerate(files):
            for name, tensor in load_file(file).items():
                read = series.read(name, 0, tensor.numel())[index]
                np.testing.assert_array_equal(read, tensor.double().numpy().ravel())
        assert np.median(np.ptp(series.read("norm.weight", 0, 40), axis=0)) > 0
    assert not (tmp_path / "series").exists()


def test_no_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    huge = {"w": (10**15,)}
    with (
        pytest.raises(BadInput, match="the benchmark needs"),
        random_checkpoints(tmp_path / "series", huge, 3, "float32", seed=0),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_published_method_by_hand(tmp_path: Path) -> None:
    """All scalars of these small tensors are in its sample but for the largest one's."""
    steps = [0.0, 200.0, 400.0, 600.0, 800.0]
    tensors = {"a.weight": (5, 10), "a.bias": (50,)}
    with random_checkpoints(tmp_path / "series", tensors, 5, "float32", seed=1) as files:
        found = published.measure(files, steps, seed=0)
        from safetensors.torch import load_file

        paths = np.stack([load_file(file)["a.weight"].bfloat16().double().numpy().ravel() for file in files])
    kept = [path for path in paths.T if np.ptp(path) > 1e-4 and len(set(path)) >= 4]
    assert found["scalars"] == 50 and found["kept"] == len(kept) > 5
    assert found["r2_median"] == pytest.approx(
        np.median([np.corrcoef(steps, path)[0, 1] ** 2 for path in kept])
    )


def test_ratios_are_taken_within_a_round() -> None:
    summary = {"bytes_read": 8, "pass_s": 1.0, "peak_rss_mb": 300.0}
    cat = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    found = {
        bench.CAT: cat,
        bench.BARE: [2 * each for each in cat],
        bench.ALL: [10 * each for each in cat],
        "summaries": [summary] * 6,
        "published": [{"scalars": 10, "seconds": 5.0, "kept": 4, "r2_median": 0.5}],
    }
    compared = bench._compare("float32", found, weights=700)
    ratio = compared["ratio_to_cat"]
    assert (ratio[bench.BARE]["median"], ratio[bench.BARE]["low"], ratio[bench.BARE]["target"]) == (
        2.0,
        2.0,
        3.0,
    )
    assert ratio[bench.ALL]["median"] == 10.0
    assert compared["weights_per_second"] == 100.0
    assert compared["published"]["speed_ratio"] == 50.0


def test_the_verb_writes_a_summary(
    lab: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "shapes", lambda weights: SMALL)
    monkeypatch.setattr(
        bench,
        "_lab_measure",
        lambda *_: {"bytes_read": 8, "pass_s": 1.0, "peak_rss_mb": 300.0, "weights": {"n": 12_070}},
    )
    monkeypatch.setattr(bench, "_published", lambda *_: {"scalars": 10, "seconds": 5.0})
    outcome = lab(
        "bench", "benchmark=measure_checkpoints", "repeats=2", "checkpoint_count=4", "dtypes=[bfloat16]"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.last_line.startswith("runs/bench/001: bfloat16: R² and skill")
    held = tmp_path / "runs/bench/001"
    summary = json.loads((held / "summary.json").read_text(encoding="utf-8"))
    assert summary["weights"] == 12_070 and summary["large"]["peak_rss_mb"] == 300.0
    assert len(summary["bfloat16"]["seconds"]["cat"]) == 2
    assert str(tmp_path) not in json.dumps(summary)
    assert {path.name for path in held.iterdir()} == {"config.yaml", "summary.json", "DONE"}


@pytest.mark.parametrize(
    "word", ["repeats=0", "checkpoint_count=2", "dtypes=[float8]", "dtypes=[]", "workers=0"]
)
def test_impossible_values(lab: Callable[..., Any], tmp_path: Path, word: str) -> None:
    outcome = lab("bench", "benchmark=measure_checkpoints", word)
    assert outcome.code == 2 and word.split("=")[0] in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("weights", [10_000_000, 100_000_000, 500_000_000, 1_000_000_000])
def test_transformers_builds_the_model_whose_tensors_are_timed(weights: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from lab.bench.extrapolate import llama_config

    tensors = shapes(weights)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**llama_config(tensors, "float32")))
    assert {name: tuple(tensor.shape) for name, tensor in model.named_parameters()} == tensors
    assert sum(tensor.numel() for tensor in model.parameters()) == pytest.approx(weights, rel=0.2)
