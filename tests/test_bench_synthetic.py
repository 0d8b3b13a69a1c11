"""`lab bench benchmark=synthetic`: the sides do what they say. Nothing is timed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lab.bench.generators import generators
from lab.bench.numpy_loop import TRAJECTORIES
from lab.bench.synthetic import result_line
from lab.bench.synthetic_settings import SyntheticBenchSettings
from lab.settings import Invalid

SMALL = ("numbers=512", "coordinates=[16,256]", "blocks=6", "steps_per_block=3", "loop_trajectories=2")


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_loop_is_the_optimiser(name: str) -> None:
    """One trajectory of the NumPy loop against torch's optimiser on the same noise."""
    curvature = np.array([0.5, 1.0, 3.0], np.float32)
    found = TRAJECTORIES[name](np.random.default_rng(5), curvature, 0.05, 40)
    noise = torch.from_numpy(np.random.default_rng(5).standard_normal((40, 3), dtype=np.float32))
    weights = torch.ones(3, requires_grad=True)
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    optimizer = kinds[name]([weights], lr=0.05, weight_decay=0.0)
    for row in noise:
        weights.grad = torch.from_numpy(curvature) * weights.detach() + row
        optimizer.step()
    np.testing.assert_allclose(found, weights.detach().numpy(), rtol=2e-4, atol=2e-5)


def test_every_generator_draws_fresh_standard_normals() -> None:
    for name, fill in generators(3).items():
        first, second = (np.array(np.asarray(fill()), dtype=np.float64) for _ in range(2))
        assert abs(first.mean()) < 5 / np.sqrt(first.size), name
        assert first.var() == pytest.approx(1, abs=5 * np.sqrt(2 / first.size)), name
        assert abs((first * second).mean()) < 5 / np.sqrt(first.size), name


def test_the_benchmark_runs_from_end_to_end(lab: Callable[..., Any]) -> None:
    outcome = lab("bench", "benchmark=synthetic", *SMALL)
    assert outcome.code == 0, outcome.err
    summary = json.loads(Path("runs/bench/001/summary.json").read_text())
    assert summary["result"] in outcome.last_line and result_line(summary) == summary["result"]
    cases = {(case["optimizer"], case["coordinates"]) for case in summary["cases"]}
    assert cases == {(name, count) for name in ("sgd", "adamw") for count in (16, 256)}
    for case in summary["cases"]:
        assert case["memory"]["bytes_per_coordinate"] == (8 if case["optimizer"] == "sgd" else 16)
        for clock in ("wall", "cpu"):
            for ratio in ("of_generator", "over_loop"):
                found = case[clock][ratio]
                assert 0 < found["low"] <= found["median"] <= found["high"] and found["coverage"] >= 0.95
    assert summary["generator"] in summary["generator_normals_per_second"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"numbers": 0}, "numbers"),
        ({"blocks": 0}, "blocks"),
        ({"optimizers": ()}, "optimizers"),
        ({"optimizers": ("lion",)}, "optimizers"),
        ({"coordinates": ()}, "coordinates"),
        ({"coordinates": (2000,)}, "coordinates"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], field: str) -> None:
    good: dict[str, Any] = {
        "what": "synthetic",
        "optimizers": ("sgd",),
        "coordinates": (16,),
        "numbers": 1024,
        "blocks": 1,
        "steps_per_block": 1,
        "loop_trajectories": 1,
    }
    with pytest.raises(Invalid, match=rf"^{field}: "):
        SyntheticBenchSettings(**(good | change))
