import numpy as np
import pytest

from lab.checks.phase_diagram import SIMULATIONS, descent
from theory import PREDICTIONS


def test_every_law_is_simulated():
    assert set(SIMULATIONS) == {law.name for law in PREDICTIONS["phase_diagram"].laws}


@pytest.mark.parametrize(("a", "signal"), [(0.0, 2.0), (0.5, 1.5), (4.0, 3.0), (4.0, 0.0)])
def test_descent_has_the_signal_and_curvature_it_is_asked_for(a, signal):
    parameters = {"curvature_horizon": a, "signal": signal}
    values = descent(10, 8, parameters, 100_000, np.random.default_rng(0))
    assert values.shape == (11, 200_000)
    moved = values[8] - values[0]
    assert np.mean(moved) == pytest.approx(signal * np.std(moved), abs=0.02 * max(signal, 1))
    mean = values.mean(axis=1)
    if signal:
        assert (mean[8] - mean[7]) / (mean[1] - mean[0]) == pytest.approx(np.exp(-a * 7 / 8))
    if a and not signal:
        correlation = np.mean(values[8] * values[10]) / np.mean(values[8] ** 2)
        assert correlation == pytest.approx(np.exp(-a * 2 / 8), abs=0.01)


def test_quantile_is_that_of_runs_not_of_walks():
    """With one walk to a run it is the exact quantile of R², which the law for many overshoots."""
    from theory.phase_diagram import null_mean_quantile, null_quantile

    parameters = {"n": 14, "level": 0.95, "effective_coordinates": 1}
    estimate = SIMULATIONS["null_mean_quantile"].run(parameters, 40_000, np.random.default_rng(1))
    assert abs(estimate.value - null_quantile(14, 0.95)) < 4 * estimate.standard_error
    assert null_mean_quantile(14, 0.95, 1) - estimate.value > 10 * estimate.standard_error
