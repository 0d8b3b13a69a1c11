import itertools

import numpy as np
import pytest

from theory.prediction import InvalidArgument
from theory.reward_flips import (
    PREDICTION,
    batch_std_coefficient_with_flips,
    drift_scale,
    fixed_cosine,
    fixed_mean_scale,
    fixed_scale_spread,
    group_coefficient_with_flips,
    noisy_pass_rate,
    rotation_cosine,
)


def advantages(rewards, scaling, epsilon):
    centred = rewards - rewards.mean()
    if not centred.any():
        return centred
    if scaling == "none":
        return centred
    return centred / (rewards.std(ddof=1 if scaling == "unbiased_std" else 0) + epsilon)


def enumerated(pass_rate, phi, nu, rollouts, scaling, epsilon=0.0):
    """Mean of advantage times score over every truth and every flip, v_R = 1 and v_W = 0."""
    cells = [
        (1, 1, pass_rate * (1 - nu)),
        (1, 0, pass_rate * nu),
        (0, 1, (1 - pass_rate) * phi),
        (0, 0, (1 - pass_rate) * (1 - phi)),
    ]
    total = 0.0
    for group in itertools.product(cells, repeat=rollouts):
        truth, paid, chance = (np.array(column, dtype=float) for column in zip(*group, strict=True))
        total += chance.prod() * (advantages(paid, scaling, epsilon) * truth).mean()
    return total


FLIPS = [
    (0.5, 0.2, 0.2),
    (0.05, 0.2, 0.2),
    (0.3, 0.0, 0.4),
    (0.9, 0.3, 0.0),
    (0.4, 0.9, 0.7),
    (0.2, 1.0, 1.0),
]


@pytest.mark.parametrize("scaling", ["std", "unbiased_std", "none"])
@pytest.mark.parametrize(("p", "phi", "nu"), [*FLIPS, (0.2, 0.3, 0.7), (0.0, 0.2, 0.3), (1.0, 0.0, 0.3)])
@pytest.mark.parametrize("rollouts", [2, 4])
def test_flips_and_group_together_by_enumeration(scaling, p, phi, nu, rollouts):
    for epsilon in (0.0, 0.1):
        expected = enumerated(p, phi, nu, rollouts, scaling, epsilon)
        value = group_coefficient_with_flips(p, phi, nu, rollouts, scaling, epsilon)
        assert value == pytest.approx(expected, abs=1e-12)


def test_batch_scale_by_enumeration():
    p, other, phi, nu, epsilon = 0.2, 0.7, 0.3, 0.1, 0.01
    cells = {
        rate: [
            (1, 1, rate * (1 - nu)),
            (1, 0, rate * nu),
            (0, 1, (1 - rate) * phi),
            (0, 0, (1 - rate) * (1 - phi)),
        ]
        for rate in (p, other)
    }
    total = 0.0
    for batch in itertools.product(cells[p], cells[p], cells[other], cells[other]):
        truth, paid, chance = (np.array(column, dtype=float) for column in zip(*batch, strict=True))
        centred = paid[:2] - paid[:2].mean()
        if centred.any():
            total += chance.prod() * (centred / (paid.std() + epsilon) * truth[:2]).mean()
    value = batch_std_coefficient_with_flips(p, other, phi, nu, 2, 2, epsilon)
    assert value == pytest.approx(total, abs=1e-13)


@pytest.mark.parametrize(("p", "phi", "nu"), FLIPS)
def test_scale_and_direction_of_an_infinite_group_by_simulation(p, phi, nu):
    """A vector score: the noisy drift is measured along the clean one and across it."""
    draws = 400_000
    rng = np.random.default_rng(3)
    right = rng.random(draws) < p
    paid = np.where(right, rng.random(draws) >= nu, rng.random(draws) < phi).astype(float)
    mean_scores = np.array([[0.3, 1.0, -0.2], [1.0, -0.5, 0.4]])  # wrong, right
    scores = mean_scores[right.astype(int)] + rng.normal(size=(draws, 3))
    rate = p * (1 - nu) + (1 - p) * phi
    weighted = ((paid - rate) / np.sqrt(rate * (1 - rate)))[:, None] * scores
    error = weighted.std(0) / np.sqrt(draws)
    clean = np.sqrt(p * (1 - p)) * (mean_scores[1] - mean_scores[0])
    assert np.all(np.abs(weighted.mean(0) - drift_scale(p, phi, nu) * clean) < 4 * error)


def test_large_group_tends_to_the_infinite_one():
    value = group_coefficient_with_flips(0.3, 0.1, 0.25, 4096, "std") / np.sqrt(0.21)
    assert value == pytest.approx(float(drift_scale(0.3, 0.1, 0.25)), rel=3e-4)


def test_science_numbers():
    assert drift_scale(0.05, 0.2, 0.2) == pytest.approx(0.31, abs=0.005)
    assert drift_scale(0.5, 0.2, 0.2) == pytest.approx(0.60, abs=1e-12)


def test_sign_turns_where_the_errors_exceed_one():
    p = np.linspace(0.05, 0.95, 7)
    assert np.all(drift_scale(p, 0.45, 0.5) > 0)
    assert np.all(drift_scale(p, 0.3, 0.7) == 0)
    assert np.all(drift_scale(p, 0.5, 0.55) < 0)
    np.testing.assert_allclose(drift_scale(p, 1.0, 1.0), -1.0)
    np.testing.assert_allclose(drift_scale(p, 0.0, 0.0), 1.0)


