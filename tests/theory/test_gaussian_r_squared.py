import time

import numpy as np
import pytest
from scipy import integrate, stats

from theory.gaussian_r_squared import (
    cumulative_r_squared,
    curved_walk_mean,
    curved_walk_moments,
    drift_walk_mean,
    gaussian_drifts_mean,
    mean_r_squared,
    quantile_r_squared,
    random_walk_limit,
    random_walk_mean,
    random_walk_variance,
    sparse_drifts_mean,
    three_checkpoints_mean,
    variance_r_squared,
    walk_cumulative,
    walk_quantile,
)
from theory.prediction import InvalidArgument

REPLICATES = 40_000


def walks(random, n, replicates=REPLICATES):
    return np.concatenate(
        [np.zeros((replicates, 1)), random.standard_normal((replicates, n - 1)).cumsum(1)], axis=1
    )


def imhof(r, mean, covariance, steps):
    """P(R² <= r) from Imhof's (1961) formula on the real line: eigenvalues of the form, quad, no contour."""
    n = len(steps)
    centre = np.eye(n) - 1 / n
    u = centre @ steps / np.linalg.norm(centre @ steps)
    root = np.linalg.cholesky(covariance)
    values, axes = np.linalg.eigh(root.T @ (np.outer(u, u) - r * centre) @ root)
    shift = axes.T @ np.linalg.solve(root, mean)

    def integrand(v):
        angle = 0.5 * np.sum(np.arctan(values * v) + shift**2 * values * v / (1 + values**2 * v**2))
        weight = np.prod((1 + values**2 * v**2) ** 0.25) * np.exp(
            0.5 * np.sum((shift * values * v) ** 2 / (1 + values**2 * v**2))
        )
        return np.sin(angle) / (v * weight)

    below, _ = integrate.quad(integrand, 0, 40, limit=400)
    beyond, _ = integrate.quad(integrand, 40, np.inf, limit=400)
    return 0.5 - (below + beyond) / np.pi


# science.md, section 4
@pytest.mark.parametrize(("n", "published"), [(4, 0.538), (8, 0.458), (14, 0.442), (50, 0.435)])
def test_published_walk_means(n, published):
    assert random_walk_mean(n) == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize(
    ("drift", "published"), [(0.1, 0.459), (0.3, 0.578), (0.5, 0.730), (1.0, 0.930), (2.0, 0.985)]
)
def test_published_drift_means(drift, published):
    assert drift_walk_mean(14, drift) == pytest.approx(published, abs=6e-4)


def test_published_mixtures_at_pooled_signal_squared_of_four():
    assert sparse_drifts_mean(14, 4.0, 1.0) == pytest.approx(0.77, abs=0.005)
    assert gaussian_drifts_mean(14, 4.0) == pytest.approx(0.66, abs=0.005)
    assert sparse_drifts_mean(14, 4.0, 0.1) == pytest.approx(0.50, abs=0.005)


def test_published_distribution_of_the_walk_at_fourteen():
    quartiles = walk_quantile(14, [0.25, 0.5, 0.75])
    assert quartiles == pytest.approx([0.15, 0.45, 0.72], abs=0.006)
    assert 1 - walk_cumulative(14, 0.7) == pytest.approx(0.27, abs=0.005)


def test_published_median_at_signal_one_and_selection_by_displacement(random, line_fit):
    assert walk_quantile(14, 0.5, 1.0) == pytest.approx(0.64, abs=0.005)
    paths = walks(random, 14)
    moved = np.abs(paths[:, -1])
    chosen = line_fit(paths[moved >= np.quantile(moved, 0.8)], np.arange(14))
    assert np.median(chosen) == pytest.approx(0.83, abs=0.015)
    assert (chosen > 0.7).mean() == pytest.approx(0.79, abs=0.02)


def test_limit_is_approached_from_above():
    means = random_walk_mean([3, 5, 14, 50, 400, 2000])
    assert np.all(np.diff(means) < 0)
    assert random_walk_limit() == pytest.approx(means[-1], abs=1e-6)
    assert random_walk_limit() < means[-1]


@pytest.mark.parametrize(
    ("n", "signal", "curvature"),
    [(3, 0.0, 0.0), (14, 1.0, 0.0), (14, 4.0, -1.5), (30, 2.0, 3.0), (8, 12.0, -2.0)],
)
def test_walk_moments_and_distribution_by_simulation(random, line_fit, agree, n, signal, curvature):
    tau = np.linspace(0, 1, n)
    path = signal * np.sqrt(n - 1) * (tau + curvature * (tau**2 - tau) / 2)
    sample = line_fit(walks(random, n) + path, np.arange(n))
    mean, variance = curved_walk_moments(n, signal, curvature)
    agree(sample, mean)
    agree((sample - mean) ** 2, variance)
    if curvature == 0:
        for r in (0.1, 0.5, 0.9):
            agree((sample <= r).astype(float), walk_cumulative(n, r, signal))


