"""Schedules, the torch optimisers that settings build, and the momentum-free position."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.errors import BadInput
from lab.optimizers import OptimizerSettings, ScheduleSettings, build_optimizer_settings

SCHEDULE: dict[str, Any] = {"name": "constant", "warmup_updates": 0, "final_share": 0.0}
COMMON: dict[str, Any] = {"learning_rate": 0.01, "weight_decay": 0.0, "clip_norm": None, "schedule": SCHEDULE}
ADAMW: dict[str, Any] = {"name": "adamw", **COMMON, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
SGD: dict[str, Any] = {"name": "sgd", **COMMON, "heavy_ball": 0.9}


def shares(name: Any, warmup: int, final: float, total: int) -> list[float]:
    """The factor of every update of a run."""
    schedule = ScheduleSettings(name, warmup, final)
    return [schedule.share(update, total) for update in range(total)]


def test_a_constant_rate_is_constant() -> None:
    assert shares("constant", 0, 0.0, 5) == [1.0] * 5


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_the_rate_rises_linearly_to_its_peak(name: str) -> None:
    rising = shares(name, 4, 0.0, 20)[:5]
    assert rising == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_a_linear_decay_falls_by_equal_amounts() -> None:
    assert shares("linear", 0, 0.0, 5) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert shares("linear", 1, 0.2, 5) == pytest.approx([1.0, 1.0, 0.8, 0.6, 0.4])


def test_a_cosine_decay_is_half_way_in_the_middle() -> None:
    values = shares("cosine", 0, 0.2, 6)
    assert values[0] == 1.0 and values[3] == pytest.approx(0.6)
    assert values[2] == pytest.approx(0.2 + 0.8 * 0.75)  # cos(60 degrees) = 1/2
    assert values[1] - values[2] == pytest.approx(values[4] - values[5])


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_decay_never_falls_below_its_final_share(name: Any) -> None:
    schedule = ScheduleSettings(name, 3, 0.1)
    assert all(schedule.share(update, 10) >= 0.1 for update in range(30))
    assert schedule.share(10, 10) == schedule.share(29, 10) == pytest.approx(0.1)


def test_a_warmup_as_long_as_the_run_ends_at_the_peak() -> None:
    assert shares("cosine", 5, 0.0, 5)[-1] == 1.0


def two_parameters() -> list[nn.Parameter]:
    """A matrix and a vector."""
    return [nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3)), nn.Parameter(torch.tensor([0.5, -2.0]))]


def gradients(update: int) -> list[Tensor]:
    """Some gradients of the two parameters."""
    return [torch.sin(torch.arange(6.0) + update).reshape(2, 3), torch.tensor([0.1 * update, -1.0])]


def trained(settings: OptimizerSettings, updates: int) -> list[nn.Parameter]:
    """Parameters after some updates of the built optimiser."""
    parameters = two_parameters()
    optimizer = settings.build(parameters)
    for update in range(updates):
        for parameter, gradient in zip(parameters, gradients(update), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return parameters


def test_adamw_settings_build_adamw() -> None:
    node = {**ADAMW, "learning_rate": 0.03, "weight_decay": 0.2, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}
    actual = trained(build_optimizer_settings(node), 7)
    for index, value in enumerate(two_parameters()):
        weights = value.detach().double()
        first, second = torch.zeros_like(weights), torch.zeros_like(weights)
        for update in range(7):
            gradient = gradients(update)[index].double()
            first, second = 0.8 * first + 0.2 * gradient, 0.95 * second + 0.05 * gradient**2
            corrected = (first / (1 - 0.8 ** (update + 1)), second / (1 - 0.95 ** (update + 1)))
            weights = weights * (1 - 0.03 * 0.2) - 0.03 * corrected[0] / (corrected[1].sqrt() + 1e-3)
        torch.testing.assert_close(actual[index].detach().double(), weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heavy_ball", [0.0, 0.7])
def test_sgd_settings_build_heavy_ball_descent(heavy_ball: float) -> None:
    node = {**SGD, "learning_rate": 0.03, "weight_decay": 0.2, "heavy_ball": heavy_ball}
    actual = trained(build_optimizer_settings(node), 7)
    for index, value in enumerate(two_parameters()):
        weights = value.detach().double()
        buffer = torch.zeros_like(weights)
        for update in range(7):
            buffer = heavy_ball * buffer + gradients(update)[index].double() + 0.2 * weights
            weights = weights - 0.03 * buffer
        torch.testing.assert_close(actual[index].detach().double(), weights, rtol=1e-5, atol=1e-6)


def path(settings: OptimizerSettings, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Positions w and momentum-free positions z after each update, driven by `noise` [update, coordinate]."""
    weights = nn.Parameter(torch.zeros(noise.shape[1], dtype=noise.dtype))
    optimizer = settings.build([weights])
    positions, free = [], []
    for update, gradient in enumerate(noise, start=1):
        weights.grad = gradient
        optimizer.step()
        moments = settings.moments(optimizer.state[weights])
        assert set(moments) == set(settings.moment_names)
        positions.append(weights.detach().clone())
        displacement = settings.momentum_displacement(moments, settings.learning_rate, update)
        free.append(weights.detach() + displacement)
    return torch.stack(positions), torch.stack(free)


