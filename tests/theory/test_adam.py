import numpy as np
import pytest

from theory.adam import (
    PREDICTION,
    contraction,
    descent_time,
    diffusion_long,
    diffusion_short,
    drift,
    drift_corrected,
    noiseless_r_squared,
    noisy_bowl_mean,
    noisy_bowl_variance,
    pure_noise_step_power,
    sign_step_mean,
    sign_step_variance,
    signal_amplitude,
    token_snr,
    window_variance,
)
from theory.adam_bowl import (
    bowl_mean_r_squared,
    bowl_path_covariance,
    bowl_path_mean,
    checkpoint_moments,
)
from theory.gaussian_r_squared import mean_r_squared
from theory.prediction import InvalidArgument


def adam_path(gradient, start, updates, learning_rate, beta1, beta2, warm=False):
    """Positions of Adam after each update, [update, replicate]; `warm` starts with moments that forgot zero."""
    position, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    path = [position.copy()]
    for update in range(1, updates + 1):
        g = gradient(position)
        first = beta1 * first + (1 - beta1) * g
        second = beta2 * second + (1 - beta2) * g * g
        bias1, bias2 = (1.0, 1.0) if warm else (1 - beta1**update, 1 - beta2**update)
        position = position - learning_rate * (first / bias1) / np.sqrt(second / bias2 + 1e-300)
        path.append(position.copy())
    return np.array(path)


def stationary_walk(snr, beta1, beta2, updates, replicates, seed):
    """Displacements against the gradient after each of `updates` updates, moments stationary, lr = 1."""
    rng = np.random.default_rng(seed)
    burn = int(8 / (1 - max(beta1, beta2)))
    path = adam_path(
        lambda x: snr + rng.normal(size=x.shape),
        np.zeros(replicates),
        burn + updates,
        1.0,
        beta1,
        beta2,
        warm=True,
    )
    return -(path[burn:] - path[burn])


@pytest.fixture(scope="module")
def walks():
    """One long stationary run for each set of parameters, cut as needed."""
    stored = {}

    def get(snr, beta1, beta2, updates, replicates):
        key = (snr, beta1, beta2, updates, replicates)
        if key not in stored:
            stored[key] = stationary_walk(*key, seed=len(stored))
        return stored[key]

    return get


@pytest.mark.parametrize("name", ["drift", "drift_corrected"])
@pytest.mark.parametrize(
    ("snr", "beta1", "beta2"),
    [
        (0.0, 0.9, 0.99),
        (-3.0, 0.9, 0.99),
        (0.3, 0.0, 0.99),
        (1.0, 0.9, 0.95),
        (2.0, 0.5, 0.9),
        (1.0, 0.9, 0.5),
    ],
)
def test_drift_within_its_order(walks, name, snr, beta1, beta2):
    walk = walks(snr, beta1, beta2, 1000, 2000)[-1] / 1000
    error = walk.mean() - PREDICTION.law(name).predict(snr, 1.0, beta1, beta2)
    small = 1 - beta2
    admitted = abs(snr) / np.hypot(1, snr) * (0.75 * small if name == "drift" else 0.75 * small**2)
    assert abs(error) < admitted + 4 * walk.std() / np.sqrt(len(walk))


@pytest.mark.parametrize("name", ["drift", "drift_corrected"])
def test_drift_points_keep_their_tolerance(walks, name):
    for point in PREDICTION.law(name).points:
        given = point.parameters
        if given["beta2"] > 0.99:
            assert abs(drift_corrected(**given) - drift(**given)) <= point.tolerance
            continue  # too long a burn-in; the correction itself is tested above
        walk = (
            given["learning_rate"]
            * walks(given["gradient_snr"], given["beta1"], given["beta2"], 1000, 2000)[-1]
        )
        error = walk.mean() / 1000 - PREDICTION.law(name).predict(**given)
        assert abs(error) < point.tolerance + 4 * walk.std() / 1000 / np.sqrt(len(walk)), point


