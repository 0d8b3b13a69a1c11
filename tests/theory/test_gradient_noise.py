import itertools

import numpy as np
import pytest

from theory.gradient_noise import (
    PREDICTION,
    batch_correlation,
    batch_variance,
    noise_scale,
    noise_trace,
    noise_trace_estimate,
    signal_power_estimate,
    signal_ratio_squared,
    squared_norm,
    two_kinds_trace,
    window_variance,
    window_variance_with_replacement,
    within_trace,
    within_trace_large_group,
    within_trace_none,
)
from theory.prediction import InvalidArgument


def advantages(rewards, scaling, epsilon):
    """Along the last axis."""
    centred = rewards - rewards.mean(-1, keepdims=True)
    if scaling == "none":
        return centred
    spread = rewards.std(-1, ddof=1 if scaling == "unbiased_std" else 0, keepdims=True)
    return np.where(spread > 0, centred / np.where(spread > 0, spread + epsilon, 1.0), 0.0)


def enumerated_variance(pass_rate, rollouts, gap, right_trace, wrong_trace, scaling, epsilon):
    """One dimension, tabular: scores take two values for each truth; every group is enumerated."""
    cells = [
        (right, offset + sign * np.sqrt(trace), chance / 2)
        for right, offset, trace, chance in (
            (1.0, 0.7 + gap, right_trace, pass_rate),
            (0.0, 0.7, wrong_trace, 1 - pass_rate),
        )
        for sign in (1, -1)
    ]
    groups = np.array(list(itertools.product(cells, repeat=rollouts)))
    rewards, scores, chance = groups[..., 0], groups[..., 1], groups[..., 2].prod(-1)
    gradient = (advantages(rewards, scaling, epsilon) * scores).mean(-1)
    return chance @ gradient**2 - (chance @ gradient) ** 2


@pytest.mark.parametrize("scaling", ["std", "unbiased_std", "none"])
@pytest.mark.parametrize("rollouts", [2, 3, 5])
@pytest.mark.parametrize(
    ("p", "gap", "right", "wrong"),
    [(0.5, 1.0, 0.0, 0.0), (0.1, 2.0, 1.0, 0.3), (0.8, 0.0, 1.0, 2.0), (1.0, 1, 1, 1)],
)
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_within_part_by_enumeration(scaling, rollouts, p, gap, right, wrong, epsilon):
    expected = enumerated_variance(p, rollouts, gap, right, wrong, scaling, epsilon)
    value = within_trace(p, rollouts, gap, right, wrong, scaling, epsilon)
    assert value == pytest.approx(expected, abs=1e-12)
    if scaling == "none":
        assert within_trace_none(p, rollouts, gap, right, wrong) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scaling", ["std", "none"])
def test_trace_in_several_dimensions_by_simulation(scaling):
    draws, rollouts, p = 100_000, 6, 0.3
    rng = np.random.default_rng(0)
    right = (rng.random((draws, rollouts)) < p).astype(float)
    gap = np.array([1.0, -0.5])
    scale = np.where(right[..., None] == 1, [0.5, 1.0], [0.2, 0.8])
    scores = right[..., None] * gap + scale * (rng.random((draws, rollouts, 2)) - 0.5) * np.sqrt(12)
    gradient = (advantages(right, scaling, 0.0)[..., None] * scores).mean(1)
    squares = ((gradient - gradient.mean(0)) ** 2).sum(1)
    expected = within_trace(p, rollouts, np.linalg.norm(gap), 0.25 + 1.0, 0.04 + 0.64, scaling)
    assert abs(squares.mean() - expected) < 4 * squares.std() / np.sqrt(draws)


@pytest.mark.parametrize("point", PREDICTION.law("within_trace_large_group").points, ids=str)
def test_large_group_keeps_its_tolerance(point):
    error = within_trace_large_group(**point.parameters) - within_trace(**point.parameters, scaling="std")
    assert abs(error) <= point.tolerance


def test_large_group_error_falls_as_the_square():
    cells = [(0.3, group, 2.0, 1.0, 0.5) for group in (128, 256)]
    errors = [abs(within_trace_large_group(*cell) - within_trace(*cell, "std")) for cell in cells]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("point", PREDICTION.law("two_kinds_trace").points, ids=str)
