"""The noisy quadratic in the module against the exact process: a discrete Ornstein-Uhlenbeck process."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lab.draw import Draw
from lab.objectives.quadratic import Quadratic, rows_of_a_block
from lab.objectives.quadratic_settings import Spectrum
from lab.objectives.synthetic import BLOCK, SyntheticBatch
from lab.settings import Invalid
from theory import curved_bowl

Make = Callable[..., Any]
Z_BOUND = 5.0


def gradient(quadratic: Quadratic, step: int = 0, seed: int = 1) -> list[np.ndarray]:
    """The gradient of each cell, float64 [replicate, coordinate]."""
    out = [torch.empty_like(value) for value in quadratic.values]
    quadratic.gradients(SyntheticBatch(step, Draw(seed)), out)
    return [each.double().numpy() for each in out]


def z_of_mean(samples: np.ndarray, expected: np.ndarray | float) -> np.ndarray:
    """Standard errors between the mean over replicates and what it should be."""
    result: np.ndarray = (samples.mean(0) - expected) / (samples.std(0, ddof=1) / math.sqrt(len(samples)))
    return result


def test_sgd_on_a_quadratic_is_the_process_of_theory(synthetic: Make, train_synthetic: Make) -> None:
    """Means, variances and covariances of the whole path, for curvatures from flat to oscillating."""
    rate, sigma, count = 0.1, 0.5, 4000
    curvature = (0.0, 0.5, 4.0, 15.0)
    quadratic = synthetic(
        "quadratic", replicates=count, coordinates=4, spectrum=curvature, start=1.5, optimum=0.5, noise=sigma
    )
    path = train_synthetic(quadratic, 12, learning_rate=rate)[0].astype(np.float64) - 0.5
    for index, h in enumerate(curvature):
        rho = 1 - rate * h
        for step in (1, 4, 12):
            mean = curved_bowl.path_mean(step, rho, 1.0)
            variance = float(curved_bowl.point_covariance(step, step, rho, rate * sigma))
            assert abs(path[step, :, index].mean() - mean) < Z_BOUND * math.sqrt(variance / count)
            assert path[step, :, index].var(ddof=1) == pytest.approx(
                variance, rel=Z_BOUND * math.sqrt(2 / count)
            )
        covariance = np.cov(path[4, :, index], path[12, :, index])[0, 1]
        expected = float(curved_bowl.point_covariance(4, 12, rho, rate * sigma))
        spread = math.sqrt(path[4, :, index].var() * path[12, :, index].var() / count)
        assert abs(covariance - expected) < Z_BOUND * math.sqrt(2) * spread


def test_without_noise_the_gradient_is_the_formula_to_rounding(synthetic: Make) -> None:
    optimum, slope, start = (0.5, -1.0, 2.0), (0.0, 0.3, -0.7), (1.0, 2.0, 3.0)
    quadratic = synthetic(
        "quadratic",
        replicates=5,
        coordinates=3,
        spectrum=(0.0, 2.0, 7.0),
        optimum=optimum,
        slope=slope,
        start=start,
        noise=0,
    )
    expected = np.array([0.0, 2.0, 7.0]) * (np.array(start) - optimum) + slope
    np.testing.assert_allclose(gradient(quadratic)[0], np.tile(expected, (5, 1)), rtol=1e-6)
    loss = 0.5 * np.array([0.0, 2.0, 7.0]) @ (np.array(start) - optimum) ** 2 + np.array(start) @ slope
    np.testing.assert_allclose(quadratic.mechanism()["loss"], np.full((1, 5), loss), rtol=1e-6)


@pytest.mark.parametrize("coordinates", [1, 3, 16, 64, 70])
@pytest.mark.parametrize("signal", [{"optimum": 0.25, "slope": -0.5}, {"optimum": 0.0, "slope": 0.0}])
def test_the_gradient_is_signal_plus_noise_whatever_the_shape(
    synthetic: Make, coordinates: int, signal: dict[str, float]
) -> None:
    """Curved less flat, at the same random numbers, is the signal: through all ways in which blocks are laid out."""
    spectrum = tuple(np.linspace(0.5, 3, coordinates))
    keys: dict[str, Any] = {"replicates": 5000, "coordinates": coordinates, "noise": 0.7, "start": 2.0}
    curved = gradient(synthetic("quadratic", **keys, spectrum=spectrum, **signal))[0]
    flat = gradient(synthetic("quadratic", **keys, spectrum=(0.0,) * coordinates))[0]
    expected = np.array(spectrum) * (2.0 - signal["optimum"]) + signal["slope"]
    np.testing.assert_allclose(curved - flat, np.tile(expected, (5000, 1)), atol=2e-6)
    assert flat.std() == pytest.approx(0.7, rel=Z_BOUND / math.sqrt(2 * flat.size))
    each = np.sqrt(np.square(flat).mean(1)) if coordinates > 1 else np.abs(flat[:, 0])
    assert len(np.unique(each)) == len(each)


def test_noise_of_each_coordinate_and_of_a_batch(synthetic: Make) -> None:
    quadratic = synthetic(
        "quadratic",
        replicates=40_000,
        coordinates=3,
        spectrum=(0.0,) * 3,
        noise=(0.0, 1.0, 2.0),
        batch_size=4,
    )
    noise = gradient(quadratic)[0]
    assert not noise[:, 0].any()
    np.testing.assert_allclose(noise[:, 1:].std(0), [0.5, 1.0], rtol=Z_BOUND / math.sqrt(80_000))
    assert abs(np.corrcoef(noise[:, 1:].T)[0, 1]) < Z_BOUND / math.sqrt(40_000)


@pytest.mark.parametrize("rank", [1, 2, 6])
def test_noise_of_low_rank_has_that_rank_and_the_standard_deviations_asked_for(
    synthetic: Make, rank: int
) -> None:
    sigma = np.array([0.1, 0.2, 0.5, 1.0, 2.0, 3.0])
    quadratic = synthetic(
        "quadratic",
        replicates=30_000,
        coordinates=6,
        spectrum=(0.0,) * 6,
        noise=tuple(sigma),
        noise_rank=rank,
    )
    noise = gradient(quadratic)[0]
    np.testing.assert_allclose(noise.std(0), sigma, rtol=Z_BOUND / math.sqrt(60_000))
    singular = np.linalg.svd(noise / sigma, compute_uv=False)
    assert (singular[:rank] > 10).all() and (singular[rank:] < 1e-2).all()
    assert (np.abs(z_of_mean(noise, 0.0)) < Z_BOUND).all()


def test_the_twin_keeps_the_noise_and_nothing_else(synthetic: Make) -> None:
    keys: dict[str, Any] = {"replicates": 50, "coordinates": 4, "slope": 0.3, "noise": 0.2}
    run = synthetic("quadratic", **keys)
    twin, flat = (
        synthetic("quadratic", **changes)
        for changes in (keys | {"pure_noise": True}, keys | {"slope": 0.0, "spectrum": (0.0,) * 4})
    )
    assert np.array_equal(gradient(twin)[0], gradient(flat)[0])
    assert (gradient(run)[0] - gradient(twin)[0]).min() > 1


def test_spectra() -> None:
    assert Spectrum("constant", 2.0, None, None).curvatures(3).tolist() == [2.0, 2.0, 2.0]
    np.testing.assert_allclose(Spectrum("power_law", 6.0, None, 1.0).curvatures(3), [6, 3, 2])
    np.testing.assert_allclose(Spectrum("log_uniform", 1.0, 0.01, None).curvatures(3), [1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("name", "largest", "smallest", "exponent", "field"),
    [
        ("constant", -1.0, None, None, "largest"),
        ("constant", 1.0, 0.5, None, "smallest"),
        ("power_law", 1.0, None, None, "exponent"),
        ("log_uniform", 1.0, None, None, "smallest"),
        ("log_uniform", 1.0, 2.0, None, "smallest"),
        ("log_uniform", 1.0, 0.0, None, "smallest"),
        ("log_uniform", 1.0, 0.1, 1.0, "exponent"),
    ],
)
def test_a_spectrum_that_is_none_is_refused(
    name: Any, largest: float, smallest: float | None, exponent: float | None, field: str
) -> None:
    with pytest.raises(Invalid, match=rf"^{field}: "):
        Spectrum(name, largest, smallest, exponent)


@pytest.mark.parametrize("coordinates", [1, 3, 7, 16, 48, 1000, 65_536, 100_000])
def test_blocks_are_whole_multiples_of_what_is_drawn_together(coordinates: int) -> None:
    rows = rows_of_a_block(coordinates)
    assert rows >= 1 and (rows * coordinates <= BLOCK or rows == 1)
    assert coordinates > BLOCK // 16 or rows * coordinates % 16 == 0
