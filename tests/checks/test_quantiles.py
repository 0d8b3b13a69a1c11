import numpy as np
import pytest

from lab.checks.quantiles import quantile_estimate


@pytest.mark.parametrize("level", [0.05, 0.5, 0.95])
def test_error_is_that_of_an_order_statistic(level):
    """Exponential samples: quantile -log(1 - p), standard error sqrt(p/((1 - p) n))."""
    random = np.random.default_rng(5)
    found = [quantile_estimate(random.exponential(size=4_000), level) for _ in range(300)]
    values = np.array([estimate.value for estimate in found])
    expected = np.sqrt(level / ((1 - level) * 4_000))
    assert values.mean() == pytest.approx(-np.log1p(-level), abs=5 * expected / np.sqrt(300) + 1e-3)
    assert values.std() == pytest.approx(expected, rel=0.15)
    assert np.mean([estimate.standard_error for estimate in found]) == pytest.approx(expected, rel=0.1)
    assert found[0].samples == 4_000


def test_extreme_levels_of_few_samples_stay_within_them():
    estimate = quantile_estimate(np.arange(10.0), 0.99)
    assert estimate.value <= 9.0
    assert np.isfinite(estimate.standard_error)