def test_limits_at_the_ends_of_the_pass_rate():
    near = 1e-10
    for phi, nu in ((0.0, 0.3), (0.0, 0.0), (1.0, 0.4), (0.0, 1.0), (0.2, 0.1), (1.0, 0.0), (1.0, 1.0)):
        assert drift_scale(0.0, phi, nu) == pytest.approx(float(drift_scale(near, phi, nu)), abs=3e-5)
        assert drift_scale(1.0, nu, phi) == pytest.approx(float(drift_scale(1 - near, nu, phi)), abs=3e-5)
    assert noisy_pass_rate(0.0, 0.2, 0.9) == 0.2
    assert group_coefficient_with_flips(0.0, 0.2, 0.1, 8, "std") == 0


def test_asymmetric_flips_may_help_the_drift_of_no_prompt():
    p = np.linspace(0, 1, 41)[:, None, None]
    phi, nu = np.linspace(0, 1, 11)[:, None], np.linspace(0, 1, 11)
    assert np.all(np.abs(drift_scale(p, phi, nu)) <= 1 + 1e-12)


@pytest.mark.parametrize("point", PREDICTION.law("rotation_cosine").points, ids=str)
def test_rotation_from_vectors(point):
    given = point.parameters
    rates = np.array([given["pass_rate_1"], given["pass_rate_2"]])
    phi, nu = given["false_positive"], given["false_negative"]
    gaps = np.array([[0.6, 0.8, 0.0], [0.0, 0.0, given["gap_ratio"]]])
    paid = rates * (1 - nu) + (1 - rates) * phi
    right_paid, right_unpaid = rates * (1 - nu) / paid, rates * nu / (1 - paid)  # share of right ones
    clean = (np.sqrt(rates * (1 - rates))[:, None] * gaps).sum(0)
    noisy = ((np.sqrt(paid * (1 - paid)) * (right_paid - right_unpaid))[:, None] * gaps).sum(0)
    expected = clean @ noisy / np.linalg.norm(clean) / np.linalg.norm(noisy)
    assert rotation_cosine(**given) == pytest.approx(expected, abs=1e-12)


def test_rotation_has_no_angle_without_a_drift():
    assert np.isnan(rotation_cosine(0.1, 0.5, 1.0, 0.3, 0.7))
    assert np.isnan(rotation_cosine(0.0, 1.0, 1.0, 0.1, 0.1))
    assert rotation_cosine(0.1, 0.5, 1.0, 0.0, 0.0) == pytest.approx(1)
    assert rotation_cosine(0.1, 0.5, 1.0, 1.0, 1.0) == pytest.approx(-1)


@pytest.mark.parametrize(("phi", "nu"), [(0.2, 0.2), (0.0, 0.4), (0.3, 0.1), (0.7, 0.6), (0.3, 0.7)])
@pytest.mark.parametrize("rollouts", [2, 5])
def test_fixed_flips_by_enumeration_of_groups(phi, nu, rollouts):
    """One uniform number per prompt, on a grid that meets no threshold; every group of each prompt."""
    grid = 20
    scales = []
    for uniform in (np.arange(grid) + 0.5) / grid:
        drift = clean = 0.0
        for bits in itertools.product((0.0, 1.0), repeat=rollouts):
            truth = np.array(bits)
            flipped = uniform < np.where(truth == 1, nu, phi)
            paid = np.where(flipped, 1 - truth, truth)
            chance = np.prod(np.where(truth == 1, 0.3, 0.7))
            drift += chance * (advantages(paid, "std", 0.0) * truth).mean()
            clean += chance * (advantages(truth, "std", 0.0) * truth).mean()
        scales.append(drift / clean)
    scales = np.array(scales)
    assert fixed_mean_scale(phi, nu) == pytest.approx(scales.mean(), abs=1e-12)
    assert fixed_scale_spread(phi, nu) == pytest.approx(scales.std(), abs=1e-7)
    if (scales != 0).any():
        assert fixed_cosine(phi, nu) == pytest.approx(
            scales.sum() / np.sqrt(grid * (scales**2).sum()), abs=1e-9
        )


def test_fixed_flips_without_any_drift_left():
    assert np.isnan(fixed_cosine(1.0, 0.0))
    assert fixed_mean_scale(1.0, 0.0) == fixed_scale_spread(1.0, 0.0) == 0


def test_broadcasts():
    assert drift_scale(np.linspace(0, 1, 5)[:, None], 0.1, [0.0, 0.2, 0.9]).shape == (5, 3)
    assert group_coefficient_with_flips([0.1, 0.5], 0.1, 0.2, [[2], [8]], "none").shape == (2, 2)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: noisy_pass_rate(2.0, 0.1, 0.1), "pass_rate"),
        (lambda: drift_scale(0.5, -0.1, 0.1), "false_positive"),
        (lambda: drift_scale(0.5, 0.1, np.inf), "false_negative"),
        (lambda: group_coefficient_with_flips(0.5, 0.1, 0.1, 1, "std"), "rollouts"),
        (lambda: rotation_cosine(0.5, 0.5, -1.0, 0.1, 0.1), "gap_ratio"),
        (lambda: rotation_cosine(0.5, 1.5, 1.0, 0.1, 0.1), "pass_rate_2"),
        (lambda: fixed_cosine(None, 0.1), "false_positive"),
        (lambda: batch_std_coefficient_with_flips(0.5, -1, 0.1, 0.1, 2, 2), "other_pass_rate"),
    ],
)
def test_refuses_and_names_the_argument(call, argument):
    with pytest.raises(InvalidArgument) as caught:
        call()
    assert caught.value.argument == argument
