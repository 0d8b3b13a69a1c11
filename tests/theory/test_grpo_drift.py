import itertools

import numpy as np
import pytest

from theory.grpo_drift import (
    PREDICTION,
    discrepancy,
    drift,
    gap_slope_right_constant,
    length_averaged_mean_score,
    length_averaged_share,
    naive_cosine,
    naive_cosine_many_dimensions,
    naive_square,
    paper_drift,
    slope_gap_constant,
    slope_right_constant,
    split_batch_error,
    split_batch_square,
)
from theory.prediction import InvalidArgument


class Tabular:
    """Two-token responses over three symbols, a softmax table of logits for each position; symbol 2 ends.

    Every response, its chance, its score and its length are enumerated: nothing is taken from the theory.
    """

    def __init__(self, seed):
        self.logits = np.random.default_rng(seed).normal(size=(4, 3))  # first token, then by first token

    def responses(self):
        chance = np.exp(self.logits) / np.exp(self.logits).sum(1, keepdims=True)
        for first, second in itertools.product(range(3), range(3)):
            rows = [(0, first)]
            if first != 2:
                rows.append((1 + first, second))
            elif second:
                continue  # ended: one response, not three
            probability, score = 1.0, np.zeros((4, 3))
            for row, token in rows:
                probability *= chance[row, token]
                score[row] += np.eye(3)[token] - chance[row]
            yield probability, score.ravel(), len(rows), float((first + len(rows)) % 2 == 0)

    def drift(self, averaged):
        """Drift with exact advantages, v_R, v_W, p and mean score."""
        chance, score, length, right = (np.array(x) for x in zip(*self.responses(), strict=True))
        if averaged:
            score = score / length[:, None]
        p = chance @ right
        advantage = (right - p) / np.sqrt(p * (1 - p))
        v_right = (chance * right) @ score / p
        v_wrong = (chance * (1 - right)) @ score / (1 - p)
        return (chance * advantage) @ score, v_right, v_wrong, p, chance @ score


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_drift_of_an_enumerated_policy(seed, averaged):
    true, v_right, v_wrong, p, mean = Tabular(seed).drift(averaged)
    np.testing.assert_allclose(drift(p, v_right, v_wrong), true, atol=1e-13)
    np.testing.assert_allclose(paper_drift(p, v_right) + discrepancy(p, mean), true, atol=1e-13)
    if not averaged:
        np.testing.assert_allclose(mean, 0, atol=1e-13)
        np.testing.assert_allclose(paper_drift(p, v_right), true, atol=1e-13)
    else:
        assert np.linalg.norm(paper_drift(p, v_right) - true) > 0.1 * np.linalg.norm(true)


@pytest.mark.parametrize("seed", range(3))
def test_mean_averaged_score_is_the_gradient_of_the_mean_inverse_length(seed):
    policy = Tabular(seed)
    mean = policy.drift(True)[-1]

    def inverse_length():
        return sum(chance / length for chance, _, length, _ in policy.responses())

    step = 1e-6
    slope = np.zeros(12)
    for index in range(12):
        values = []
        for sign in (1, -1):
            policy.logits.flat[index] += sign * step
            values.append(inverse_length())
            policy.logits.flat[index] -= sign * step
        slope[index] = (values[0] - values[1]) / (2 * step)
    np.testing.assert_allclose(mean, slope, atol=1e-9)


@pytest.mark.parametrize("stop", [0.02, 0.1, 0.5, 0.9, 0.995])
def test_geometric_lengths_by_summation(stop):
    length = np.arange(1, 20_000)
    chance = stop * (1 - stop) ** (length - 1)
    score = ((1 - stop) - (length - 1) * stop) / length
    assert length_averaged_mean_score(stop) == pytest.approx(chance @ score, abs=1e-12)
    right = length > 1
    p = 1 - stop
    v_right, v_wrong = (chance * right) @ score / p, score[0]
    share = (p / np.sqrt(p * stop)) * v_right / (np.sqrt(p * stop) * (v_right - v_wrong))
    assert length_averaged_share(stop) == pytest.approx(share, abs=1e-9)


def test_length_limits():
    assert length_averaged_mean_score(0.0) == length_averaged_mean_score(1.0) == 0
    assert length_averaged_mean_score(1e-9) == pytest.approx(0, abs=1e-7)
    assert length_averaged_share(1.0) == 1
    assert length_averaged_share(1 - 1e-9) == pytest.approx(1, abs=1e-8)
    assert length_averaged_share(0.99 - 1e-9) == pytest.approx(
        float(length_averaged_share(0.99 + 1e-9)), abs=1e-8
    )
    assert length_averaged_share(0.0) == -np.inf
    assert length_averaged_share(1e-6) == pytest.approx(2 + np.log(1e-6), rel=1e-4)


def test_slopes_by_regression_along_a_run():
    rng = np.random.default_rng(0)
    p = np.linspace(0.1, 0.9, 30)
    gap = rng.normal(size=50)

    def regressed(vectors):
        return np.polyfit(np.log(1 - p), np.log((vectors**2).sum(1)), 1)[0]

    right = (1 - p)[:, None] * gap  # mean score zero
    assert regressed(right) == pytest.approx(2) == float(slope_gap_constant(0.5))
    constant = np.tile(gap, (30, 1))
    assert regressed(constant) == pytest.approx(0) == float(slope_right_constant(0.5))
    assert regressed(constant / (1 - p)[:, None]) == pytest.approx(-2) == float(gap_slope_right_constant(0.5))


