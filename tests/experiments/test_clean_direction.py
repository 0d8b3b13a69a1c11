"""Progress along a clean direction, on displacements of known means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.analysis.clean_direction import along_others, path_along, ratio, start_and_end


def test_projection_on_other_seeds_is_free_of_the_noise_that_a_run_shares_with_its_clean_twin() -> None:
    """Both arms share noise by seed (common random numbers), which a direction of all seeds would count as drift."""
    generator = np.random.default_rng(0)
    size, drift = 400, np.zeros(400)
    drift[0] = 3.0
    ratios, biased = [], []
    for _ in range(2000):
        shared = {seed: generator.standard_normal(size) for seed in range(8)}
        clean = {seed: drift + noise for seed, noise in shared.items()}
        arm = {seed: 0.5 * drift + noise for seed, noise in shared.items()}
        base = along_others(clean, clean)
        ratios.append((np.mean(list(along_others(arm, clean).values())), np.mean(list(base.values()))))
        whole = np.mean(list(clean.values()), axis=0)
        biased.append((np.mean([arm[s] @ whole for s in arm]), np.mean([clean[s] @ whole for s in clean])))
    table = np.array(ratios)
    error = table.std(axis=0) / np.sqrt(len(table))
    assert np.all(np.abs(table.mean(axis=0) - [4.5, 9.0]) < 4 * error)
    assert np.all(error < 0.15)
    top, bottom = np.mean(biased, axis=0)
    assert top / bottom > 0.9  # 54.5 / 59


def test_a_ratio_is_matched_only_where_it_is_near_one_and_sure() -> None:
    clean = dict.fromkeys(range(6), 2.0)
    assert ratio(dict.fromkeys(range(6), 1.9), clean)["matched"]
    assert not ratio(dict.fromkeys(range(6), 1.7), clean)["matched"]
    wide = dict(enumerate([0.0, 4.0, 1.0, 3.0, 0.5, 3.5]))
    found = ratio(wide, clean)
    assert found["mean"] == pytest.approx(1.0)
    assert found["low"] < 0.5 and not found["matched"]


def test_the_coordinates_followed_estimate_the_product_over_all_weights(tmp_path: Path, lab: Any) -> None:
    done = lab(
        "train", "steps=3", "recorder.every=1", "logger=none", "name=a", "objective.prompts=4",
        "objective.rollouts=4", "evaluation.problems=4", "probes.prompts=2", "recorder.sample_fraction=1.0",
    )  # fmt: skip
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "train" / "a"
    first, last = start_and_end(run)
    moved = {name: last[name] - first[name] for name in first}
    assert max(np.abs(value).max() for value in moved.values()) > 0
    generator = np.random.default_rng(1)
    direction = {name: generator.standard_normal(len(value)) for name, value in first.items()}
    exact = sum(moved[name] @ direction[name] for name in moved)
    found = path_along(run, direction)
    assert found[0] == 0
    assert found[-1] == pytest.approx(exact, rel=1e-4)  # every coordinate is followed, in float32