def test_heavy_ball_moves_the_momentum_free_position_by_the_bare_gradient() -> None:
    """z(t+1) - z(t) = -lr / (1 - mu) g(t), exactly, from the first update on."""
    noise = torch.randn(50, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, free = path(build_optimizer_settings(SGD), noise)
    increments = torch.diff(free, dim=0, prepend=torch.zeros_like(free[:1]))
    torch.testing.assert_close(increments, -0.01 / (1 - 0.9) * noise, rtol=0, atol=1e-14)


@pytest.mark.parametrize("node", [SGD, {**ADAMW, "beta2": 0.0, "epsilon": 0.0}], ids=["sgd", "adam"])
def test_the_displacement_is_what_the_momentum_still_adds_when_the_gradient_stops(node: Any) -> None:
    """For SGD exactly; Adam is made linear by a gradient of constant size, long after its bias has gone."""
    settings = build_optimizer_settings(node)
    weights = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = settings.build([weights])
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    for _ in range(400):
        weights.grad = signs.clone()
        optimizer.step()
    moments = {name: value.clone() for name, value in settings.moments(optimizer.state[weights]).items()}
    predicted = settings.momentum_displacement(moments, settings.learning_rate, 400)
    if node is SGD:
        before = weights.detach().clone()
        for _ in range(400):
            weights.grad = torch.zeros_like(weights)
            optimizer.step()
        torch.testing.assert_close(weights.detach() - before, predicted, rtol=1e-12, atol=0)
    else:
        # m is the sign and v is one: sum of 0.9^k over k >= 1 is 9 updates of size lr.
        torch.testing.assert_close(predicted, -0.01 * 9 * signs, rtol=1e-12, atol=0)


def lag_correlation(positions: Tensor, spacing: int) -> float:
    """Cosine of successive displacements between checkpoints `spacing` updates apart, pooled."""
    steps = torch.diff(positions[::spacing].double(), dim=0)
    return float((steps[1:] * steps[:-1]).sum() / (steps[1:].norm() * steps[:-1].norm()))


def momentum_correlation(beta: float, spacing: int) -> float:
    """The same of sums of an AR(1) process of autocorrelation beta^|lag|, by direct double sums."""
    window = range(spacing)
    same = sum(beta ** abs(i - j) for i in window for j in window)
    next_ = sum(beta ** abs(spacing + i - j) for i in window for j in window)
    return next_ / same


@pytest.mark.parametrize(("spacing", "published"), [(10, 0.53), (30, 0.21), (100, 0.05)])
def test_the_momentum_fake_has_the_published_size(spacing: int, published: float) -> None:
    assert momentum_correlation(0.9, spacing) == pytest.approx(published, abs=0.006)


@pytest.fixture(scope="module", params=["adamw", "sgd"])
def noise_path(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """Pure noise through an optimiser: w and z, after a burn-in."""
    noise = torch.randn(3000, 1000, generator=torch.Generator().manual_seed(1))
    positions, free = path(build_optimizer_settings(ADAMW if request.param == "adamw" else SGD), noise)
    return positions[1000:], free[1000:]


@pytest.mark.parametrize("spacing", [10, 30])
def test_pure_noise_looks_persistent_in_the_weights(noise_path: tuple[Tensor, Tensor], spacing: int) -> None:
    pairs = 1000 * (2000 // spacing - 2)
    measured = lag_correlation(noise_path[0], spacing)
    assert measured == pytest.approx(momentum_correlation(0.9, spacing), abs=5 / math.sqrt(pairs))


@pytest.mark.parametrize("spacing", [10, 30])
def test_pure_noise_is_not_persistent_in_the_momentum_free_position(
    noise_path: tuple[Tensor, Tensor], spacing: int
) -> None:
    pairs = 1000 * (2000 // spacing - 2)
    assert abs(lag_correlation(noise_path[1], spacing)) < 5 / math.sqrt(pairs)


def test_momentum_displacement_takes_numpy_arrays_as_well() -> None:
    settings = build_optimizer_settings(ADAMW)
    moments = {"first_moment": np.array([0.1, -0.2]), "second_moment": np.array([0.04, 0.01])}
    expected = [-0.01 * 9 * 0.1 / 0.2, 0.01 * 9 * 0.2 / 0.1]
    np.testing.assert_allclose(settings.momentum_displacement(moments, 0.01, 10**6), expected, rtol=1e-6)


def test_the_momentum_is_named_for_each_optimiser() -> None:
    assert build_optimizer_settings(ADAMW).momentum == 0.9
    assert build_optimizer_settings(SGD).momentum == 0.9
    none = build_optimizer_settings({**SGD, "heavy_ball": 0.0})
    assert none.momentum == 0 and none.moment_names == () and none.moments({"momentum_buffer": None}) == {}


@pytest.mark.parametrize(
    ("node", "changes", "message"),
    [
        (ADAMW, {"learning_rate": -1e-4}, r"optimizer\.learning_rate: must not be negative"),
        (ADAMW, {"learning_rate": math.nan}, r"optimizer\.learning_rate: expected a finite number"),
        (ADAMW, {"weight_decay": -0.1}, r"optimizer\.weight_decay: must not be negative"),
        (ADAMW, {"clip_norm": 0.0}, r"optimizer\.clip_norm: must be positive, or null"),
        (ADAMW, {"beta1": 1.0}, r"optimizer\.beta1: must lie in \[0, 1\)"),
        (ADAMW, {"beta2": -0.1}, r"optimizer\.beta2: must lie in \[0, 1\)"),
        (ADAMW, {"epsilon": -1.0}, r"optimizer\.epsilon: must not be negative"),
        (ADAMW, {"heavy_ball": 0.9}, r"optimizer\.heavy_ball: no code reads"),
        (SGD, {"heavy_ball": 1.0}, r"optimizer\.heavy_ball: must lie in \[0, 1\)"),
        (SGD, {"name": "adam"}, r"optimizer\.name: unknown 'adam'; did you mean 'adamw'"),
        (SGD, {"schedule": {**SCHEDULE, "name": "step"}}, r"optimizer\.schedule\.name: unknown 'step'"),
        (
            SGD,
            {"schedule": {**SCHEDULE, "warmup_updates": -1}},
            r"optimizer\.schedule\.warmup_updates: must not be negative",
        ),
        (
            SGD,
            {"schedule": {**SCHEDULE, "final_share": 1.5}},
            r"optimizer\.schedule\.final_share: must lie in \[0, 1\]",
        ),
    ],
)
def test_an_impossible_setting_is_refused_by_its_full_key(
    node: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        build_optimizer_settings({**node, **changes})