def test_correction_is_seen():
    walk = stationary_walk(0.3, 0.0, 0.9, 4000, 2000, seed=0)[-1] / 4000
    error = walk.std() / np.sqrt(len(walk))
    assert abs(walk.mean() - drift(0.3, 1.0, 0.0, 0.9)) > 20 * error
    assert abs(walk.mean() - drift_corrected(0.3, 1.0, 0.0, 0.9)) < 0.2 * abs(walk.mean() - drift(0.3))


def variance_with_error(values):
    squares = (values - values.mean()) ** 2
    return squares.mean(), squares.std() / np.sqrt(len(values))


@pytest.mark.parametrize("name", ["window_variance", "diffusion_short", "diffusion_long"])
def test_variances_keep_their_tolerance(name):
    law = PREDICTION.law(name)
    for seed, point in enumerate(law.points):
        given = point.parameters
        window = given["window"]
        walk = stationary_walk(given["gradient_snr"], given["beta1"], given["beta2"], window, 1200, seed)[-1]
        variance, error = variance_with_error(given["learning_rate"] * walk)
        unit = 1 if name == "window_variance" else window
        assert abs(variance / unit - law.predict(**given)) < point.tolerance + 4 * error / unit, point


def test_the_long_window_has_the_smaller_diffusion(walks):
    """q = 1: half of what a short window has per update is nearly three times what a long one has."""
    walk = walks(1.0, 0.0, 0.99, 1500, 3000)
    short, short_error = variance_with_error(walk[5])
    long, long_error = variance_with_error(walk[1500] - walk[0])
    assert abs(short / 5 - diffusion_short(1.0)) < 0.03 + 4 * short_error / 5
    assert abs(long / 1500 - diffusion_long(1.0)) < 0.02 + 4 * long_error / 1500
    assert diffusion_short(1.0) / diffusion_long(1.0) == pytest.approx(8 / 3)


def test_window_variance_joins_the_two_regimes():
    for snr in (0.0, 0.4, 2.0):
        short = window_variance(snr, 3000, 1.0, 0.9, 1 - 1e-7) / 3000
        assert short == pytest.approx(float(diffusion_short(snr)), rel=0.01)
        long = window_variance(snr, 10**6, 1.0, 0.9, 0.999) / 10**6
        assert long == pytest.approx(float(diffusion_long(snr)), rel=0.01)
    assert window_variance(0.0, 1, 1.0, 0.9, 0.999) == pytest.approx(0.1 / 1.9)


@pytest.mark.parametrize("point", PREDICTION.law("pure_noise_step_power").points, ids=str)
def test_step_power_by_simulation(point):
    given = point.parameters
    rng = np.random.default_rng(0)
    number = given["updates"]
    path = adam_path(
        lambda x: rng.normal(size=x.shape),
        np.zeros(200_000),
        number,
        given["learning_rate"],
        given["beta1"],
        given["beta2"],
    )
    squares = (path[-1] - path[-2]) ** 2
    assert (
        abs(squares.mean() - pure_noise_step_power(**given)) <= 4 * squares.std() / np.sqrt(200_000) + 1e-12
    )


def test_step_power_limits():
    assert pure_noise_step_power(1) == 1
    assert pure_noise_step_power(7, 1.0, 0.0, 0.0) == 1
    assert pure_noise_step_power(7, 1.0, 0.5, 0.0) == np.inf
    assert pure_noise_step_power(3000) == pytest.approx(0.1 / 1.9, rel=2e-3)
    assert pure_noise_step_power(40, 0.5, 0.0, 1e-9) == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("snr", [0.0, 0.2, 1.0, -2.0])
def test_sign_descent_by_simulation(snr):
    steps = -np.sign(np.random.default_rng(1).normal(snr, size=400_000))
    assert abs(-steps.mean() - sign_step_mean(snr)) < 4 * steps.std() / np.sqrt(400_000)
    assert steps.var() == pytest.approx(float(sign_step_variance(snr)), abs=5e-3)
    walk = stationary_walk(snr, 0.0, 0.0, 2000, 500, seed=1)[-1] / 2000
    assert abs(walk.mean() - sign_step_mean(snr)) < 4 * walk.std() / np.sqrt(500)


