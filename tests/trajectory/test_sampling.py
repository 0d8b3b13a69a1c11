"""Which coordinates are followed, and the random projections of whole gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lab.trajectory.sampling import random_signs, sample_coordinates, spread_coordinates
from lab.trajectory.update_probe import UpdateProbe

SIZES = {"a.weight": 700, "b.weight": 41, "c.bias": 3}


def test_the_same_seed_and_name_choose_the_same_coordinates() -> None:
    first = sample_coordinates(3, "layer.weight", 10_000, 0.01, 50)
    assert np.array_equal(first, sample_coordinates(3, "layer.weight", 10_000, 0.01, 50))
    assert first[:3].tolist() == [33, 77, 109]  # for ever: stores of old runs are compared with new ones


@pytest.mark.parametrize(("seed", "name"), [(4, "layer.weight"), (3, "layer.bias")])
def test_another_seed_or_name_chooses_others(seed: int, name: str) -> None:
    first = sample_coordinates(3, "layer.weight", 10_000, 0.01, 50)
    assert len(np.intersect1d(first, sample_coordinates(seed, name, 10_000, 0.01, 50))) < 20


def test_coordinates_are_sorted_and_differ() -> None:
    chosen = sample_coordinates(0, "layer.weight", 1000, 0.5, 1)
    assert len(chosen) == 500 and (np.diff(chosen) > 0).all() and chosen[0] >= 0 and chosen[-1] < 1000


@pytest.mark.parametrize(
    ("size", "fraction", "minimum", "count"),
    [
        (100, 0.01, 200, 100),
        (200, 0.01, 200, 200),
        (201, 0.01, 200, 200),
        (10**5, 0.01, 200, 1000),
        (7, 1.0, 1, 7),
    ],
)
def test_so_many_are_followed(size: int, fraction: float, minimum: int, count: int) -> None:
    chosen = sample_coordinates(0, "layer.weight", size, fraction, minimum)
    assert len(chosen) == count and len(set(chosen.tolist())) == count


def test_every_coordinate_is_as_likely_as_any_other() -> None:
    counts = np.zeros(20)
    for seed in range(2000):
        counts[sample_coordinates(seed, "layer.weight", 20, 0.25, 1)] += 1
    assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_signs_are_fair_and_depend_on_seed_and_name() -> None:
    signs = random_signs(0, "layer.weight", 10_000)
    assert set(np.unique(signs)) == {-1, 1} and abs(int(signs.sum())) < 500
    for other in (random_signs(1, "layer.weight", 10_000), random_signs(0, "layer.bias", 10_000)):
        assert abs(int((signs * other).sum())) < 500


def test_spread_coordinates_are_of_all_tensors_together() -> None:
    chosen = spread_coordinates(0, SIZES, 200)
    assert sum(len(indices) for indices in chosen.values()) == 200
    assert all(indices.min() >= 0 and indices.max() < SIZES[name] for name, indices in chosen.items())
    assert all((np.diff(indices) > 0).all() for indices in chosen.values())
    assert len(chosen["a.weight"]) > 150


def test_no_more_coordinates_are_spread_than_there_are() -> None:
    chosen = spread_coordinates(0, SIZES, 10**6)
    assert {name: len(indices) for name, indices in chosen.items()} == SIZES
    assert spread_coordinates(0, SIZES, 0) == {}


# --- projections -------------------------------------------------------------------------------------


def parameters() -> dict[str, nn.Parameter]:
    """Parameters at zero."""
    return {name: nn.Parameter(torch.zeros(size)) for name, size in SIZES.items()}


def project(gradient: dict[str, torch.Tensor], seed: int, projections: int = 16) -> np.ndarray:
    """The projection that the probe keeps of a gradient."""
    weights = parameters()
    for name, weight in weights.items():
        weight.grad = gradient[name].clone()
    probe = UpdateProbe(weights, seed, 10, projections)
    probe.before()
    return probe.after()["gradient_projection"].astype(np.float64)


def gradients(seed: int) -> dict[str, torch.Tensor]:
    """A gradient of uneven size."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(size, generator=generator) * size for name, size in SIZES.items()}


def test_the_squared_norm_of_the_projection_is_right_on_average() -> None:
    gradient = gradients(0)
    norm = sum(float((part**2).sum()) for part in gradient.values())
    ratios = np.array([(project(gradient, seed) ** 2).sum() / norm for seed in range(300)])
    assert abs(ratios.mean() - 1) < 5 * ratios.std() / np.sqrt(300)
    assert ratios.std() / np.sqrt(300) < 0.03


def test_the_projection_is_linear() -> None:
    first, second = gradients(1), gradients(2)
    both = {name: 2 * first[name] - 3 * second[name] for name in SIZES}
    expected = 2 * project(first, 0) - 3 * project(second, 0)
    np.testing.assert_allclose(project(both, 0), expected, rtol=1e-4, atol=1e-2)


def test_more_projections_than_elements_lose_nothing() -> None:
    single = {name: torch.zeros(size) for name, size in SIZES.items()}
    single["c.bias"] = torch.tensor([3.0, -4.0, 0.0])
    assert np.abs(project(single, 0, projections=1000)).tolist()[:4] == [3.0, 4.0, 0.0, 0.0]


def test_gradient_and_movement_are_projected_alike() -> None:
    weights, gradient = parameters(), gradients(3)
    for name, weight in weights.items():
        weight.grad = gradient[name].clone()
    probe = UpdateProbe(weights, 0, 50, 16)
    probe.before()
    with torch.no_grad():
        for name, weight in weights.items():
            weight.sub_(0.5 * gradient[name])
    row = probe.after()
    assert row["gradient"].shape == (50,) and row["gradient_projection"].shape == (16,)
    np.testing.assert_allclose(row["applied"], -0.5 * row["gradient"], rtol=1e-6)
    np.testing.assert_allclose(
        row["applied_projection"], -0.5 * row["gradient_projection"], rtol=1e-4, atol=0.1
    )


def test_nothing_is_projected_where_none_is_asked_for() -> None:
    weights = parameters()
    for weight in weights.values():
        weight.grad = torch.ones_like(weight)
    probe = UpdateProbe(weights, 0, 0, 0)
    probe.before()
    row = probe.after()
    assert set(row) == {"gradient", "applied"} and row["gradient"].shape == (0,)
