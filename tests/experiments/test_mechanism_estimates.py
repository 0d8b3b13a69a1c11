"""Products of independent batches, on a softmax bandit whose mean scores are known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.analysis.statistics import interval, jackknife
from experiments.mechanism import estimates
from experiments.mechanism.estimates import Halves
from lab.objectives.bandit_mechanism import mean_scores

RIGHT = np.array([True, True, False, False, False])
ROLLOUTS = 300


def sampled(logits: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Return mean scores of one batch of sampled actions."""
    probabilities = np.exp(logits) / np.exp(logits).sum()
    counts = generator.multinomial(ROLLOUTS, probabilities)
    scores = np.eye(len(logits)) - probabilities
    right, wrong = (
        (counts * chosen) @ scores / (counts * chosen).sum()
        for chosen in (RIGHT.astype(int), (~RIGHT).astype(int))
    )
    return {"right": right, "wrong": wrong, "gap": right - wrong}


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def test_products_of_independent_batches_are_the_exact_squares_and_one_batch_reads_too_large(
    generator: np.random.Generator,
) -> None:
    logits = np.array([0.1, -0.2, 0.3, 0.0, 0.4])
    _, right, wrong = mean_scores(logits[None], RIGHT[None])
    exact = {"right": (right**2).sum(), "gap": ((right - wrong) ** 2).sum()}
    repeats = [
        estimates.squares((sampled(logits, generator), sampled(logits, generator))) for _ in range(4000)
    ]
    probabilities = np.exp(logits) / np.exp(logits).sum()
    # variance of the mean over right actions, summed over coordinates: that of one-hot given right
    given = probabilities * RIGHT / (probabilities * RIGHT).sum()
    noise = (1 - (given**2).sum()) / (ROLLOUTS * (probabilities * RIGHT).sum())
    for name, truth in exact.items():
        corrected = np.array([row[name]["corrected"] for row in repeats])
        error = corrected.std() / np.sqrt(len(corrected))
        assert abs(corrected.mean() - truth) < 4 * error
    uncorrected = np.array([row["right"]["uncorrected"] for row in repeats])
    excess = uncorrected.mean() - exact["right"]
    assert excess == pytest.approx(noise / 2, rel=0.1)  # the mean of two batches


def test_the_slope_is_two_where_the_gap_is_constant_and_zero_where_the_right_score_is(
    generator: np.random.Generator,
) -> None:
    failure = np.linspace(0.8, 0.3, 6)
    direction = generator.standard_normal(400)
    direction /= np.linalg.norm(direction)

    def halves(size: float) -> Halves:
        noisy = [size * direction + generator.standard_normal(400) * 0.01 for _ in range(2)]
        return {"v": noisy[0]}, {"v": noisy[1]}

    for exponent, law in ((2.0, failure), (0.0, np.ones(6))):
        found = []
        for _ in range(40):
            moments = [estimates.squares(halves(size))["v"]["corrected"] for size in law]
            found.append(estimates.power_slope(failure, moments))
        within = interval(found)
        assert within["low"] < exponent < within["high"]
        assert within["high"] - within["low"] < 0.1


def test_noise_left_in_flattens_the_slope() -> None:
    failure = np.linspace(0.9, 0.2, 8)
    assert estimates.power_slope(failure, failure**2) == pytest.approx(2.0, abs=1e-4)
    assert 0 < estimates.power_slope(failure, failure**2 + 0.5) < 1.2


def test_the_slope_counts_negative_estimates_and_is_undefined_where_nothing_varies() -> None:
    failure = [0.8, 0.6, 0.4, 0.2]
    assert estimates.power_slope(failure, [0.64, 0.36, 0.16, -0.01]) == pytest.approx(2.0, abs=0.5)
    assert np.isnan(estimates.power_slope([0.5, 0.5, 0.5], [1.0, 2.0, 3.0]))
    assert np.isnan(estimates.power_slope([0.8, 0.6], [1.0, 2.0]))


def test_a_corrected_cosine_of_one_direction_is_one_where_the_uncorrected_is_not(
    generator: np.random.Generator,
) -> None:
    direction = np.zeros(1000)
    direction[0] = 1.0

    def batch() -> dict[str, np.ndarray]:
        return {"v": direction + generator.standard_normal(1000) / np.sqrt(1000)}

    corrected, uncorrected = [], []
    for _ in range(200):
        now, then = (batch(), batch()), (batch(), batch())
        both = estimates.products_between(now, then)["v"]
        square = [estimates.squares(each)["v"] for each in (now, then)]
        corrected.append((both, square[0]["corrected"], square[1]["corrected"]))
        uncorrected.append(estimates.cosine(both, square[0]["uncorrected"], square[1]["uncorrected"]))
    total = np.sum(corrected, axis=0)
    assert estimates.cosine(*total) == pytest.approx(1.0, abs=0.02)
    # noise power 1 a batch, 1/2 of the mean of two: signal over noise 2
    assert np.mean(uncorrected) == pytest.approx(2 / 3, abs=0.02)


def test_the_exact_slope_is_found_within_contexts_of_different_size() -> None:
    generator = np.random.default_rng(0)
    failure = generator.uniform(0.1, 0.9, (10, 3, 4))
    sizes = generator.uniform(1, 100, (3, 4))
    squares = sizes * failure**1.7
    squares[4, 1, 2] = np.nan
    assert estimates.within_slope(failure, squares) == pytest.approx(1.7)


def test_the_jackknife_of_a_mean_is_its_t_interval() -> None:
    values = np.array([1.0, 3.0, 2.0, 7.0])
    without = [(values.sum() - value) / 3 for value in values]
    found, exact = jackknife(without, values.mean()), interval(values)
    assert found == pytest.approx(exact)