def test_infinite_and_zero_snr():
    assert drift([-np.inf, np.inf], 0.1).tolist() == [-0.1, 0.1]
    assert drift_corrected(np.inf) == 1
    assert diffusion_long(np.inf) == diffusion_short(-np.inf) == 0
    assert drift(0.0) == drift_corrected(0.0) == 0
    assert diffusion_long(0.0) == diffusion_short(0.0) == 1
    assert sign_step_mean(np.inf) == 1


@pytest.mark.parametrize("point", PREDICTION.law("contraction").points, ids=str)
def test_contraction_of_one_update(point):
    given = point.parameters
    x, h, s, rate = (given[key] for key in ("distance", "curvature", "noise", "learning_rate"))
    second = h * h * x * x + s * s  # v at its mean
    g = h * x + s * np.random.default_rng(0).normal(size=200_000)
    moved = (x - rate * g / np.sqrt(second)) / x
    assert abs(moved.mean() - contraction(**given)) <= point.tolerance + 4 * moved.std() / np.sqrt(len(g))


def test_contraction_limits():
    assert contraction(0.0, 1.0, 0.0, 0.1) == 1
    assert contraction(0.0, 1.0, 2.0, 0.1) == 1 - 0.05
    assert contraction(0.5, 3.0, 0.0, 0.1) == pytest.approx(1 - 0.2)
    assert contraction(-0.5, 3.0, 1.0, 0.1) == contraction(0.5, 3.0, 1.0, 0.1)


@pytest.mark.parametrize("point", PREDICTION.law("descent_time").points, ids=str)
def test_descent_time_by_simulation(point):
    given = point.parameters
    rng = np.random.default_rng(3)
    h, s = given["curvature"], given["noise"]
    expected = float(descent_time(**given))

    def gradient(x):
        noise = s * rng.normal(
            size=len(x) // 2
        )  # and its mirror image, so that the mean is nearly free of it
        return h * x + np.concatenate([noise, -noise])

    updates = int(1.5 * expected) + 1
    path = adam_path(
        gradient, np.full(400, given["distance"]), updates, given["learning_rate"], 0.9, 0.98
    ).mean(1)
    arrival = int(np.argmax(path <= given["remaining"] + 1e-12))
    assert abs(arrival - expected) <= point.tolerance


def test_descent_limits():
    assert descent_time(1.0, 0.25, 2.0, 0.0, 0.01) == pytest.approx(75)
    assert descent_time(1.0, 0.25, 2.0, 1e-9, 0.01) == pytest.approx(75, rel=1e-6)
    loud = descent_time(1.0, 0.25, 1.0, 1e4, 0.01)  # exponential, at lr h/s
    assert loud == pytest.approx(np.log(4) * 1e6, rel=1e-6)


@pytest.mark.parametrize("point", PREDICTION.law("noisy_bowl_mean").points, ids=str)
def test_noisy_bowl_by_simulation(point):
    given = point.parameters
    rng = np.random.default_rng(6)
    replicates = 3000
    final = adam_path(
        lambda x: given["curvature"] * x + given["noise"] * rng.normal(size=x.shape),
        np.full(replicates, given["distance"]),
        given["updates"],
        given["learning_rate"],
        0.9,
        0.999,
    )[-1]
    error = final.std() / np.sqrt(replicates)
    assert abs(final.mean() - noisy_bowl_mean(**given)) <= point.tolerance + 4 * error
    rest = {key: value for key, value in given.items() if key != "distance"}
    for law_point in PREDICTION.law("noisy_bowl_variance").points:
        if law_point.parameters == rest:
            variance, error = variance_with_error(final)
            assert abs(variance - noisy_bowl_variance(**rest)) <= law_point.tolerance + 4 * error


def test_noisy_bowl_limits():
    assert noisy_bowl_variance(50, 0.0, 1.0, 0.1) == pytest.approx(0.5)
    assert noisy_bowl_variance(50, 2.0, 1.0, 1.0) == 50  # rho = -1
    assert noisy_bowl_variance(10**6, 1.0, 1.0, 0.1) == pytest.approx(0.01 / (1 - 0.81))
    assert noisy_bowl_mean(3, 2.0, 1.0, 1.0, 0.5) == 0.25


