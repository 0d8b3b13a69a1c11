"""Controlled noise: reward flips of known rate, token weights of known mean and variance."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.draw import Draw
from lab.errors import BadInput
from lab.noise import RewardFlips, TokenSignNoise
from lab.settings import build

Z_BOUND = 5.0
NO_SNR = {"snr_db": None, "normalisation": "fixed_signal"}


def binomial_z(successes: float, trials: int, probability: float) -> float:
    """Observed count in standard errors from the expected one."""
    return (successes - trials * probability) / math.sqrt(trials * probability * (1 - probability))


def keys(count: int) -> list[str]:
    """Names of different problems."""
    return [f"problem {index}" for index in range(count)]


def verified_rewards(prompts: int, rollouts: int, pass_rate: float) -> np.ndarray:
    """Verified rewards with exactly the share `pass_rate` of ones in each row."""
    right = round(rollouts * pass_rate)
    return np.tile(np.arange(rollouts) < right, (prompts, 1)).astype(float)


@pytest.mark.parametrize(
    ("phi", "nu", "pass_rate"),
    [(0.2, 0.2, 0.05), (0.2, 0.2, 0.5), (0.1, 0.4, 0.3), (0.0, 0.3, 0.6), (0.3, 0.0, 0.6), (0.7, 0.8, 0.25)],
)
def test_the_noisy_pass_rate_is_p_tilde(phi: float, nu: float, pass_rate: float) -> None:
    rewards = verified_rewards(4000, 20, pass_rate)
    noisy = RewardFlips(phi, nu, "rollout").apply(rewards, keys(4000), Draw(1), step=3)
    expected = pass_rate * (1 - nu) + (1 - pass_rate) * phi
    right = rewards == 1
    variance = right.sum() * nu * (1 - nu) + (~right).sum() * phi * (1 - phi)
    assert abs(noisy.sum() - rewards.size * expected) < Z_BOUND * math.sqrt(variance)


@pytest.mark.parametrize("per", ["rollout", "prompt"])
def test_right_and_wrong_answers_flip_at_their_own_rates(per: Any) -> None:
    prompts, phi, nu = 20_000, 0.15, 0.35
    rewards = np.tile([1.0, 0.0], (prompts, 1))
    noisy = RewardFlips(phi, nu, per).apply(rewards, keys(prompts), Draw(1), step=0)
    assert abs(binomial_z((noisy[:, 0] == 0).sum(), prompts, nu)) < Z_BOUND
    assert abs(binomial_z((noisy[:, 1] == 1).sum(), prompts, phi)) < Z_BOUND


@pytest.mark.parametrize("per", ["rollout", "prompt"])
@pytest.mark.parametrize(("phi", "nu", "sign"), [(0.3, 0.3, 1), (0.7, 0.8, -1)])
def test_the_sign_of_the_signal_turns_when_the_rates_exceed_one(
    per: Any, phi: float, nu: float, sign: int
) -> None:
    rewards = verified_rewards(20_000, 2, 0.5)
    noisy = RewardFlips(phi, nu, per).apply(rewards, keys(20_000), Draw(1), step=0)
    slope = noisy[:, 0].mean() - noisy[:, 1].mean()
    assert math.copysign(1, slope) == sign
    assert slope == pytest.approx(1 - nu - phi, abs=Z_BOUND * math.sqrt(0.5 / 20_000))


def test_flips_per_prompt_stay_with_the_problem_through_the_run() -> None:
    flips = RewardFlips(0.5, 0.5, "prompt")
    names, rewards = keys(200), np.zeros((200, 1))
    first = flips.apply(rewards, names, Draw(1), step=0)
    shuffled = list(reversed(names))
    later = flips.apply(rewards, shuffled, Draw(1), step=9)
    assert np.array_equal(first, later[::-1])
    assert 0 < first.sum() < 200


def test_flips_per_prompt_treat_the_rollouts_of_a_problem_alike() -> None:
    noisy = RewardFlips(0.5, 0.5, "prompt").apply(np.zeros((200, 8)), keys(200), Draw(1), step=0)
    assert np.array_equal(noisy, np.repeat(noisy[:, :1], 8, axis=1))


def test_flips_per_prompt_differ_between_seeds() -> None:
    flips = RewardFlips(0.5, 0.5, "prompt")
    by_seed = [flips.apply(np.zeros((400, 1)), keys(400), Draw(seed), step=0) for seed in (1, 2)]
    assert abs(binomial_z((by_seed[0] == by_seed[1]).sum(), 400, 0.5)) < Z_BOUND


def test_flips_per_rollout_are_fresh_in_each_rollout_and_step() -> None:
    flips = RewardFlips(0.5, 0.5, "rollout")
    rewards, names = np.zeros((100, 200)), ["the same problem"] * 100
    first, second = (flips.apply(rewards, names, Draw(1), step=step) for step in (0, 1))
    assert abs(binomial_z((first == second).sum(), first.size, 0.5)) < Z_BOUND
    assert abs(binomial_z((first[:, 1:] == first[:, :-1]).sum(), 100 * 199, 0.5)) < Z_BOUND


@pytest.mark.parametrize("per", ["rollout", "prompt"])
@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_what_was_not_judged_stays_so(per: Any, rate: float) -> None:
    rewards = np.array([[np.nan, 1.0, 0.0], [np.nan, np.nan, np.nan]])
    noisy = RewardFlips(rate, rate, per).apply(rewards, keys(2), Draw(1), step=0)
    assert np.array_equal(np.isnan(noisy), np.isnan(rewards))


@pytest.mark.parametrize("per", ["rollout", "prompt"])
def test_certain_flips_invert_every_reward(per: Any) -> None:
    rewards = verified_rewards(50, 6, 0.5)
    assert np.array_equal(RewardFlips(1, 1, per).apply(rewards, keys(50), Draw(0), 0), 1 - rewards)


def test_no_flips_leave_the_rewards_and_the_argument_alone() -> None:
    rewards = verified_rewards(3, 4, 0.5)
    assert np.array_equal(RewardFlips(0, 0, "rollout").apply(rewards, keys(3), Draw(0), 0), rewards)
    before = rewards.copy()
    RewardFlips(0.9, 0.9, "rollout").apply(rewards, keys(3), Draw(0), 0)
    assert np.array_equal(rewards, before)


@given(st.floats(0, 1), st.floats(0, 1))
def test_rewards_stay_zero_or_one(phi: float, nu: float) -> None:
    noisy = RewardFlips(phi, nu, "rollout").apply(verified_rewards(5, 4, 0.5), keys(5), Draw(0), 0)
    assert set(np.unique(noisy)) <= {0.0, 1.0}


@pytest.mark.parametrize("field", ["false_positive", "false_negative"])
@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_a_rate_that_is_no_probability_is_refused(field: str, value: float) -> None:
    node = {"false_positive": 0.0, "false_negative": 0.0, "per": "rollout", field: value}
    with pytest.raises(BadInput, match=rf"^objective\.flips\.{field}: .*probability"):
        build(RewardFlips, node, "objective.flips")


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.5), (1.0, 2.0), (0.0, 1.0), (0.6, 0.8)])
def test_token_weights_have_mean_a_and_variance_b_squared(a: float, b: float) -> None:
    weights = TokenSignNoise(a, b).weights((4000, 13), Draw(2), step=5)
    assert np.array_equal(np.unique(weights), np.unique([a - b, a + b]))
    assert abs(weights.mean() - a) < Z_BOUND * b / math.sqrt(weights.size)
    # The variance of a two-valued variable at its empirical mean: b^2 - (mean - a)^2.
    assert weights.var() == pytest.approx(b**2, abs=Z_BOUND**2 * b**2 / weights.size)


def test_token_signs_are_fresh_in_each_step_and_token() -> None:
    noise = TokenSignNoise(0.0, 1.0)
    first, second = (noise.weights((500, 40), Draw(2), step=step) for step in (0, 1))
    size = first.size
    assert abs(binomial_z((first == second).sum(), size, 0.5)) < Z_BOUND
    assert abs(binomial_z((first[:, 1:] == first[:, :-1]).sum(), 500 * 39, 0.5)) < Z_BOUND
    assert abs(binomial_z((first[1:] == first[:-1]).sum(), 499 * 40, 0.5)) < Z_BOUND


def test_without_noise_every_token_weighs_the_signal() -> None:
    assert np.array_equal(TokenSignNoise(0.7, 0.0).weights((3, 2), Draw(0), 0), np.full((3, 2), 0.7))


@pytest.mark.parametrize("field", ["signal_amplitude", "noise_amplitude"])
def test_a_negative_amplitude_is_refused(field: str) -> None:
    node = {"signal_amplitude": 1.0, "noise_amplitude": 1.0, **NO_SNR, field: -1.0}
    with pytest.raises(BadInput, match=rf"^objective\.sign_noise\.{field}: .*negative"):
        build(TokenSignNoise, node, "objective.sign_noise")


# --- the same by a signal-to-noise ratio ------------------------------------------------------------


@pytest.mark.parametrize("decibels", [10.0, 0.0, -10.0, -20.0])
@pytest.mark.parametrize("normalisation", ["fixed_signal", "unit_power"])
def test_the_amplitudes_have_the_ratio_asked_for(
    decibels: float, normalisation: Literal["fixed_signal", "unit_power"]
) -> None:
    signal, noise = TokenSignNoise.of_snr(decibels, normalisation).amplitudes
    assert 20 * math.log10(signal / noise) == pytest.approx(decibels, abs=1e-12)
    if normalisation == "fixed_signal":
        assert signal == 1.0
    else:
        assert signal**2 + noise**2 == pytest.approx(1.0, abs=1e-15)


def test_weights_follow_the_ratio() -> None:
    weights = TokenSignNoise.of_snr(0.0, "unit_power").weights((400, 50), Draw(1), 0)
    np.testing.assert_allclose(np.unique(weights), [0.0, math.sqrt(2)], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"snr_db": 5.0, "noise_amplitude": 1.0}, r"snr_db: contradicts the amplitudes 1\.0 and 1\.0"),
        ({"snr_db": 5.0, "signal_amplitude": 0.0}, r"snr_db: contradicts"),
        ({"normalisation": "unit_power"}, r"normalisation: goes with snr_db"),
        ({"snr_db": 400.0}, r"snr_db: must lie within"),
        ({"snr_db": "loud"}, r"snr_db: expected a number"),
        ({"snr_db": 5.0, "normalisation": "peak"}, r"normalisation: unknown 'peak'"),
    ],
)
def test_a_ratio_that_contradicts_the_amplitudes_is_refused(change: dict[str, Any], words: str) -> None:
    node = {"signal_amplitude": 1.0, "noise_amplitude": 0.0, **NO_SNR, **change}
    with pytest.raises(BadInput, match=rf"^objective\.sign_noise\.{words}"):
        build(TokenSignNoise, node, "objective.sign_noise")


def test_flipping_with_given_uniforms_is_what_apply_does() -> None:
    flips, rewards = RewardFlips(0.2, 0.4, "rollout"), verified_rewards(50, 8, 0.5)
    uniforms = Draw(3).uniform("reward_flip", 7, rewards.shape)
    by_hand = np.where(uniforms < np.where(rewards == 1, 0.4, 0.2), 1 - rewards, rewards)
    assert np.array_equal(flips.flipped(rewards, uniforms), by_hand)
    assert np.array_equal(flips.apply(rewards, keys(50), Draw(3), 7), by_hand)
