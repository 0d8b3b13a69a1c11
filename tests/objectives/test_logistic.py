"""Softmax regression with token sign noise: exact moments of its gradient, against autograd and against samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from lab.draw import Draw
from lab.objectives.logistic import Logistic
from lab.objectives.synthetic import SyntheticBatch

Make = Callable[..., Any]
Z_BOUND = 5.0
SMALL: dict[str, Any] = {"features": 3, "classes": 4, "examples": 60, "start_scale": 0.5}


def noise(signal: float, amplitude: float) -> dict[str, Any]:
    """Settings of the sign noise by amplitudes."""
    return {"signal_amplitude": signal, "noise_amplitude": amplitude}


def token_gradients(logistic: Logistic) -> torch.Tensor:
    """The gradient of every example's loss at the start, by autograd, float64 [example, feature, class]."""
    features, labels = logistic._train
    weights = logistic.values[0][0].double().requires_grad_()
    found = []
    for x, y in zip(features.double(), labels, strict=True):
        loss = cross_entropy((x @ weights)[None], y[None])
        found.append(torch.autograd.grad(loss, weights)[0])
    return torch.stack(found)


def sampled(logistic: Logistic, seed: int = 3) -> np.ndarray:
    """Gradients of one step, float64 [replicate, feature, class]."""
    out = torch.empty_like(logistic.values[0])
    logistic.gradients(SyntheticBatch(0, Draw(seed)), [out])
    result: np.ndarray = out.double().numpy()
    return result


def test_a_step_is_the_weighted_gradient_of_its_tokens(synthetic: Make, scripted: type) -> None:
    logistic = synthetic("logistic", **SMALL, replicates=2, tokens=3, sign_noise=noise(0.5, 2.0))
    tokens = np.array([[4, 59, 0], [7, 7, 30]])
    signs = np.array([[1, -1, 1], [-1, -1, 1]])
    given = scripted(token=(tokens + 0.5) / 60, token_sign=np.where(signs < 0, 0.2, 0.7))
    out = torch.empty_like(logistic.values[0])
    logistic.gradients(SyntheticBatch(0, given), [out])
    each = token_gradients(logistic)
    weights = torch.from_numpy(0.5 + 2.0 * signs) / 3
    expected = torch.einsum("rt,rtfc->rfc", weights, each[tokens])
    np.testing.assert_allclose(out.numpy(), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(("signal", "amplitude"), [(1.0, 0.0), (0.6, 0.8), (0.0, 1.0)])
def test_mean_and_covariance_of_a_step_are_the_exact_ones(
    synthetic: Make, signal: float, amplitude: float
) -> None:
    count, tokens = 20_000, 4
    logistic = synthetic(
        "logistic", **SMALL, replicates=count, tokens=tokens, sign_noise=noise(signal, amplitude)
    )
    each = token_gradients(logistic).flatten(1).numpy()
    mean = signal * each.mean(0)
    square = (signal**2 + amplitude**2) * each.T @ each / len(each)
    covariance = (square - np.outer(mean, mean)) / tokens
    gradient = sampled(logistic).reshape(count, -1)
    z = (gradient.mean(0) - mean) / np.sqrt(np.diag(covariance) / count)
    assert np.abs(z).max() < Z_BOUND
    error = Z_BOUND * np.sqrt(3 * np.outer(np.diag(covariance), np.diag(covariance)) / count)
    assert (np.abs(np.cov(gradient.T) - covariance) < error).all()
    found = logistic.mechanism()
    assert found["drift_square"][0, 0] == pytest.approx((mean**2).sum(), rel=1e-5, abs=1e-12)
    assert found["noise_trace"][0, 0] == pytest.approx(np.trace(covariance), rel=1e-5)
    np.testing.assert_allclose(logistic.expected_gradient(0)[0].ravel(), mean, atol=1e-7)


def test_the_twin_has_no_mean_and_the_mean_square_of_the_run(synthetic: Make) -> None:
    keys = {**SMALL, "replicates": 20_000, "tokens": 4, "sign_noise": noise(0.6, 0.8)}
    run, twin = synthetic("logistic", **keys), synthetic("logistic", **keys, pure_noise=True)
    gradient = sampled(twin).reshape(20_000, -1)
    z = gradient.mean(0) / (gradient.std(0) / math.sqrt(20_000))
    assert np.abs(z).max() < Z_BOUND
    both = [each.mechanism() for each in (run, twin)]
    assert both[1]["drift_square"].max() == 0
    total = both[0]["noise_trace"] + both[0]["drift_square"] / 4  # E|g|² of a token over their number
    np.testing.assert_allclose(both[1]["noise_trace"], total, rtol=1e-6)


@pytest.mark.parametrize("normalisation", ["fixed_signal", "unit_power"])
def test_a_ratio_in_decibels_gives_its_amplitudes(synthetic: Make, normalisation: str) -> None:
    ratio = {"snr_db": -20.0, "normalisation": normalisation}
    logistic = synthetic("logistic", **SMALL, sign_noise=ratio)
    signal, amplitude = logistic.cells[0].settings.amplitudes()
    assert amplitude / signal == pytest.approx(10)
    assert signal == pytest.approx(1.0 if normalisation == "fixed_signal" else 1 / math.sqrt(101))


def test_the_data_are_a_function_of_the_seed_and_learnable(synthetic: Make, train_synthetic: Make) -> None:
    keys = {**SMALL, "replicates": 2, "teacher_scale": 4.0, "start_scale": 0.0, "tokens": 60}
    first, again, other = (synthetic("logistic", seed=seed, **keys) for seed in (0, 0, 1))
    assert torch.equal(first._train[0], again._train[0]) and torch.equal(first._train[1], again._train[1])
    assert not torch.equal(first._train[0], other._train[0])
    assert not torch.equal(first._train[0], first._held_out[0])
    assert first.evaluate(Draw(0))["pass_rate"] == pytest.approx(np.full((1, 2), 0.25))
    assert first.mechanism()["cross_entropy"] == pytest.approx(np.full((1, 2), math.log(4)))
    train_synthetic(first, 60, learning_rate=0.5)
    assert first.evaluate(Draw(0))["pass_rate"].min() > 0.4
    assert first.mechanism()["cross_entropy"].max() < 1.0


def test_replicates_in_parts_are_those_in_one_go(synthetic: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    logistic = synthetic("logistic", **SMALL, replicates=7, tokens=5, sign_noise=noise(1.0, 1.0))
    whole, known = sampled(logistic), logistic.mechanism()
    monkeypatch.setattr("lab.objectives.logistic._ELEMENTS", 50)
    np.testing.assert_allclose(sampled(logistic), whole, rtol=0, atol=1e-7)
    for name, values in logistic.mechanism().items():
        np.testing.assert_allclose(values, known[name], rtol=1e-12)