@pytest.mark.parametrize("point", PREDICTION.law("noiseless_r_squared").points, ids=str)
def test_noiseless_r_squared_by_simulation(point):
    ratio, updates = point.parameters["path_ratio"], 20_000
    path = adam_path(lambda x: x, np.ones(1), updates, ratio / updates, 0.9, 0.98)[:, 0]
    measured = np.corrcoef(path[::20], np.arange(len(path))[::20])[0, 1] ** 2
    assert abs(measured - noiseless_r_squared(ratio)) <= point.tolerance


@pytest.mark.parametrize(
    ("noise", "ratio", "beta1"), [(0.3, 2.0, 0.9), (1.0, 0.5, 0.0), (3.0, 5.0, 0.9), (30.0, 20.0, 0.5)]
)
def test_checkpoint_moments_by_simulation(noise, ratio, beta1):
    updates, replicates = 1000, 2000
    steps = np.array([0, 100, 300, 600, 1000])
    mean, covariance = checkpoint_moments(steps, 1.0, 1.0, noise, ratio / updates, beta1, 0.999)
    rng = np.random.default_rng(8)
    path = adam_path(
        lambda x: x + noise * rng.normal(size=x.shape),
        np.ones(replicates),
        updates,
        ratio / updates,
        beta1,
        0.999,
    )[steps]
    assert mean[0] == 1 and np.all(covariance[0] == 0)
    spread = path.std(1)
    np.testing.assert_array_less(np.abs(path.mean(1) - mean), 0.01 + 4 * spread / np.sqrt(replicates) + 1e-12)
    measured = np.cov(path[1:])
    scale = np.sqrt(np.outer(np.diag(measured), np.diag(measured)))
    np.testing.assert_array_less(
        np.abs(covariance[1:, 1:] - measured) / scale, 0.08 + 4 * np.sqrt(2 / replicates)
    )


def test_checkpoint_moments_agree_with_the_closed_forms():
    mean, covariance = checkpoint_moments([0, 500, 1000], 1.0, 1.0, 100.0, 0.1, 0.0, 0.99999)
    assert mean[2] == pytest.approx(float(noisy_bowl_mean(1000, 1.0, 1.0, 100.0, 0.1)), rel=1e-3)
    assert covariance[2, 2] == pytest.approx(float(noisy_bowl_variance(1000, 1.0, 100.0, 0.1)), rel=1e-3)
    assert covariance[1, 2] == pytest.approx(covariance[1, 1] * (1 - 0.001) ** 500, rel=1e-3)
    # a tiny curvature far from the bottom: constant gradient, so the variance of a window
    snr, steps = 0.7, [0, 20_000, 24_000]
    _, far = checkpoint_moments(steps, snr * 1e9, 1e-9, 1.0, 1.0, 0.9, 0.998)
    window = far[1, 1] + far[2, 2] - 2 * far[1, 2]
    assert window == pytest.approx(float(window_variance(snr, 4000, 1.0, 0.9, 0.998)), rel=1e-3)


def test_path_mean_and_covariance_are_entries_of_the_checkpoint_moments():
    steps = [0, 3, 9]
    mean, covariance = checkpoint_moments(steps, 1.0, 1.0, [0.5, 2.0], 0.01)
    assert bowl_path_mean([[3], [9]], 1.0, 1.0, [0.5, 2.0], 0.01) == pytest.approx(mean.T[1:], rel=1e-12)
    for row, first in enumerate(steps):
        entries = bowl_path_covariance(first, np.array(steps)[:, None], 1.0, 1.0, [0.5, 2.0], 0.01)
        assert entries == pytest.approx(covariance[:, row].T, rel=1e-12)


def test_the_first_update_is_a_sign_which_no_linear_account_has():
    """One update from moments of zero moves every run alike: the linear account gives it a small variance."""
    assert bowl_path_mean(1, 1.0, 1.0, 0.05, 0.1) == pytest.approx(0.9, abs=2e-4)
    assert 0 < bowl_path_covariance(1, 1, 1.0, 1.0, 0.05, 0.1) < 1e-7


