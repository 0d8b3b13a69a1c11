"""Placing a run: coverage, bias and limits on processes stepped update by update."""

from __future__ import annotations

import numpy as np
import pytest

from lab.linearity.placement import MINIMUM_INTERVALS, place, place_products, signal_distribution
from lab.linearity.products import increment_products


def descend(
    generator: np.random.Generator,
    signal: np.ndarray,
    curvature: float,
    rank: int,
    checkpoints: np.ndarray,
) -> np.ndarray:
    """Noisy descent update by update, [checkpoint, element]; noise shared through `rank` directions."""
    updates = int(checkpoints[-1])
    elements = len(signal)
    shrink = np.exp(-curvature / updates)
    mixing = generator.standard_normal((rank, elements))
    mixing /= np.linalg.norm(mixing, axis=0)
    noise = np.zeros((updates + 1, rank))
    for update in range(updates):
        noise[update + 1] = shrink * noise[update] + generator.standard_normal(rank)
    # variance of the noise at the end of the window, by the recursion of variances
    variance = 0.0
    for _ in range(updates):
        variance = shrink**2 * variance + 1.0
    travelled = 1.0 - shrink ** np.arange(updates + 1) if curvature else np.arange(updates + 1.0)
    path = np.outer(travelled / travelled[-1], signal) + noise @ mixing / np.sqrt(variance)
    return path[checkpoints.astype(int)]


EVEN = np.arange(0, 131, 10)
UNEVEN = np.array([0, 3, 8, 20, 30, 45, 60, 61, 80, 100, 140])


@pytest.mark.parametrize(
    ("signal", "curvature", "rank", "steps"),
    [
        (0.0, 0.0, 20, EVEN),
        (2.0, 0.0, 40, EVEN),
        (3.0, 2.0, 40, EVEN),
        (0.0, 3.0, 40, EVEN),
        (3.0, 2.0, 40, UNEVEN),
    ],
)
def test_intervals_cover_the_truth(signal: float, curvature: float, rank: int, steps: np.ndarray) -> None:
    generator = np.random.default_rng(5)
    runs = 60
    covered = np.zeros(2)
    for _ in range(runs):
        size = signal * generator.standard_normal(1500)
        size *= signal / np.sqrt((size**2).mean()) if signal else 0.0
        pooled = place_products(increment_products(descend(generator, size, curvature, rank, steps)), steps)
        assert pooled is not None
        low, high = pooled.signal_squared_interval
        covered[0] += low <= signal**2 <= high
        low, high = pooled.curvature_interval
        covered[1] += low <= curvature <= high
    # 95 % nominal; 60 runs at .95 fall below 50 with probability 5e-4
    assert (covered >= 50).all(), covered


def test_estimates_are_centred_where_the_signal_is_strong() -> None:
    generator = np.random.default_rng(6)
    found = []
    for _ in range(40):
        values = descend(generator, np.full(1000, 4.0), 3.0, 100, EVEN)
        pooled = place_products(increment_products(values), EVEN)
        assert pooled is not None
        found.append((pooled.signal_squared, pooled.curvature_horizon, pooled.noise_rank))
    signal, curvature, rank = np.mean(found, axis=0)
    assert signal == pytest.approx(16.0, rel=0.05)
    assert curvature == pytest.approx(3.0, rel=0.05)
    assert rank == pytest.approx(100.0, rel=0.2)  # a sum of 100 random directions is nearly of rank 100


@pytest.mark.parametrize("equal", [True, False])
def test_expected_r_squared_is_what_is_measured(equal: bool) -> None:
    """Equal and Gaussian S of the same pooled square give different mean R²; the mixture tells them apart."""
    generator = np.random.default_rng(7)
    elements = 4000
    size = np.full(elements, 2.0) if equal else 2.0 * generator.standard_normal(elements)
    placed = place(descend(generator, size, 0.0, elements, EVEN), EVEN)
    assert placed is not None
    assert placed.weights.sum() == pytest.approx(1.0)
    assert placed.expected_r_squared == pytest.approx(0.77 if equal else 0.66, abs=0.02)
    assert placed.measured_r_squared == pytest.approx(placed.expected_r_squared, abs=0.02)


def test_signal_distribution_finds_two_groups() -> None:
    generator = np.random.default_rng(8)
    centre = np.where(generator.random(20_000) < 0.3, 8.0, 0.0)
    sign = generator.choice([-1.0, 1.0], 20_000)
    spread = np.sqrt(generator.chisquare(12, 20_000) / 12)
    studentised = (sign * centre + generator.standard_normal(20_000)) / spread
    grid = np.array([0.0, 1.0, 2.0, 4.0, 8.0, 16.0])
    weights = signal_distribution(studentised, 12, grid)
    assert weights[4] == pytest.approx(0.3, abs=0.02)
    assert weights[:2].sum() == pytest.approx(0.7, abs=0.03)


def test_scale_of_weights_and_of_steps_does_not_matter() -> None:
    values = descend(np.random.default_rng(9), np.full(300, 2.0), 1.0, 50, EVEN)
    first = place_products(increment_products(values), EVEN)
    second = place_products(increment_products(1e-4 * values), 7.0 * EVEN + 100)
    assert first is not None and second is not None
    assert second.signal_squared == pytest.approx(first.signal_squared, rel=1e-9)
    assert second.curvature_horizon == first.curvature_horizon


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-7, 0.0])
@pytest.mark.filterwarnings("error")
def test_however_little_noise_there_is(noise: float) -> None:
    """The interval of S² = steps x drift² / noise² of each step holds the truth far beyond what training shows."""
    generator = np.random.default_rng(5)
    drift = generator.normal(size=400)
    increments = drift + noise * generator.normal(size=(13, 400))
    found = place(np.concatenate([np.zeros((1, 400)), np.cumsum(increments, axis=0)]), np.arange(14.0))
    assert found is not None
    low, high = found.pooled.signal_squared_interval
    if noise:
        assert low <= 13 * np.mean(drift**2) / noise**2 <= high
    else:  # only the rounding of the values is left
        assert low > 1e15
    assert found.pooled.curvature_horizon == 0


def test_undefined_where_there_is_too_little() -> None:
    steps = np.arange(MINIMUM_INTERVALS)
    assert place(np.random.default_rng(0).standard_normal((MINIMUM_INTERVALS, 5)), steps) is None
    assert place(np.ones((10, 5)), np.arange(10)) is None
