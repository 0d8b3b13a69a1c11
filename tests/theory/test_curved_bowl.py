import numpy as np
import pytest

from theory.curved_bowl import (
    bowl_mean,
    bowl_r_squared,
    floor_mean,
    noiseless_limit,
    noiseless_r_squared,
    path_mean,
    point_covariance,
    stationary_covariance,
)
from theory.gaussian_r_squared import curved_walk_mean, random_walk_mean
from theory.prediction import InvalidArgument

REPLICATES = 20_000


def descend(random, updates, rho, offset, noise, *, warm=0):
    """Every update of SGD on a quadratic, [replicate, update]; `warm` updates of noise alone come first."""
    position = np.zeros(REPLICATES)
    for _ in range(warm):
        position = rho * position + noise * random.standard_normal(REPLICATES)
    position = position + offset
    path = [position]
    for _ in range(updates):
        position = rho * position + noise * random.standard_normal(REPLICATES)
        path.append(position)
    return np.stack(path, axis=1)


@pytest.mark.parametrize(
    ("rho", "offset", "noise"), [(0.95, 3.0, 0.5), (1.0, 0.0, 1.0), (-0.6, 2.0, 1.0), (0.0, 1.0, 1.0)]
)
def test_moments_and_r_squared_from_a_point_at_unequal_steps(random, line_fit, agree, rho, offset, noise):
    steps = np.array([0, 1, 4, 9, 30, 60])
    paths = descend(random, 60, rho, offset, noise)[:, steps]
    for k, step in enumerate(steps):
        agree(paths[:, k] if step else np.append(paths[:, k], offset), path_mean(step, rho, offset), 1e-12)
    for k, later in ((1, 2), (2, 3), (4, 4), (3, 5)):
        centred = paths - path_mean(steps, rho, offset)
        agree(centred[:, k] * centred[:, later], point_covariance(steps[k], steps[later], rho, noise))
    agree(line_fit(paths, steps), bowl_r_squared(steps, rho, offset, noise))


@pytest.mark.parametrize("rho", [0.9, -0.5])
def test_stationary_start(random, line_fit, agree, rho):
    steps = np.array([0, 3, 5, 20, 40])
    paths = descend(random, 40, rho, 0.0, 0.7, warm=150)[:, steps]
    agree(paths[:, 1] * paths[:, 2], stationary_covariance(2, rho, 0.7))
    agree(line_fit(paths, steps), bowl_r_squared(steps, rho, 0.0, 0.7, stationary=True))


def test_the_published_floor():
    """science.md's .13 at curvature x horizon 10 is a run started at its optimum; a stationary one has .16."""
    assert bowl_mean(14, 10.0, 0.0) == pytest.approx(0.134, abs=5e-4)
    assert floor_mean(14, 10.0) == pytest.approx(0.159, abs=5e-4)
    assert np.all(np.diff(floor_mean(14, [0.0, 0.1, 1.0, 10.0, np.inf])) < 0)


def test_limits_of_curvature():
    n = np.array([3, 8, 14])
    assert floor_mean(n, 0.0) == pytest.approx(random_walk_mean(n), abs=1e-11)
    assert floor_mean(n, 1e-7) == pytest.approx(random_walk_mean(n), abs=1e-6)
    assert floor_mean(n, np.inf) == pytest.approx(1 / (n - 1), abs=1e-11)
    assert floor_mean(n, 1e4) == pytest.approx(1 / (n - 1), abs=1e-11)
    assert bowl_mean(14, 0.0, [0.0, 2.0, np.inf]) == pytest.approx(
        curved_walk_mean(14, [0.0, 2.0, np.inf], 0.0), abs=1e-11
    )
    assert bowl_mean(14, 1e-8, 2.0) == pytest.approx(bowl_mean(14, 0.0, 2.0), abs=1e-7)
    assert bowl_mean(14, 1e4, 3.0) == pytest.approx(bowl_mean(14, np.inf, 3.0), abs=1e-9)