@pytest.mark.parametrize("seed", range(3))
def test_any_gaussian_at_unequal_spacing(line_fit, agree, seed):
    random = np.random.default_rng(seed)
    n = 4 + 3 * seed
    steps = np.cumsum(random.uniform(0.2, 5.0, n))
    root = random.standard_normal((n, n)) * np.geomspace(1, 0.05, n)
    mean, covariance = random.standard_normal(n), root @ root.T
    sample = line_fit(mean + random.standard_normal((REPLICATES, n)) @ root.T, steps)
    agree(sample, mean_r_squared(mean, covariance, steps))
    agree((sample - sample.mean()) ** 2, variance_r_squared(mean, covariance, steps), 1e-4)
    for r in (0.02, 0.3, 0.8):
        exact = cumulative_r_squared(r, mean, covariance, steps)
        agree((sample <= r).astype(float), exact, 1e-5)
        assert exact == pytest.approx(imhof(r, mean, covariance, steps), abs=1e-6)


def test_mean_and_variance_follow_from_the_distribution():
    steps = np.array([0.0, 1, 2, 5, 6, 9])
    covariance = np.minimum.outer(steps + 1, steps + 1)
    mean = 0.4 * steps
    grid = np.polynomial.legendre.leggauss(200)
    r, weight = (grid[0] + 1) / 2, grid[1] / 2
    survival = 1 - cumulative_r_squared(r, mean, covariance, steps)
    first, second = (weight * survival).sum(), (weight * 2 * r * survival).sum()
    assert mean_r_squared(mean, covariance, steps) == pytest.approx(first, abs=1e-5)
    assert variance_r_squared(mean, covariance, steps) == pytest.approx(second - first**2, abs=1e-5)


@pytest.mark.parametrize("n", [3, 5, 20])
def test_white_noise_has_the_beta_distribution(n):
    """Independent observations: R² ~ Beta(1/2, (n-2)/2), the textbook null."""
    law = stats.beta(0.5, (n - 2) / 2)
    inputs = np.zeros(n), np.eye(n), np.arange(n)
    assert mean_r_squared(*inputs) == pytest.approx(law.mean(), abs=1e-11)
    assert variance_r_squared(*inputs) == pytest.approx(law.var(), abs=1e-11)
    r = np.array([1e-6, 0.01, 0.3, 0.7, 0.999])
    assert cumulative_r_squared(r, *inputs) == pytest.approx(law.cdf(r), rel=1e-8)
    assert quantile_r_squared([0.05, 0.95], *inputs) == pytest.approx(law.ppf([0.05, 0.95]), abs=1e-9)


def test_far_tails_keep_relative_accuracy():
    n = 12
    inputs = np.zeros(n), np.eye(n), np.arange(n)
    law = stats.beta(0.5, (n - 2) / 2)
    tail = 1 - cumulative_r_squared(0.99, *inputs)
    assert tail == pytest.approx(law.sf(0.99), rel=1e-3)
    assert walk_cumulative(14, 0.3, 40.0) < 1e-12


def test_scale_shift_and_time_units_do_not_matter():
    steps = np.array([0.0, 1, 4, 5, 9])
    covariance = np.minimum.outer(steps + 2, steps + 2)
    base = mean_r_squared(steps, covariance, steps)
    assert mean_r_squared(1e6 * steps + 7, 1e12 * covariance, 3 * steps - 1) == pytest.approx(base, abs=1e-10)
    assert mean_r_squared(1e-9 * steps, 1e-18 * covariance, steps) == pytest.approx(base, abs=1e-10)


def test_noise_free_limits():
    steps = np.arange(6)
    bent = steps**2.0
    exact = np.corrcoef(bent, steps)[0, 1] ** 2
    silent = np.zeros((6, 6))
    assert mean_r_squared(bent, silent, steps) == pytest.approx(exact, abs=1e-10)
    assert variance_r_squared(bent, silent, steps) == pytest.approx(0, abs=1e-9)
    assert mean_r_squared(bent, 1e-16 * np.eye(6), steps) == pytest.approx(exact, abs=1e-9)
    assert list(cumulative_r_squared([0.5, 0.99], bent, silent, steps)) == [0, 1]
    assert curved_walk_mean(14, np.inf, 0.0) == pytest.approx(1.0, abs=1e-10)
    assert drift_walk_mean(14, [-np.inf, 1e9]) == pytest.approx([1.0, 1.0], abs=1e-10)
    assert curved_walk_mean(6, np.inf, 5.0) == pytest.approx(curved_walk_mean(6, 1e8, 5.0), abs=1e-9)


def test_a_constant_is_undefined():
    steps = np.arange(4)
    nothing = np.zeros((4, 4))
    assert np.isnan(mean_r_squared(np.ones(4), nothing, steps))
    assert np.isnan(cumulative_r_squared(0.5, np.ones(4), nothing, steps))
    assert np.isnan(quantile_r_squared(0.5, np.ones(4), nothing, steps))
    shared = np.ones((4, 4))  # a random level, the same at every checkpoint
    assert np.isnan(mean_r_squared(np.full(4, 0.3), shared, steps))