def test_two_kinds_of_prompt_by_simulation(point):
    given = point.parameters
    draws, prompts, rollouts = 40_000, given["prompts"], given["rollouts"]
    rng = np.random.default_rng(7)
    kind = rng.integers(0, 2, (draws, prompts))
    rates = np.array([given["pass_rate_1"], given["pass_rate_2"]])[kind]
    gaps = np.array([given["gap_1"], given["gap_2"]])[kind]
    right = (rng.random((draws, prompts, rollouts)) < rates[..., None]).astype(float)
    noise = np.sqrt(given["score_trace"]) * rng.normal(size=right.shape)
    scores = right * gaps[..., None] + noise
    gradient = (advantages(right, "std", 0.0) * scores).mean((1, 2))
    squares = (gradient - gradient.mean()) ** 2
    assert abs(squares.mean() - two_kinds_trace(**given)) <= 4 * squares.std() / np.sqrt(draws)


def test_only_the_within_part_falls_with_the_group():
    given = dict(pass_rate_1=0.5, pass_rate_2=0.1, gap_1=1.0, gap_2=1.0, score_trace=1.0)
    floor = two_kinds_trace(**given, prompts=1, rollouts=20_000)
    assert floor == pytest.approx(((0.5 - 0.3) / 2) ** 2, rel=0.05)
    assert two_kinds_trace(**given, prompts=8, rollouts=16) == pytest.approx(
        two_kinds_trace(**given, prompts=1, rollouts=16) / 8
    )


def epochs(values, batch):
    """Batch means of every order of an epoch, [order, batch]."""
    orders = np.array(list(itertools.permutations(values)))
    return orders.reshape(len(orders), -1, batch).mean(-1)


