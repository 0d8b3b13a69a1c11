import numpy as np
import pytest

from lab.checks.low_rank_walk import COORDINATES, SIMULATIONS, components, walk
from theory import PREDICTIONS
from theory.low_rank_walk import centred_share


def test_every_law_is_simulated():
    assert set(SIMULATIONS) == {law.name for law in PREDICTIONS["low_rank_walk"].laws}


@pytest.mark.parametrize("centred", [True, False])
def test_components_are_those_of_the_singular_value_decomposition(centred):
    values = np.random.default_rng(0).standard_normal((6, 30)).cumsum(0)
    left, singular, _ = np.linalg.svd(
        values - (values.mean(0) if centred else values[0]), full_matrices=False
    )
    shares, coefficients = components(values, centred=centred)
    assert shares == pytest.approx(singular**2 / np.sum(singular**2), abs=1e-12)
    assert np.abs(coefficients[:, 0] @ left[:, 0]) == pytest.approx(1.0)
    assert np.abs(coefficients[:, 1] @ left[:, 1]) == pytest.approx(1.0)


def test_walks_start_at_zero_and_drift_either_way():
    values = walk(5, 3.0, 20_000, np.random.default_rng(1))
    assert np.all(values[0] == 0)
    increments = np.diff(values, axis=0)
    assert np.mean(np.abs(increments.mean(0))) == pytest.approx(3.0, abs=0.05)
    assert np.mean(increments.mean(0)) == pytest.approx(0.0, abs=0.15)
    assert np.mean(increments**2) == pytest.approx(10.0, rel=0.02)


def test_few_directions_break_the_law():
    """A run of five coordinates holds more in its first component than the law for many says; one of 4,000 not."""
    random = np.random.default_rng(2)

    def mean_share(coordinates, runs):
        shares = [components(walk(14, 0.0, coordinates, random), centred=True)[0][0] for _ in range(runs)]
        return np.mean(shares), np.std(shares) / np.sqrt(runs)

    few, error = mean_share(5, 1_000)
    assert few - centred_share(14) > 0.03 + 3 * error
    many, error = mean_share(COORDINATES, 60)
    assert abs(many - centred_share(14)) < 0.001 + 4 * error