def test_edges_of_the_distribution():
    assert list(walk_cumulative(14, [-1.0, 0.0, 1.0, 2.0])) == [0, 0, 1, 1]
    assert list(walk_quantile(14, [0.0, 1.0])) == [0, 1]
    assert walk_cumulative(14, walk_quantile(14, 0.3, 2.0), 2.0) == pytest.approx(0.3, abs=1e-9)


def test_three_checkpoints():
    assert three_checkpoints_mean(1, 1 / 3) == pytest.approx(random_walk_mean(3), abs=1e-12)
    assert three_checkpoints_mean([0, 1], [1, 0]) == pytest.approx([0, 1])
    assert np.isnan(three_checkpoints_mean(0, 0))


def test_mixtures_by_simulation(random, line_fit, agree):
    n, power = 8, 3.0
    rate = np.sqrt(power / (n - 1))
    drifts = rate * random.standard_normal((REPLICATES, 1)) * np.arange(n)
    agree(line_fit(walks(random, n) + drifts, np.arange(n)), gaussian_drifts_mean(n, power))
    carriers = (random.random((REPLICATES, 1)) < 0.25) * 2 * rate * np.arange(n)
    agree(line_fit(walks(random, n) + carriers, np.arange(n)), sparse_drifts_mean(n, power, 0.25))
    assert gaussian_drifts_mean(n, 0.0) == pytest.approx(random_walk_mean(n), abs=1e-12)


def test_breaks_down_under_heavy_tails(random, line_fit):
    """Cauchy increments: one jump makes the path, and the mean R² is not the Gaussian walk's."""
    steps = random.standard_cauchy((REPLICATES, 13)).cumsum(1)
    sample = line_fit(np.concatenate([np.zeros((REPLICATES, 1)), steps], axis=1), np.arange(14))
    assert abs(sample.mean() - random_walk_mean(14)) > 10 * sample.std() / np.sqrt(REPLICATES)


def test_a_grid_of_ten_thousand_cells_is_fast():
    curvature, signal = np.meshgrid(np.linspace(-3, 3, 100), np.linspace(0, 10, 100))
    curved_walk_mean(14, signal[:2], curvature[:2])
    start = time.process_time()
    grid = curved_walk_mean(14, signal, curvature)
    assert time.process_time() - start < 2
    assert grid.shape == (100, 100)
    assert np.all((grid > 0) & (grid < 1))
    assert grid[0] == pytest.approx(np.full(100, random_walk_mean(14)), abs=1e-12)


def test_shapes_broadcast():
    steps = np.arange(5)
    means = np.zeros((4, 1, 5))
    covariances = np.broadcast_to(np.eye(5), (3, 5, 5))
    assert mean_r_squared(means, covariances, steps).shape == (4, 3)
    assert cumulative_r_squared(np.full((2, 1, 1), 0.5), means, covariances, steps).shape == (2, 4, 3)
    assert random_walk_mean(14).shape == ()
    assert curved_walk_mean([[3], [14]], [0.0, 1.0, 2.0], 0.0).shape == (2, 3)


EYE = np.eye(4)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("steps", lambda: mean_r_squared(np.zeros(2), np.eye(2), [0, 1])),
        ("steps", lambda: mean_r_squared(np.zeros(4), EYE, [0, 2, 1, 3])),
        ("steps", lambda: mean_r_squared(np.zeros(4), EYE, [[0, 1, 2, 3]])),
        ("mean", lambda: mean_r_squared(np.zeros(3), EYE, range(4))),
        ("mean", lambda: mean_r_squared([0, 1, np.nan, 2], EYE, range(4))),
        ("mean", lambda: mean_r_squared(np.zeros((2, 4)), np.broadcast_to(EYE, (3, 4, 4)), range(4))),
        ("covariance", lambda: mean_r_squared(np.zeros(4), np.eye(3), range(4))),
        ("covariance", lambda: mean_r_squared(np.zeros(4), -EYE, range(4))),
        ("covariance", lambda: mean_r_squared(np.zeros(4), np.triu(np.ones((4, 4))), range(4))),
        ("r", lambda: cumulative_r_squared(np.nan, np.zeros(4), EYE, range(4))),
        ("level", lambda: quantile_r_squared(1.5, np.zeros(4), EYE, range(4))),
        ("n", lambda: random_walk_mean(2)),
        ("n", lambda: random_walk_variance(3.5)),
        ("signal", lambda: curved_walk_mean(14, -1.0, 0.0)),
        ("signal", lambda: walk_cumulative(14, 0.5, np.inf)),
        ("curvature", lambda: curved_walk_mean(14, 1.0, np.inf)),
        ("drift", lambda: drift_walk_mean(14, np.nan)),
        ("signal_squared", lambda: gaussian_drifts_mean(14, -1)),
        ("share", lambda: sparse_drifts_mean(14, 1.0, 0.0)),
        ("linear_variance", lambda: three_checkpoints_mean(-1, 1)),
    ],
)
def test_refuses_and_names_the_argument(argument, call):
    with pytest.raises(InvalidArgument, match=f"^{argument}:") as caught:
        call()
    assert caught.value.argument == argument
