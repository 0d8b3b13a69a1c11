import time

import numpy as np
import pytest

from theory.forecast_error import best_skill, optimal_damping, two_point_ratio
from theory.gaussian_r_squared import random_walk_mean, walk_cumulative
from theory.phase_diagram import (
    best_damping,
    damped_skill,
    null_mean_quantile,
    null_quantile,
    phase_diagram,
    two_point_skill,
)
from theory.prediction import InvalidArgument

REPLICATES = 20_000


def descend(random, a, signal, g):
    """Discrete noisy descent, 130 updates in the window and g x 130 beyond: window at 14 checkpoints, future."""
    window, beyond = 130, round(130 * g)
    rho = np.exp(-a / window)
    accumulated = np.sqrt((rho ** (2 * np.arange(window))).sum())
    start = signal * accumulated / (1 - rho**window) if a else 0.0
    drift = signal * accumulated / window if not a else 0.0
    position = np.full(REPLICATES, -start)
    path = [position]
    for _ in range(window + beyond):
        position = rho * position + drift + random.standard_normal(REPLICATES)
        path.append(position)
    values = np.stack(path, 1)
    return values[:, : window + 1 : 10], values[:, -1]


@pytest.mark.parametrize(
    ("a", "signal", "g"), [(0.0, 2.0, 1.0), (0.5, 1.0, 0.5), (2.0, 4.0, 1.0), (10.0, 0.5, 0.3)]
)
def test_every_plane_by_simulation(random, line_fit, agree, ratio_agree, a, signal, g):
    window, truth = descend(random, a, signal, g)
    diagram = phase_diagram(14, a, signal, g)
    agree(line_fit(window, np.arange(14)), diagram.r_squared)
    moved, ahead = window[:, -1] - window[:, 0], truth - window[:, -1]
    ratio_agree((ahead - g * moved) ** 2, ahead**2, 1 - diagram.two_point_skill)
    ratio_agree((ahead - diagram.damping * g * moved) ** 2, ahead**2, 1 - diagram.damped_skill)
    ratio_agree(moved * ahead, g * moved**2, diagram.damping)


def test_flat_edge_is_the_straight_law():
    signal = np.array([0.0, 0.5, 1.0, 3.0, np.inf])
    for a in (0.0, 1e-9):
        assert two_point_skill(a, signal, 0.7) == pytest.approx(1 - two_point_ratio(signal**2, 0.7), abs=1e-7)
        assert best_damping(a, signal, 0.7) == pytest.approx(optimal_damping(signal**2), abs=1e-7)
        assert damped_skill(a, signal, 0.7) == pytest.approx(best_skill(signal**2, 0.7), abs=1e-7)


def test_far_edge_is_jitter_about_the_optimum():
    """a = inf: the next position is as good as new, and forgetting half the last one is best."""
    assert two_point_skill(np.inf, 0.0, 1.0) == pytest.approx(1 - (1 + 1 + (1 + 2) * 1) / 2)
    assert best_damping(np.inf, 0.0, 1.0) == pytest.approx(-1)
    assert damped_skill(np.inf, 0.0, 5.0) == pytest.approx(0.5)
    assert damped_skill(np.inf, np.inf, 1.0) == 0
    assert two_point_skill(np.inf, np.inf, 1.0) == -np.inf
    assert two_point_skill(500.0, 1.0, 1.0) == pytest.approx(two_point_skill(np.inf, 1.0, 1.0))
    noiseless = np.exp(-2.0)  # what a noiseless path has left to go, over what it has gone
    assert best_damping(2.0, np.inf, 1.0) == pytest.approx(noiseless)
    assert damped_skill(2.0, np.inf, 1.0) == pytest.approx(1)


@pytest.mark.parametrize(("a", "signal", "g"), [(0.3, 1.0, 1.0), (3.0, 2.0, 0.5)])
def test_damping_is_the_best_one(a, signal, g):
    """Skill is a parabola in lambda, 0 at 0 and greatest at the best damping: lambda = 1 must lie on it."""
    damping, best = best_damping(a, signal, g), damped_skill(a, signal, g)
    assert best * (1 - (1 - 1 / damping) ** 2) == pytest.approx(two_point_skill(a, signal, g))
    assert best >= 0


def test_straight_is_not_forecastable():
    """Round the bend R² stands far above its null while the two-point forecast loses to persistence."""
    diagram = phase_diagram(14, 2.0, 6.0, horizon_ratio=1.0)
    assert diagram.r_squared > diagram.null_mean_quantile + 0.2
    assert diagram.two_point_skill < -1
    assert 0 < diagram.damping < 0.2


def test_null_of_one_coordinate():
    quantile = null_quantile(14, [0.5, 0.95, 0.99])
    assert walk_cumulative(14, quantile) == pytest.approx([0.5, 0.95, 0.99], abs=1e-9)
    assert quantile[1] == pytest.approx(0.90, abs=0.005)


@pytest.mark.parametrize(("count", "tolerance"), [(20, 0.01), (100, 0.005)])
def test_null_of_a_run_by_simulation(random, line_fit, count, tolerance):
    runs = 2_000
    paths = random.standard_normal((runs * count, 13)).cumsum(1)
    paths = np.concatenate([np.zeros((runs * count, 1)), paths], axis=1)
    means = line_fit(paths, np.arange(14)).reshape(runs, count).mean(1)
    for level in (0.5, 0.95):
        predicted = null_mean_quantile(14, level, count)
        error = np.sqrt(level * (1 - level) / runs)
        low, high = np.quantile(means, [max(level - 4 * error, 0), min(level + 4 * error, 1)])
        assert low - tolerance <= predicted <= high + tolerance


def test_null_of_a_run_limits():
    assert null_mean_quantile(14, 0.95, np.inf) == pytest.approx(random_walk_mean(14))
    assert null_mean_quantile(14, [0.0, 1.0], 50) == pytest.approx([0, 1])
    assert np.all(np.diff(null_mean_quantile(14, 0.95, [1, 10, 100, 1000])) < 0)


def test_breaks_down_with_one_coordinate():
    """The normal approximation overshoots the exact quantile of a single walk by more than its stated .01."""
    assert abs(null_mean_quantile(14, 0.95, 1) - null_quantile(14, 0.95)) > 0.02


def test_a_grid_of_ten_thousand_cells_is_fast():
    curvature, signal = np.meshgrid(np.linspace(0, 10, 100), np.linspace(0, 10, 100))
    start = time.process_time()
    diagram = phase_diagram(14, curvature, signal)
    assert time.process_time() - start < 3
    for field in vars(diagram).values():
        assert field.shape == (100, 100)
        assert np.all(np.isfinite(field))
    assert np.all(diagram.damped_skill >= diagram.two_point_skill - 1e-12)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("n", lambda: phase_diagram(2, 1.0, 1.0)),
        ("curvature_horizon", lambda: two_point_skill(-1.0, 1.0, 1.0)),
        ("signal", lambda: best_damping(1.0, -1.0, 1.0)),
        ("horizon_ratio", lambda: damped_skill(1.0, 1.0, 0.0)),
        ("level", lambda: null_quantile(14, 1.2)),
        ("level", lambda: null_mean_quantile(14, -0.1, 10)),
        ("effective_coordinates", lambda: null_mean_quantile(14, 0.9, 0.5)),
    ],
)
def test_refuses_and_names_the_argument(argument, call):
    with pytest.raises(InvalidArgument, match=f"^{argument}:"):
        call()
