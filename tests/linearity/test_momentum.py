import numpy as np
import pytest

from lab.linearity import minimum_spacing, momentum_free_adam, momentum_free_sgd
from lab.settings import Invalid

LR, BETA1, BETA2, EPSILON = 0.01, 0.9, 0.999, 1e-8


def _adam(gradients):
    """Textbook Adam from zero; yields (w, m, v) after every update."""
    w = m = v = np.zeros(gradients.shape[1])
    for t, g in enumerate(gradients, start=1):
        m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
        w = w - LR * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + EPSILON)
        yield w, m, v


def _lag_one(path):
    increments = np.diff(path, axis=0)
    return np.mean(increments[1:] * increments[:-1]) / np.mean(increments**2)


@pytest.fixture(scope="module")
def adam_noise():
    """Zero-mean gradients for 3000 updates, checkpoints every 10; [checkpoint, element] of w and z."""
    gradients = np.random.default_rng(0).normal(size=(3000, 300))
    w, z = [], []
    for update, (weights, m, v) in enumerate(_adam(gradients), start=1):
        if update >= 1000 and update % 10 == 0:
            w.append(weights)
            z.append(momentum_free_adam(weights, m, v, LR, BETA1, BETA2, EPSILON, update))
    return np.array(w), np.array(z)


def test_adam_noise_looks_persistent_until_momentum_is_removed(adam_noise):
    w, z = adam_noise
    error = 1 / np.sqrt(w.size)
    assert _lag_one(w) == pytest.approx(0.53, abs=0.02)
    assert abs(_lag_one(z)) < 5 * error


@pytest.mark.parametrize(("spacing", "cosine"), [(3, 0.21), (10, 0.05)])
def test_wider_spacing_helps(adam_noise, spacing, cosine):
    assert _lag_one(adam_noise[0][::spacing]) == pytest.approx(cosine, abs=0.02)


def test_adam_position_is_where_zero_gradients_would_lead():
    """Let the first moment run out after update 7, the denominator held as it was then."""
    gradients = np.random.default_rng(1).normal(size=(7, 4)) + 1
    w, m, v = list(_adam(gradients))[-1]
    denominator = np.sqrt(v / (1 - BETA2**7)) + EPSILON
    resting, moment = w.copy(), m.copy()
    for t in range(8, 500):
        moment = BETA1 * moment
        resting -= LR * moment / (1 - BETA1**t) / denominator
    np.testing.assert_allclose(momentum_free_adam(w, m, v, LR, BETA1, BETA2, EPSILON, 7), resting, rtol=1e-12)


def test_adam_factor_in_the_long_run():
    w, m, v = np.array([1.0]), np.array([0.3]), np.array([4.0])
    expected = 1.0 - LR * 9.0 * 0.3 / 2.0
    assert momentum_free_adam(w, m, v, LR, BETA1, BETA2, 0.0, 100_000)[0] == pytest.approx(
        expected, rel=1e-12
    )


def test_adam_before_the_first_update_and_without_gradient():
    w, zero = np.array([1.0, 2.0]), np.zeros(2)
    np.testing.assert_array_equal(momentum_free_adam(w, zero, zero, LR, BETA1, BETA2, EPSILON, 0), w)
    np.testing.assert_array_equal(momentum_free_adam(w, zero, zero, LR, BETA1, BETA2, 0.0, 50), w)


def test_adam_takes_one_update_and_rate_for_each_checkpoint():
    rng = np.random.default_rng(2)
    w, m, v = rng.normal(size=(3, 5)), rng.normal(size=(3, 5)), rng.uniform(1, 2, size=(3, 5))
    updates, rates = np.array([0, 10, 200]), np.array([0.1, 0.2, 0.3])
    whole = momentum_free_adam(w, m, v, rates, BETA1, BETA2, EPSILON, updates)
    for k in range(3):
        one = momentum_free_adam(w[k], m[k], v[k], rates[k], BETA1, BETA2, EPSILON, int(updates[k]))
        np.testing.assert_array_equal(whole[k], one)


def test_sgd_increments_depend_on_their_own_gradient_alone():
    gradients = np.random.default_rng(3).normal(size=(40, 6))
    w = buffer = np.zeros(6)
    z = [w]
    for g in gradients:
        buffer = 0.9 * buffer + g
        w = w - LR * buffer
        z.append(momentum_free_sgd(w, buffer, LR, 0.9))
    np.testing.assert_allclose(np.diff(z, axis=0), -LR / 0.1 * gradients, rtol=1e-9, atol=1e-12)


def test_minimum_spacing():
    assert minimum_spacing(0.9) == pytest.approx(200)
    assert minimum_spacing(0.0) == 20


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"beta1": 1.0}, "beta1"),
        ({"beta2": -0.1}, "beta2"),
        ({"update": -1}, "update"),
        ({"v": np.array([-1.0, 1.0])}, "v"),
        ({"m": np.zeros(3)}, "m"),
        ({"learning_rate": np.zeros(2)}, "learning_rate"),
        ({"epsilon": -1.0}, "epsilon"),
    ],
)
def test_impossible_arguments(change, field):
    arguments = {
        "w": np.zeros(2),
        "m": np.zeros(2),
        "v": np.ones(2),
        "learning_rate": LR,
        "beta1": BETA1,
        "beta2": BETA2,
        "epsilon": EPSILON,
        "update": 5,
    }
    with pytest.raises(Invalid) as caught:
        momentum_free_adam(**(arguments | change))
    assert caught.value.field == field
