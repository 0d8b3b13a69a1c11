import numpy as np
import pytest

from lab.checks.controlled import controlled_covariance, controlled_mean
from lab.checks.noise_record import NoiseRecord


def normals(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def test_what_the_controls_explain_costs_no_accuracy():
    """y = 3 + 2c exactly: mean 3 and variance 16, known to rounding from few samples."""
    control = 2 * normals(0, 200, 1, 1)  # variance 4
    values = 3 + 2 * control[..., 0]
    mean = controlled_mean(values, control)
    assert (mean.value, mean.standard_error) == pytest.approx((3, 0), abs=1e-12)
    variance = controlled_covariance(values, values, control, np.array([4.0]))
    assert (variance.value, variance.standard_error) == pytest.approx((16, 0), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_what_they_do_not_explain_is_counted_with_its_error(seed):
    """y = c + (c² - 1)/2 + e, y' = c - e: Var y = 1 + 1/2 + 1/4, Cov(y, y') = 1 - 1/4."""
    c, e = normals(seed, 2, 4000, 3)
    first, second = c + (c**2 - 1) / 2 + e / 2, c - e / 2
    for other, exact in ((first, 1.75), (second, 0.75)):
        estimate = controlled_covariance(first, other, c[..., None], np.ones(1))
        assert abs(estimate.value - exact) < 4 * estimate.standard_error
        plain = np.sqrt(np.var((first - first.mean()) * (other - other.mean())) / first.size)
        assert 0.3 * plain < estimate.standard_error < plain


def test_the_error_stated_is_the_error_made():
    """150 estimates of a known variance: z-scores of unit spread."""
    z = []
    for seed in range(150):
        c, e = normals(1000 + seed, 2, 300, 1)
        y = 2 * c + e + 0.3 * (c**2 - 1)
        estimate = controlled_covariance(y, y, c[..., None], np.ones(1))
        z.append((estimate.value - (4 + 1 + 0.18)) / estimate.standard_error)
    assert np.mean(z) == pytest.approx(0, abs=4 / np.sqrt(150))
    assert np.std(z) == pytest.approx(1, abs=0.25)


def test_a_control_that_never_varies_is_left_out():
    y = normals(2, 500, 1)
    controls = np.stack([y * 0, y], axis=-1)
    estimate = controlled_covariance(y, y, controls, np.array([0.0, 1.0]))
    assert estimate.value == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("corrected", [True, False])
def test_controls_have_mean_zero_the_stated_variances_and_no_correlation(corrected):
    replicates, random = 40_000, np.random.default_rng(3)
    record = NoiseRecord(replicates, beta2=0.6, corrected=corrected)
    for _ in range(0 if corrected else 12):
        record.add(random.standard_normal(replicates), 0)
    record.begin(2)
    for update in range(8):
        record.add(random.standard_normal(replicates), update // 4)
    controls, variances = record.controls(), record.variances()
    assert controls.shape == (replicates, 5 if corrected else 7)
    scaled = controls / np.sqrt(variances)
    moments = scaled.T @ scaled / replicates
    error = np.sqrt(((scaled[:, :, None] * scaled[:, None, :]) ** 2).mean(0) / replicates)
    np.testing.assert_array_less(np.abs(moments - np.eye(len(variances))), 4.5 * error)
    np.testing.assert_array_less(np.abs(scaled.mean(0)), 4.5 / np.sqrt(replicates))


def test_signs_are_those_of_mirrored_noise():
    noise = normals(4, 6, 50)
    records = [NoiseRecord(50, beta2=0.9, corrected=False) for _ in range(2)]
    for record, sign in zip(records, (1, -1), strict=True):
        record.add(sign * noise[0], 0)
        record.begin(1)
        for xi in noise[1:]:
            record.add(sign * xi, 0)
    one, other = records
    np.testing.assert_allclose(other.controls(), one.controls() * one.signs(), rtol=1e-12, atol=1e-12)