def test_checkpoint_moments_broadcast():
    mean, covariance = checkpoint_moments([0, 3, 9], [[1.0], [2.0]], 1.0, [0.1, 0.5, 2.0], 0.01)
    assert mean.shape == (2, 3, 3) and covariance.shape == (2, 3, 3, 3)
    single = checkpoint_moments([0, 3, 9], 2.0, 1.0, 0.5, 0.01)
    np.testing.assert_allclose(mean[1, 1], single[0])
    np.testing.assert_allclose(covariance[1, 1], single[1])


NOISE = np.concatenate([[0.0], 10 ** np.arange(-1, 2.6, 0.125)])


def test_r_squared_rises_then_falls_once_the_path_is_longer_than_the_distance():
    """T = 1300, checkpoints every 100: .5 no rise; 2: .92 to .98; 20: .22 to .69 (about)."""
    curves = bowl_mean_r_squared(np.array([0.5, 2.0, 20.0])[:, None], NOISE, 1300)
    assert curves[0].max() - curves[0, 0] < 1e-3
    assert (curves[1, 0], curves[1].max()) == pytest.approx((0.92, 0.98), abs=0.01)
    assert (curves[2, 0], curves[2].max()) == pytest.approx((0.22, 0.69), abs=0.015)
    np.testing.assert_allclose(curves[:, -1], mean_r_squared_of_a_walk(14), atol=0.03)
    for curve in curves:
        peak = curve.argmax()
        assert np.all(np.diff(curve[peak:]) < 5e-3)


def mean_r_squared_of_a_walk(count):
    steps = np.arange(count)
    return mean_r_squared(np.zeros(count), np.minimum.outer(steps, steps), steps)


@pytest.mark.parametrize(("ratio", "noise"), [(2.0, 0.0), (2.0, 3.0), (20.0, 1.0), (20.0, 10.0), (0.5, 10.0)])
def test_r_squared_by_simulation(ratio, noise):
    updates, replicates = 1300, 1000
    rng = np.random.default_rng(11)
    steps = np.arange(0, 1301, 100)
    path = adam_path(
        lambda x: x + noise * rng.normal(size=x.shape),
        np.ones(replicates),
        updates,
        ratio / updates,
        0.9,
        0.999,
    )[steps]
    centred = path - path.mean(0)
    times = steps - steps.mean()
    values = (times @ centred) ** 2 / (times @ times) / (centred**2).sum(0)
    error = 4 * values.std() / np.sqrt(replicates)
    assert abs(values.mean() - bowl_mean_r_squared(ratio, noise, updates)) < 0.012 + error


