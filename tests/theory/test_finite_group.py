import itertools

import numpy as np
import pytest

from lab.objectives.advantages import group_advantages
from theory.finite_group import (
    PREDICTION,
    batch_std_coefficient,
    batch_std_coefficient_large_batch,
    batch_std_coefficients,
    group_coefficient,
    std_factor,
    std_factor_large_group,
    zero_signal_share,
)
from theory.prediction import InvalidArgument


def enumerated(pass_rates, rollouts, scaling, epsilon):
    """Coefficient of each prompt, over every outcome of a batch, from the advantages that the lab computes."""
    rates = np.repeat(pass_rates, rollouts)
    total = np.zeros(len(pass_rates))
    for bits in itertools.product((0.0, 1.0), repeat=len(rates)):
        rewards = np.array(bits)
        chance = np.prod(np.where(rewards == 1, rates, 1 - rates))
        rewards = rewards.reshape(len(pass_rates), rollouts)
        advantages = group_advantages(rewards, scaling, epsilon)
        total += chance * (advantages * rewards).mean(1)  # v_R = 1, v_W = 0
    return total


@pytest.mark.parametrize("scaling", ["std", "unbiased_std", "none"])
@pytest.mark.parametrize("rollouts", [2, 3, 6])
@pytest.mark.parametrize("pass_rate", [0.0, 0.07, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("epsilon", [0.0, 1e-4, 0.3])
def test_coefficient_by_enumeration(scaling, rollouts, pass_rate, epsilon):
    expected = enumerated([pass_rate], rollouts, scaling, epsilon)[0]
    assert group_coefficient(pass_rate, rollouts, scaling, epsilon) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 0.05])
@pytest.mark.parametrize(
    "rates", [[0.5], [0.2, 0.9], [0.1, 0.5, 0.5], [0.0, 1.0, 0.4], [0.0, 0.0], [1.0, 0.0]]
)
def test_batch_coefficients_by_enumeration(rates, epsilon):
    expected = enumerated(rates, 3, "batch", epsilon)
    np.testing.assert_allclose(batch_std_coefficients(rates, 3, epsilon), expected, atol=1e-12)


def test_batch_of_equal_others_is_the_general_batch():
    general = batch_std_coefficients([0.3, 0.8, 0.8, 0.8], 8, 1e-3)
    assert batch_std_coefficient(0.3, 0.8, 4, 8, 1e-3) == pytest.approx(general[0], rel=1e-11)
    assert batch_std_coefficient(0.3, 0.8, 1, 8, 1e-3) == pytest.approx(
        float(group_coefficient(0.3, 8, "std", 1e-3)), rel=1e-12
    )


@pytest.mark.parametrize("point", PREDICTION.law("std_factor_large_group").points, ids=str)
def test_large_group_series_keeps_its_tolerance(point):
    error = std_factor_large_group(**point.parameters) - std_factor(**point.parameters)
    assert abs(error) <= point.tolerance


def test_large_group_error_falls_as_the_third_power():
    errors = [abs(std_factor_large_group(0.3, g) - std_factor(0.3, g)) for g in (64, 128)]
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.25)
    first_order = [abs(1 - 1 / (8 * g * 0.21) - std_factor(0.3, g)) for g in (64, 128)]
    assert first_order[0] / first_order[1] == pytest.approx(4, rel=0.25)


def test_series_breaks_where_few_groups_have_signal():
    assert std_factor_large_group(0.001, 8) < -100
    assert 0 < std_factor(0.001, 8) < 0.1
    assert std_factor_large_group(0.0, 8) == -np.inf


@pytest.mark.parametrize("point", PREDICTION.law("batch_std_coefficient_large_batch").points, ids=str)
def test_large_batch_keeps_its_tolerance(point):
    given = dict(point.parameters)
    exact = batch_std_coefficient(other_pass_rate=given["pass_rate"], **given)
    assert abs(batch_std_coefficient_large_batch(**given) - exact) <= point.tolerance


def test_large_batch_error_falls_as_the_square():
    errors = [
        abs(batch_std_coefficient_large_batch(0.2, b, 8) - batch_std_coefficient(0.2, 0.2, b, 8))
        for b in (16, 32)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize(("pass_rate", "rollouts"), [(0.5, 16), (0.05, 64), (0.9, 128)])
def test_factor_and_zero_signal_by_simulation(pass_rate, rollouts):
    draws = 400_000
    right = np.random.default_rng(rollouts).binomial(rollouts, pass_rate, draws)
    spread = np.sqrt(right / rollouts * (1 - right / rollouts)) / np.sqrt(pass_rate * (1 - pass_rate))
    assert abs(spread.mean() - std_factor(pass_rate, rollouts)) < 4 * spread.std() / np.sqrt(draws)
    silent = ((right == 0) | (right == rollouts)).mean()
    share = zero_signal_share(pass_rate, rollouts)
    assert abs(silent - share) <= 4 * np.sqrt(share * (1 - share) / draws) + 1e-12


def test_limits():
    np.testing.assert_array_equal(std_factor([0.0, 1.0], 16), 0.0)
    np.testing.assert_array_equal(zero_signal_share([0.0, 1.0], [2, 16]), 1.0)
    assert std_factor(1e-8, 16) == pytest.approx(np.sqrt(1e-8 * 15), rel=1e-4)
    assert std_factor(0.3, 2) == pytest.approx(np.sqrt(0.21), rel=1e-12)
    assert batch_std_coefficient_large_batch(0.0, 4, 4) == 0
    # unbiased and population scale differ by a factor alone, when nothing is added
    ratio = group_coefficient(0.3, 8, "unbiased_std") / group_coefficient(0.3, 8, "std")
    assert ratio == pytest.approx(np.sqrt(7 / 8), rel=1e-12)


def test_broadcasts():
    rates, groups = np.linspace(0, 1, 5)[:, None], np.array([2, 4, 32])
    table = std_factor(rates, groups)
    assert table.shape == (5, 3)
    assert table[1, 2] == std_factor(0.25, 32)
    assert batch_std_coefficient(rates, 0.5, 2, groups).shape == (5, 3)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: std_factor(1.1, 4), "pass_rate"),
        (lambda: std_factor(np.nan, 4), "pass_rate"),
        (lambda: std_factor("half", 4), "pass_rate"),
        (lambda: std_factor(0.5, 1), "rollouts"),
        (lambda: std_factor(0.5, 2.5), "rollouts"),
        (lambda: std_factor(np.full(1000, 0.5), 10**6), "rollouts"),
        (lambda: group_coefficient(0.5, 4, "std", -1.0), "epsilon"),
        (lambda: group_coefficient(0.5, 4, "variance"), "scaling"),
        (lambda: batch_std_coefficient(0.5, 0.5, 0, 4), "prompts"),
        (lambda: batch_std_coefficient(0.5, 2.0, 1, 4), "other_pass_rate"),
        (lambda: batch_std_coefficient(0.5, 0.5, 10**6, 64), "prompts"),
        (lambda: batch_std_coefficients([], 4), "pass_rates"),
        (lambda: batch_std_coefficients([[0.5]], 4), "pass_rates"),
        (lambda: batch_std_coefficients(np.full(1000, 0.5), 16), "pass_rates"),
        (lambda: zero_signal_share(-0.1, 4), "pass_rate"),
    ],
)
def test_refuses_and_names_the_argument(call, argument):
    with pytest.raises(InvalidArgument) as caught:
        call()
    assert caught.value.argument == argument