@pytest.mark.parametrize("batch", [1, 2, 3, 6])
def test_draws_without_replacement_over_all_orders(batch):
    values = np.array([0.3, -1.0, 2.0, 0.5, 0.1, 4.0])
    means = epochs(values, batch)
    between = values.var()
    assert batch_variance(between, batch, 6) == pytest.approx(means[:, 0].var(), abs=1e-12)
    if batch < 6:
        correlation = np.corrcoef(means[:, 0], means[:, -1])[0, 1]
        assert batch_correlation(batch, 6) == pytest.approx(correlation, abs=1e-12)
    for count in range(1, 6 // batch + 1):
        total = means[:, :count].sum(1).var()
        assert window_variance(between, 0.0, batch, 6, count) == pytest.approx(total, abs=1e-12)
    assert batch_correlation(1, 6) == -1 / 5


def test_windows_over_several_epochs_by_simulation():
    draws, size, batch, updates, noise = 50_000, 8, 2, 7, 0.6
    rng = np.random.default_rng(5)
    values = rng.normal(size=size)
    orders = np.concatenate([rng.permuted(np.tile(values, (draws, 1)), axis=1) for _ in range(2)], axis=1)
    each = orders.reshape(draws, -1, batch) + np.sqrt(noise) * rng.normal(size=(draws, size, batch))
    total = each.mean(-1)[:, :updates].sum(1)
    squares = (total - total.mean()) ** 2
    expected = window_variance(values.var(), noise, batch, size, updates)
    assert abs(squares.mean() - expected) < 4 * squares.std() / np.sqrt(draws)
    assert expected < window_variance_with_replacement(values.var(), noise, batch, updates)


def test_an_epoch_cancels_the_between_part():
    assert window_variance(5.0, 0.0, 4, 32, [0, 8, 16]).tolist() == [0, 0, 0]
    assert window_variance(5.0, 2.0, 4, 32, 8) == 8 * 2.0 / 4
    assert window_variance_with_replacement(5.0, 2.0, 4, 8) == 8 * 7.0 / 4
    assert np.isnan(batch_correlation(4, 4))


def test_noise_scale_and_its_estimate_by_simulation():
    draws, dimension, small, big = 40_000, 5, 2, 8
    rng = np.random.default_rng(9)
    truth, deviations = np.full(dimension, 0.3), np.linspace(0.2, 2.0, dimension)
    singles = truth + deviations * (rng.random((draws, small + big, dimension)) - 0.5) * np.sqrt(12)
    norms = [(part.mean(1) ** 2).sum(1) for part in (singles[:, :small], singles[:, small:])]
    trace, power = (deviations**2).sum(), (truth**2).sum()
    for values, batch in zip(norms, (small, big), strict=True):
        assert abs(values.mean() - squared_norm(power, trace, batch)) < 4 * values.std() / np.sqrt(draws)
    for estimate, expected in ((signal_power_estimate, power), (noise_trace_estimate, trace)):
        values = estimate(*norms, small, big)
        assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(draws)
    means = [values.mean() for values in norms]
    ratio = noise_trace_estimate(*means, small, big) / signal_power_estimate(*means, small, big)
    assert noise_scale(trace, 0.0, power) == pytest.approx(ratio, rel=0.05)


def test_signal_ratio_of_a_window_by_simulation():
    draws, updates, batch = 20_000, 12, 3
    truth, deviation = np.array([0.1, 0.4]), np.array([1.0, 0.5])
    rng = np.random.default_rng(4)
    moved = (truth + deviation * rng.normal(size=(draws, updates, batch, 2))).mean(2).sum(1)
    ratio = (moved.mean(0) ** 2).sum() / moved.var(0).sum()
    scale = noise_scale((deviation**2).sum(), 0.0, (truth**2).sum())
    assert signal_ratio_squared(updates, batch, scale) == pytest.approx(ratio, rel=0.04)


def test_limits():
    assert within_trace([0.0, 1.0], 4, 1.0, 1.0, 1.0, "std").tolist() == [0, 0]
    assert within_trace_large_group([0.0, 1.0], 4, 1.0, 1.0, 1.0).tolist() == [0, 0]
    assert noise_scale(1.0, 0.0, 0.0) == np.inf
    assert np.isnan(noise_scale(0.0, 0.0, 0.0))
    assert signal_ratio_squared(5, 2, [0.0, np.inf]).tolist() == [np.inf, 0]
    assert noise_trace(0.0, 0.0, 3) == 0
    assert two_kinds_trace(0.5, 0.5, 1.0, -1.0, 0.0, 1, 2) == pytest.approx(0.25**2 + 0.0625)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: within_trace(1.2, 4, 1, 1, 1, "std"), "pass_rate"),
        (lambda: within_trace(0.5, 1, 1, 1, 1, "std"), "rollouts"),
        (lambda: within_trace(0.5, 4, -1, 1, 1, "std"), "gap"),
        (lambda: within_trace(0.5, 4, 1, -1, 1, "std"), "right_trace"),
        (lambda: within_trace_none(0.5, 4, 1, 1, np.nan), "wrong_trace"),
        (lambda: within_trace(0.5, 4, 1, 1, 1, "batch"), "scaling"),
        (lambda: noise_trace(-1, 1, 1), "between"),
        (lambda: noise_trace(1, -1, 1), "within"),
        (lambda: noise_trace(1, 1, 0), "prompts"),
        (lambda: batch_variance(1.0, 9, 8), "prompts"),
        (lambda: batch_variance(1.0, 1, 1), "population"),
        (lambda: window_variance(1.0, 1.0, 3, 8, 1), "prompts"),
        (lambda: window_variance(1.0, 1.0, 2, 8, -1), "updates"),
        (lambda: signal_power_estimate(1.0, 1.0, 8, 8), "batch_big"),
        (lambda: noise_trace_estimate(1.0, np.nan, 1, 8), "squared_big"),
        (lambda: noise_scale(1.0, 1.0, -1.0), "signal_power"),
        (lambda: signal_ratio_squared(0, 1, 1.0), "updates"),
        (lambda: two_kinds_trace(0.5, 0.5, np.inf, 1, 1, 1, 2), "gap_1"),
    ],
)
def test_refuses_and_names_the_argument(call, argument):
    with pytest.raises(InvalidArgument) as caught:
        call()
    assert caught.value.argument == argument