@pytest.mark.parametrize("cosine", [-1.0, -0.3, 0.0, 0.8])
def test_slope_under_a_mean_score_by_differences(cosine):
    gap = np.array([1.0, 0.0])
    mean = 0.3 * np.array([cosine, np.sqrt(1 - cosine**2)])
    for p in (0.05, 0.5, 0.8):
        near = [np.log(((mean + (1 - q) * gap) ** 2).sum()) for q in (p - 1e-6, p + 1e-6)]
        slope = (near[1] - near[0]) / (np.log(1 - p - 1e-6) - np.log(1 - p + 1e-6))
        assert slope_gap_constant(p, 0.3, cosine) == pytest.approx(slope, rel=1e-6)


def test_slope_limits():
    assert slope_gap_constant(1.0) == 2
    assert slope_gap_constant(1.0, 0.1) == 0
    assert np.isnan(slope_gap_constant(0.5, 0.5, -1.0))  # v_R vanishes


@pytest.mark.parametrize(
    ("signal", "trace", "count", "size"), [(1.0, 10.0, 1, 10), (0.2, 6.0, 4, 3), (0, 1.0, 2, 5)]
)
def test_inner_products_of_batches_by_simulation(signal, trace, count, size):
    """Uniform noise: the laws ask for no normal distribution."""
    draws = 100_000
    rng = np.random.default_rng(1)
    truth = np.zeros(size)
    truth[0] = np.sqrt(signal)
    width = np.sqrt(12 * trace / size)
    first, second = (truth + width * (rng.random((draws, count, size)) - 0.5).mean(1) for _ in range(2))
    split, naive = (first * second).sum(1), (first * first).sum(1)
    for values, expected in ((split, split_batch_square), (naive, naive_square)):
        assert abs(values.mean() - expected(signal, trace, count)) < 4 * values.std() / np.sqrt(draws)
    squares = (split - signal) ** 2
    error = split_batch_error(signal, trace, count, size)
    assert abs(squares.mean() - error**2) < 4 * squares.std() / np.sqrt(draws)


@pytest.mark.parametrize(("ratio", "size"), [(0.1, 1), (0.1, 2), (0.1, 50), (1.0, 3), (4.0, 20), (0.0, 5)])
def test_cosine_of_noisy_estimates_by_simulation(ratio, size):
    draws = 100_000
    rng = np.random.default_rng(2)
    truth = np.full(size, np.sqrt(ratio))
    first, second = (truth + rng.normal(size=(draws, size)) for _ in range(2))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = (first * second).sum(1) / norms
    assert abs(cosines.mean() - naive_cosine(ratio, size)) < 4 * cosines.std() / np.sqrt(draws)


@pytest.mark.parametrize("point", PREDICTION.law("naive_cosine_many_dimensions").points, ids=str)
def test_many_dimensions_keep_their_tolerance(point):
    error = naive_cosine_many_dimensions(**point.parameters) - naive_cosine(**point.parameters)
    assert abs(error) <= point.tolerance


def test_cosine_limits():
    assert naive_cosine(0.0, 3) == 0
    assert naive_cosine(1e6, 10) == pytest.approx(1, abs=1e-5)
    assert naive_cosine(0.1, 10**7) == pytest.approx(1 / 11, abs=1e-6)
    assert naive_cosine_many_dimensions(np.inf) == 1
    assert naive_cosine_many_dimensions(0.0) == 0
    # at power ratio .1 the reading is .062 in one dimension and .091 in many, for a true cosine of 1
    assert naive_cosine(0.1, [1, 2, 10**5]) == pytest.approx([0.0616, 0.0748, 0.0909], abs=1e-4)


def test_drift_limits():
    assert drift([0.0, 1.0], 1.0, -1.0).tolist() == [0, 0]
    assert paper_drift(0.0, 3.0) == 0
    assert paper_drift(1.0, [0.0, 1.0, -1.0]).tolist() == [0, np.inf, -np.inf]
    assert discrepancy(1.0, 0.0) == 0
    assert drift(np.full((2, 1), 0.5), np.ones(3), 0.0).shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: drift(1.5, 1.0, 1.0), "pass_rate"),
        (lambda: drift(0.5, np.nan, 1.0), "right_score"),
        (lambda: drift(0.5, 1.0, "x"), "wrong_score"),
        (lambda: discrepancy(0.5, np.inf), "mean_score"),
        (lambda: length_averaged_share(-0.1), "stop_probability"),
        (lambda: slope_gap_constant(0.5, -1.0), "mean_share"),
        (lambda: slope_gap_constant(0.5, 1.0, 1.1), "cosine"),
        (lambda: split_batch_square(-1.0, 1.0, 1), "signal_power"),
        (lambda: naive_square(1.0, -1.0, 1), "noise_trace"),
        (lambda: naive_square(1.0, 1.0, 0), "rollouts"),
        (lambda: split_batch_error(1.0, 1.0, 1, 0), "dimension"),
        (lambda: naive_cosine(-0.1, 3), "power_ratio"),
    ],
)
def test_refuses_and_names_the_argument(call, argument):
    with pytest.raises(InvalidArgument) as caught:
        call()
    assert caught.value.argument == argument
