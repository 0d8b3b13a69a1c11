"""Weights on checkpoints and jumps along increments are two ways to write one forecast."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.extrapolation.combination import apply_combination, combination_of_jump, jump_of_combination


@given(count=st.integers(1, 8), seed=st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_a_jump_and_its_combination_forecast_the_same(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, jump = rng.normal(size=(count, 5)), rng.normal(size=count - 1)
    combination = combination_of_jump(jump)
    assert combination.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(combination @ values, values[-1] + jump @ np.diff(values, axis=0), atol=1e-12)
    np.testing.assert_allclose(jump_of_combination(combination), jump, atol=1e-12)
    for reference in range(count):
        forecast = apply_combination(values, combination, reference)
        np.testing.assert_allclose(forecast, combination @ values, atol=1e-12)


def test_inputs_are_left_as_they_were() -> None:
    values = np.arange(6.0).reshape(3, 2)
    before = values.copy()
    apply_combination(values, np.array([-1.0, 0.5, 1.5]))
    np.testing.assert_array_equal(values, before)


def test_two_checkpoints_in_float32_round_after_each_operation() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(size=200_000).astype(np.float32)
    second = (first + 1e-3 * rng.normal(size=200_000)).astype(np.float32)
    beta = 2.7
    forecast = apply_combination(np.stack([first, second]), np.array([1 - beta, beta]), reference=0)
    assert forecast.dtype == np.float32
    np.testing.assert_array_equal(forecast, first + np.float32(beta) * (second - first))


@pytest.mark.parametrize("count", [2, 3, 9])
def test_float32_error_grows_with_the_jump_and_not_with_the_weights(count: int) -> None:
    rng = np.random.default_rng(2)
    walk = np.cumsum(1e-4 * rng.normal(size=(count, 10_000)), axis=0)
    values = (rng.normal(size=10_000) + walk).astype(np.float32)
    combination = combination_of_jump(np.full(count - 1, 50.0))
    exact = combination @ values.astype(np.float64)
    error = np.abs(apply_combination(values, combination) - exact)
    # Half a unit in the last place of the result, and of the jump of length ~50 sqrt(n) 1e-4, with room for the sum.
    assert error.max() < 1e-6
    naive = np.abs(combination.astype(np.float32) @ values - exact)
    assert error.max() < naive.max() / 2


def test_overflow_is_infinite_not_an_error() -> None:
    values = np.array([[0.0], [3e38]], dtype=np.float32)
    assert np.isinf(apply_combination(values, np.array([-2.0, 3.0]))[0])
