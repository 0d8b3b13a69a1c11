"""Power against independent computations: simulated t tests, exact small cases, the null of known size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lab.settings import Invalid
from lab.sweeps.power import (
    paired_t_power,
    run_power,
    runs_needed,
    simulate_run,
    smallest_effect,
    spread_of_differences,
)


@pytest.mark.parametrize(("pairs", "effect"), [(3, 1.0), (8, 0.7), (20, -0.5), (5, 0.0)])
def test_power_of_the_paired_t_test_is_that_of_simulated_ones(pairs: int, effect: float) -> None:
    generator = np.random.default_rng(pairs)
    samples = effect + generator.standard_normal((40_000, pairs))
    share = np.mean(stats.ttest_1samp(samples, 0.0, axis=1).pvalue <= 0.05)
    assert float(paired_t_power(pairs, effect)) == pytest.approx(share, abs=4 * 0.5 / 200)


def test_runs_needed_is_the_first_number_that_suffices() -> None:
    for effect in (0.3, 0.8, 2.0):
        needed = runs_needed(effect, 0.8)
        assert needed is not None
        assert float(paired_t_power(needed, effect)) >= 0.8 > float(paired_t_power(needed - 1, effect))
    assert runs_needed(0.8, 0.8) == 15  # a textbook value: d = .8, two-sided .05, power .8
    assert runs_needed(0.0, 0.8) is None
    assert float(paired_t_power(8, smallest_effect(8, 0.8))) == pytest.approx(0.8, abs=1e-6)


def test_simulated_runs_have_the_signal_asked_for() -> None:
    generator = np.random.default_rng(0)
    path = simulate_run(14, 2.0, 200_000, generator, "gaussian")
    # E[(y_end - y_0)²] = drift² T² + T with S² = drift² T, T = 13 intervals
    assert np.mean((path[-1] - path[0]) ** 2) == pytest.approx(13 * (1 + 4.0), rel=0.02)
    equal = simulate_run(14, 2.0, 200_000, generator, "equal")
    assert np.mean(equal[-1]) == pytest.approx(2.0 * np.sqrt(13), rel=0.01)


def test_no_signal_is_found_as_often_as_the_level_says() -> None:
    found = run_power(8, 0.0, 30, np.random.default_rng(1), level=0.25, flips=63, simulations=600)
    assert found.power == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 600))


def test_too_few_checkpoints_can_show_nothing() -> None:
    few = run_power(5, 50.0, 20, np.random.default_rng(2), simulations=5)
    assert few.smallest_p == 1 / 8 and few.power == 0.0  # 2^(5-2) distinct patterns
    seven = run_power(7, 50.0, 20, np.random.default_rng(2), simulations=5)
    assert seven.smallest_p == 1 / 32 and seven.power == 1.0


def test_power_grows_with_signal() -> None:
    powers = [
        run_power(10, signal, 50, np.random.default_rng(3), flips=99, simulations=60).power
        for signal in (0.3, 0.8, 2.0)
    ]
    assert powers[0] < powers[1] < powers[2]


def test_spread_of_differences_ignores_what_seeds_and_points_share() -> None:
    generator = np.random.default_rng(4)
    points, seeds = 40, 30
    own = 0.3 * generator.standard_normal((points, seeds))
    table = own + 5 * generator.standard_normal((points, 1)) + 7 * generator.standard_normal((1, seeds))
    differences = table[::2] - table[1::2]
    direct = np.sqrt(np.mean(differences.var(axis=1, ddof=1)))
    assert spread_of_differences(table) == pytest.approx(0.3 * np.sqrt(2), rel=0.06)
    assert spread_of_differences(table) == pytest.approx(direct, rel=0.1)
    table[0, 0] = np.nan
    assert spread_of_differences(table) == pytest.approx(0.3 * np.sqrt(2), rel=0.06)
    assert np.isnan(spread_of_differences(np.ones((1, 5))))


def test_refusals() -> None:
    with pytest.raises(Invalid, match="at least 2 pairs"):
        paired_t_power(1, 1.0)
    with pytest.raises(Invalid, match="checkpoints"):
        run_power(2, 1.0, 10, np.random.default_rng(0))
