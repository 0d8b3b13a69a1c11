"""Token sign noise on synthetic models: what a cell is made of, what is measured, and what is concluded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiments.q2_synthetic import q2_synthetic
from experiments.q2_synthetic.judge import judge, paired_rise
from experiments.q2_synthetic.quadratic import MOMENTS, Bowl, place_bowl
from lab.checks.adam import bowl_paths
from lab.errors import BadInput
from lab.trajectory.store import open_store

STEPS = np.arange(0.0, 391.0, 30.0)


def test_a_bowl_under_sgd_lies_where_it_was_put() -> None:
    """Mean and variance carried update by update."""
    bowl, rate = place_bowl("sgd", 6.0, 60.0, 0.02, STEPS), 0.02
    mean, variance = bowl.start, 0.0
    for _ in range(390):
        mean -= rate * bowl.curvature * mean
        variance = (1 - rate * bowl.curvature) ** 2 * variance + (rate * bowl.noise) ** 2
    assert (bowl.start - mean) ** 2 / variance == pytest.approx(60.0)
    assert np.log(bowl.start / mean) == pytest.approx(6.0)


def test_a_bowl_under_adam_lies_where_it_was_put() -> None:
    """Adam itself, many times: the contraction of its mean, and S² of its displacement."""
    bowl = place_bowl("adamw", 2.0, 20.0, 0.01, STEPS)
    paths = bowl_paths(
        bowl.start,
        bowl.curvature,
        bowl.noise,
        0.01,
        (0.9, 0.999),
        STEPS.astype(int),
        4000,
        np.random.default_rng(0),
    )
    last = paths.positions.reshape(len(STEPS), -1)[-1]
    error = last.std() / np.sqrt(len(last))
    assert abs(last.mean() - bowl.start * np.exp(-2.0)) < 4 * error + 0.01 * bowl.start
    assert (bowl.start - last.mean()) ** 2 / last.var() == pytest.approx(20.0, rel=0.06)


def test_a_place_out_of_reach_is_refused() -> None:
    with pytest.raises(BadInput, match="more updates"):
        place_bowl("adamw", 6.0, 60.0, 0.01, np.arange(0.0, 14.0))


def test_sign_noise_scales_drift_and_noise_as_weights_of_tokens_do() -> None:
    """A batch of tokens, each a gradient with noise of its own, weighted a + b eps."""
    tokens, batches, a, b = 400, 4000, 0.6, 1.7
    bowl = Bowl(2.0, 0.5, 0.3)
    noisy = bowl.with_sign_noise(a, b)
    draw = np.random.default_rng(0)
    gradient = bowl.curvature * bowl.start + bowl.noise * np.sqrt(tokens) * draw.standard_normal(
        (batches, tokens)
    )
    weighted = ((a + b * draw.choice([-1.0, 1.0], (batches, tokens))) * gradient).mean(axis=1)
    error = weighted.std() / np.sqrt(batches)
    assert abs(weighted.mean() - noisy.curvature * noisy.start) < 4 * error
    extra = (b * bowl.curvature * bowl.start) ** 2 / tokens  # the drift of single tokens, flipped; left out
    assert weighted.std() == pytest.approx(np.hypot(noisy.noise, np.sqrt(extra)), rel=0.05)
    assert extra < 0.04 * noisy.noise**2


def row(level: str, means: list[float], **labels: Any) -> dict[str, Any]:
    """A cell of the quadratic as the results hold it."""
    return {
        "model": "quadratic",
        "optimizer": "sgd",
        "normalisation": "fixed_signal",
        "snr_db": level,
        "r2_mean": float(np.mean(means)),
        "standard_error": 0.001,
        "r2_mean_by_seed": means,
        "z": 0.5,
        "theory": {"r2_mean": float(np.mean(means)) - 0.0005},
        **labels,
    }


def verdicts(peak: float, zero: float, z: float = 0.5) -> list[bool]:
    levels = ["10", "0", "-5", "zero"]
    jitter = np.array([-0.002, 0.0, 0.002])
    rows = []
    for arm, middle in (("c=6", peak), ("c=0.25", 0.9)):
        values = (0.95, middle, 0.6, zero) if arm == "c=0.25" else (0.5, 0.4, middle, zero)
        rows += [
            row(level, (value + jitter).tolist(), arm=arm, z=z)
            for level, value in zip(levels, values, strict=True)
        ]
    return [point["holds"] for point in judge(rows, levels)]


def test_a_peak_has_to_be_high_enough_and_theory_and_null_near() -> None:
    walk = 0.4418
    assert verdicts(0.55, walk) == [True, True, True, True, True]
    assert verdicts(0.52, walk)[0] is False
    assert verdicts(0.55, walk, z=-3.1)[2] is False
    assert verdicts(0.55, walk + 0.004)[3:] == [False, False]


def test_rise_is_paired_by_seed() -> None:
    first, second = row("10", [0.1, 0.5, 0.9]), row("0", [0.2, 0.7, 1.0])
    assert paired_rise(second, first) == pytest.approx((0.4 / 3, np.std([0.1, 0.2, 0.1], ddof=1) / 3**0.5))


def small() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(q2_synthetic.CONFIG.read_text())
    config |= {"levels_db": [10, -5], "normalisations": ["unit_power"], "seeds": 2}
    config["quadratic"] |= {"updates": 390, "every": 30, "replicates": 3, "coordinates": 2}
    config["logistic"] |= {
        "updates": 26,
        "every": 2,
        "replicates": 2,
        "learning_rates": {"sgd": [0.1]},
    }
    return config


def test_a_run_broken_off_goes_on_and_its_numbers_are_those_of_its_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, result = small(), tmp_path / "results.json"
    measure = q2_synthetic.measure
    monkeypatch.setattr(q2_synthetic, "OPTIMIZERS", ("sgd",))

    def broken(run: Path, *rest: Any) -> list[dict[str, float]]:
        if run.name == "logistic_sgd_0":
            raise KeyboardInterrupt
        return measure(run, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(q2_synthetic, "measure", broken)
        q2_synthetic.simulate(config, tmp_path / "runs", result)
    assert not result.exists()
    study = tmp_path / "runs/q2_synthetic/001"
    done = {path.name: (path / "DONE").stat().st_mtime_ns for path in study.iterdir() if path.is_dir()}
    results = q2_synthetic.simulate(config, tmp_path / "runs", result)
    assert len(done) == 3
    assert done == {name: (study / name / "DONE").stat().st_mtime_ns for name in done}
    assert json.loads(result.read_text())["points"] == results["points"]

    levels = ["none", "10", "-5", "zero"]
    assert [cell["snr_db"] for cell in results["cells"]] == levels * 3
    chosen = [cell for cell in results["cells"] if cell["model"] == "quadratic"]
    for seed in range(2):
        weights = open_store(study / f"quadratic_sgd_{seed}")["weights"].to_dataset()
        for index, cell in enumerate(chosen):
            paths = weights["weight"].values[:, weights["cell"].values == index].astype(np.float64)
            straight = np.mean([np.corrcoef(path, STEPS)[0, 1] ** 2 for path in paths.T])
            assert cell["r2_mean_by_seed"][seed] == pytest.approx(straight, abs=2e-5)
    assert chosen[0]["theory"]["signal_squared"] == pytest.approx(60.0)


def test_stored_results_are_of_this_configuration() -> None:
    stored = json.loads(q2_synthetic.RESULT.read_text())
    assert stored["config"] == yaml.safe_load(q2_synthetic.CONFIG.read_text())
    for cell in stored["cells"]:
        assert len(cell["r2_mean_by_seed"]) == stored["config"]["seeds"] >= 8
        assert cell["r2_mean"] == pytest.approx(np.mean(cell["r2_mean_by_seed"]), abs=1e-4)
    levels = q2_synthetic.levels(stored["config"])
    assert [point["holds"] for point in judge(stored["cells"], levels)] == [
        point["holds"] for point in stored["points"]
    ]
    place = next(cell for cell in stored["cells"] if cell["arm"] == "c=6" and cell["snr_db"] == "none")[
        "theory"
    ]
    assert (place["signal_squared"], place["curvature_horizon"]) == pytest.approx((60.0, 6.0))
    assert MOMENTS.keys() == {cell["optimizer"] for cell in stored["cells"]}
