"""The comparison of families, on simulated motion of each kind."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.analysis.persistence_families import (
    FAMILIES,
    NONE_FITS,
    NOT_IDENTIFIABLE,
    compare,
    drift_and_jitter_cosine,
)
from lab.linearity import lag_cosine

EVERY, CHECKPOINTS, ELEMENTS, RUNS = 20, 16, 1500, 8
LAGS = (1, 2, 3, 4, 5, 6)
WINDOWS = np.array(LAGS) * EVERY


def cosines(increments: list[np.ndarray], jitter: float = 0.0) -> np.ndarray:
    """Return lag cosines [run, lag] of runs with the given increments [checkpoint - 1, element]."""
    generator = np.random.default_rng(99)
    rows = []
    for steps in increments:
        path = np.concatenate([np.zeros((1, steps.shape[1])), steps.cumsum(0)])
        path += jitter * generator.standard_normal(path.shape)
        rows.append(lag_cosine(path, np.arange(len(path)) * EVERY, LAGS))
    return np.array(rows)


def noise(generator: np.random.Generator) -> np.ndarray:
    return generator.standard_normal((CHECKPOINTS - 1, ELEMENTS))


def test_a_constant_drift_leaves_constant_or_turning_drift_and_rejects_the_others() -> None:
    generator = np.random.default_rng(1)
    runs = [0.5 * generator.standard_normal(ELEMENTS) + noise(generator) for _ in range(RUNS)]
    found = compare(WINDOWS, cosines(runs))
    assert found["families"]["fractional"]["rejected"]
    assert found["families"]["restoring"]["rejected"]
    assert not found["families"]["constant drift"]["rejected"]
    assert "constant drift" in found["remain"]
    # d² = .25 of an interval's noise: q² = .25/20 an update
    q = found["families"]["constant drift"]["parameters"]["signal_to_noise"]
    assert q**2 == pytest.approx(0.25 / EVERY, rel=0.1)


def test_fractional_motion_is_told_from_a_drift() -> None:
    generator = np.random.default_rng(2)
    index = np.arange(CHECKPOINTS - 1)
    gap = np.abs(np.subtract.outer(index, index)).astype(float)
    hurst = 0.7
    covariance = ((gap + 1) ** (2 * hurst) - 2 * gap ** (2 * hurst) + np.abs(gap - 1) ** (2 * hurst)) / 2
    lower = np.linalg.cholesky(covariance)
    found = compare(WINDOWS, cosines([lower @ noise(generator) for _ in range(RUNS)]))
    assert "fractional" in found["remain"]
    assert "constant drift" not in found["remain"]
    assert found["families"]["fractional"]["parameters"]["hurst"] == pytest.approx(hurst, abs=0.02)


def test_jitter_in_a_bowl_is_found_restoring() -> None:
    generator = np.random.default_rng(3)
    rho, runs = 0.6, []
    for _ in range(RUNS):
        path = [generator.standard_normal(ELEMENTS)]
        for _ in range(CHECKPOINTS - 1):
            path.append(rho * path[-1] + np.sqrt(1 - rho**2) * generator.standard_normal(ELEMENTS))
        runs.append(np.diff(np.array(path), axis=0))
    found = compare(WINDOWS, cosines(runs))
    assert found["remain"] == ["restoring"] and found["verdict"] == "restoring"
    curvature = found["families"]["restoring"]["parameters"]["curvature"]
    assert curvature == pytest.approx(-np.log(rho) / EVERY, rel=0.1)


def test_a_quickly_turning_drift_rejects_the_constant_one() -> None:
    generator = np.random.default_rng(4)
    memory, runs = 0.7, []
    for _ in range(RUNS):
        drift = [generator.standard_normal(ELEMENTS)]
        for _ in range(CHECKPOINTS - 2):
            drift.append(memory * drift[-1] + np.sqrt(1 - memory**2) * generator.standard_normal(ELEMENTS))
        runs.append(np.array(drift) + 0.5 * noise(generator))
    found = compare(WINDOWS, cosines(runs))
    assert "turning drift" in found["remain"]
    assert "constant drift" not in found["remain"]


def test_runs_that_differ_much_leave_it_open_and_a_mixture_fits_none() -> None:
    generator = np.random.default_rng(5)
    walks = [noise(generator)[:, :40] for _ in range(RUNS)]
    assert compare(WINDOWS, cosines(walks))["verdict"] == NOT_IDENTIFIABLE
    mixed = [0.5 * generator.standard_normal(ELEMENTS) + noise(generator) for _ in range(RUNS)]
    found = compare(WINDOWS, cosines(mixed, jitter=1.0))
    assert found["verdict"] == NONE_FITS
    assert not found["families"]["drift and jitter"]["rejected"]


def test_the_cosine_of_drift_and_jitter_is_that_of_its_parts() -> None:
    windows = WINDOWS.astype(float)
    q = 0.1
    drift = FAMILIES["constant drift"].cosine(np.array([np.log(q)]), windows)
    assert drift_and_jitter_cosine(q**2, 0.0, windows) == pytest.approx(drift)
    # nothing but jitter: neighbouring displacements share one position, -1/2
    assert drift_and_jitter_cosine(0.0, 1e12, windows) == pytest.approx(-0.5)
