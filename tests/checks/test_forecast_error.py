import numpy as np
import pytest

from lab.checks.forecast_error import SIMULATIONS, _paths
from theory import PREDICTIONS
from theory.forecast_error import two_point_ratio


@pytest.mark.parametrize(("power", "bend"), [(4.0, 0.0), (9.0, -0.8), (0.0, 0.5)])
def test_paths_have_the_signal_and_the_bend_they_are_asked_for(power, bend):
    times = np.array([0.0, 0.25, 1.0, 2.5])
    parameters = {"signal_squared": power, "curvature": bend}
    values = _paths(times, parameters, 40_000, np.random.default_rng(2))
    assert values.shape == (4, 80_000)
    mean, noise = (values[:, :40_000] + values[:, 40_000:]) / 2, (values[:, :40_000] - values[:, 40_000:]) / 2
    assert np.mean(mean[2] ** 2) == pytest.approx(power)
    moved = mean[:, power * mean[2] > 0]
    if power:  # slopes of the parabola at the ends of the window, over its mean slope
        start, end = (
            np.diff(np.polyval(np.polyfit(times, moved[:, 0], 2), x))[0] for x in ((0, 1e-6), (1, 1 + 1e-6))
        )
        assert (end - start) * 1e6 / moved[2, 0] == pytest.approx(bend, abs=1e-4)
    variance = np.mean(noise**2, axis=1)
    assert variance == pytest.approx(times, abs=0.04)
    increments = np.diff(noise, axis=0)
    assert np.mean(increments[0] * increments[2]) == pytest.approx(0.0, abs=0.02)
    assert np.ptp(mean[2] ** 2) == pytest.approx(1.2 * power)  # coordinates do differ


def test_every_law_is_simulated():
    assert set(SIMULATIONS) == {law.name for law in PREDICTIONS["forecast_error"].laws}


def test_a_forecast_from_memory_of_the_noise_is_refuted():
    """The check has teeth: the ratio at another S², 10 % away, lies far outside."""
    parameters = {"signal_squared": 1.1, "horizon_ratio": 1.0}
    estimate = SIMULATIONS["two_point_ratio"].run(parameters, 100_000, np.random.default_rng(4))
    assert abs(estimate.value - two_point_ratio(1.1, 1.0)) < 4 * estimate.standard_error
    assert abs(estimate.value - two_point_ratio(1.0, 1.0)) > 6 * estimate.standard_error


def test_horizons_of_a_noiseless_path():
    """At huge S the window's noise does not matter: the line meets the parabola's image at 1/|curvature| - 1."""
    parameters = {"signal_squared": 1e8, "curvature": -0.25}
    generator = np.random.default_rng(6)
    assert SIMULATIONS["break_even_horizon"].run(parameters, 1_000, generator).value == pytest.approx(
        3, abs=1e-3
    )
    assert SIMULATIONS["best_horizon"].run(parameters, 1_000, generator).value == pytest.approx(2, abs=1e-3)