def gradient_descent_r_squared(rate, amplitude, noise, updates=1300):
    """x <- x - rate (a x + s xi), curvature one, from a distance of one."""
    rho = 1 - rate * amplitude
    steps = np.arange(0, updates + 1, 100)
    variance = (rate * noise) ** 2 * (1 - rho ** (2 * steps)) / (1 - rho**2)
    earlier = np.minimum.outer(steps, steps)
    covariance = variance[earlier // 100] * rho ** np.abs(np.subtract.outer(steps, steps))
    return float(mean_r_squared(rho**steps, covariance, steps))


def test_gradient_descent_rises_with_noise_only_when_its_amplitude_shrinks():
    decibels = np.arange(20.0, -60.1, -5)
    rate, level = (
        10 / 1300,
        0.05,
    )  # ten e-folds in the window; noise amplitude b over the gradient at the start
    amplitude = signal_amplitude(decibels)
    fixed = [gradient_descent_r_squared(rate, 1.0, level * 10 ** (-db / 20)) for db in decibels]
    normed = [
        gradient_descent_r_squared(rate, a, level * a * 10 ** (-db / 20))
        for a, db in zip(amplitude, decibels, strict=True)
    ]
    assert np.all(np.diff(fixed) < 0)
    assert max(normed) > normed[0] + 0.2
    assert 0 < np.argmax(normed) < len(normed) - 1


@pytest.mark.parametrize("point", PREDICTION.law("token_snr").points, ids=str)
def test_token_snr_by_simulation(point):
    """Native noise shared by blocks of tokens gives the clustering; below one they oppose each other."""
    given = point.parameters
    draws, tokens, clustering = 20_000, given["tokens"], given["clustering"]
    rng = np.random.default_rng(12)
    own = rng.normal(size=(draws, tokens))
    own -= own.mean(1, keepdims=True)
    share = clustering / tokens  # variance of the batch mean, each token keeping variance one
    native = own * np.sqrt((1 - share) / (1 - 1 / tokens)) + np.sqrt(share) * rng.normal(size=(draws, 1))
    gamma = given["native_snr"] * np.sqrt(share)
    signs = rng.integers(0, 2, (draws, tokens)) * 2 - 1
    weights = 1.7 * (1 + 10 ** (-given["decibels"] / 20) * signs)
    gradient = (weights * (gamma + native)).mean(1)
    error = np.sqrt((1 + given["native_snr"] ** 2 / 2) / draws)
    assert abs(gradient.mean() / gradient.std() - token_snr(**given)) < 4 * error


def test_token_snr_limits():
    assert token_snr(np.inf, 0.7, 64) == 0.7
    assert token_snr(-np.inf, 0.7, 64) == 0
    assert signal_amplitude([np.inf, -np.inf]).tolist() == [1, 0]
    assert signal_amplitude(0.0) == pytest.approx(np.sqrt(0.5))
    assert np.all(np.diff(token_snr(np.linspace(-40, 40, 30), 1.3, 100)) > 0)
    # without native noise to speak of, the SNR of a token's sign grows by the root of the tokens
    assert token_snr(3.0, 1e6, 100) == pytest.approx(10 ** (3 / 20) * 10, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: drift(np.nan), "gradient_snr"),
        (lambda: drift("high"), "gradient_snr"),
        (lambda: drift(1.0, -1.0), "learning_rate"),
        (lambda: drift_corrected(1.0, 1.0, 1.0), "beta1"),
        (lambda: diffusion_long(1.0, 1.0, 0.9, -0.1), "beta2"),
        (lambda: diffusion_short(1.0, window=0), "window"),
        (lambda: window_variance(1.0, 2.5), "window"),
        (lambda: pure_noise_step_power(0), "updates"),
        (lambda: pure_noise_step_power(10**6), "updates"),
        (lambda: contraction(np.inf, 1, 1, 1), "distance"),
        (lambda: contraction(1, -1, 1, 1), "curvature"),
        (lambda: descent_time(1, 2, 1, 1, 1), "remaining"),
        (lambda: descent_time(1, 0, 1, 1, 1), "remaining"),
        (lambda: noisy_bowl_mean(1, 1, 1, 0, 1), "noise"),
        (lambda: noisy_bowl_variance(-1, 1, 1, 1), "updates"),
        (lambda: noiseless_r_squared(0), "path_ratio"),
        (lambda: token_snr(np.nan, 1, 1), "decibels"),
        (lambda: token_snr("loud", 1, 1), "decibels"),
        (lambda: token_snr(0, -1, 1), "native_snr"),
        (lambda: token_snr(0, 1, 0), "tokens"),
        (lambda: token_snr(0, 1, 1, 0), "clustering"),
        (lambda: signal_amplitude(np.nan), "decibels"),
        (lambda: signal_amplitude("loud"), "decibels"),
        (lambda: checkpoint_moments([0, 2, 1], 1, 1, 1, 1), "steps"),
        (lambda: checkpoint_moments([0, 0.5, 1], 1, 1, 1, 1), "steps"),
        (lambda: checkpoint_moments([0, 1, 10**7], 1, 1, 1, 1), "steps"),
        (lambda: checkpoint_moments([0, 1, 2], 0, 1, 0, 1), "noise"),
        (lambda: bowl_path_mean(-1, 1, 1, 1, 1), "updates"),
        (lambda: bowl_path_mean(10**6, 1, 1, 1, 1), "updates"),
        (lambda: bowl_path_covariance(0.5, 1, 1, 1, 1, 1), "first"),
        (lambda: bowl_path_covariance(1, 2, 1, 1, -1, 1), "noise"),
        (lambda: bowl_mean_r_squared(1, 1, 5), "updates"),
        (lambda: bowl_mean_r_squared(1, 1, 50, checkpoints=2), "checkpoints"),
    ],
)
def test_refuses_and_names_the_argument(call, argument):
    with pytest.raises(InvalidArgument) as caught:
        call()
    assert caught.value.argument == argument