def test_noiseless_descent():
    a = np.array([0.0, 0.3, 2.0, 40.0])
    tau = np.linspace(0, 1, 14)
    direct = [np.corrcoef(1 - np.exp(-x * tau) if x else tau, tau)[0, 1] ** 2 for x in a]
    assert noiseless_r_squared(14, a) == pytest.approx(direct, abs=1e-12)
    assert noiseless_r_squared([5, 14], np.inf) == pytest.approx([3 / 6, 3 / 15])
    assert bowl_mean(14, a, np.inf) == pytest.approx(direct, abs=1e-9)
    assert bowl_mean(14, a, 1e5) == pytest.approx(direct, abs=1e-6)
    assert noiseless_r_squared(4000, a[1:3]) == pytest.approx(noiseless_limit(a[1:3]), abs=1e-3)
    assert noiseless_limit([0.0, np.inf]) == pytest.approx([1, 0])
    assert noiseless_limit(0.0499999) == pytest.approx(noiseless_limit(0.0500001), abs=1e-8)
    assert 1 - noiseless_limit(0.02) == pytest.approx(0.02**2 / 60, rel=1e-3)


def test_scaled_form_is_the_discrete_process():
    """bowl_mean in (a, S) against bowl_r_squared in (rho, offset, noise) at the same run."""
    updates, rho, offset, noise = 130, 0.98, 5.0, 0.3
    steps = np.arange(0, updates + 1, 10)
    a = -updates * np.log(rho)
    drift = offset * (1 - rho**updates)
    signal = drift / np.sqrt(point_covariance(updates, updates, rho, noise))
    assert bowl_mean(14, a, signal) == pytest.approx(bowl_r_squared(steps, rho, offset, noise), abs=1e-10)
    stationary = bowl_r_squared(steps, rho, 0.0, noise, stationary=True)
    assert floor_mean(14, a) == pytest.approx(stationary, abs=1e-10)


def test_breaks_down_off_the_quadratic(random, line_fit):
    """|w| instead of w²: the pull does not weaken on the way, so the path is straighter than the bowl's."""
    position = np.full(REPLICATES, 10.0)
    path = [position]
    for _ in range(13):
        position = position - 0.7 * np.sign(position) + 0.02 * random.standard_normal(REPLICATES)
        path.append(position)
    assert line_fit(np.stack(path, 1), np.arange(14)).mean() > bowl_mean(14, 2.3, np.inf) + 0.05


def test_nothing_moves():
    assert np.isnan(bowl_r_squared([0, 1, 2], 0.9, 0.0, 0.0))
    assert np.isnan(bowl_r_squared([0, 1, 2], 1.0, 5.0, 0.0))
    assert point_covariance(0, 5, 0.9) == 0


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("rho", lambda: path_mean(3, 1.01, 1.0)),
        ("rho", lambda: point_covariance(1, 2, -1.0)),
        ("rho", lambda: stationary_covariance(1, 1.0)),
        ("step", lambda: path_mean(-1, 0.9, 1.0)),
        ("first", lambda: point_covariance(0.5, 2, 0.9)),
        ("noise", lambda: point_covariance(1, 2, 0.9, -1)),
        ("offset", lambda: path_mean(1, 0.9, np.inf)),
        ("steps", lambda: bowl_r_squared([0, 1], 0.9, 1.0, 1.0)),
        ("steps", lambda: bowl_r_squared([0, 2, 1], 0.9, 1.0, 1.0)),
        ("steps", lambda: bowl_r_squared([0, 0.5, 1], 0.9, 1.0, 1.0)),
        ("n", lambda: floor_mean(2, 1.0)),
        ("curvature_horizon", lambda: floor_mean(14, -1.0)),
        ("curvature_horizon", lambda: noiseless_limit(-1.0)),
        ("signal", lambda: bowl_mean(14, 1.0, -1.0)),
    ],
)
def test_refuses_and_names_the_argument(argument, call):
    with pytest.raises(InvalidArgument, match=f"^{argument}:"):
        call()
