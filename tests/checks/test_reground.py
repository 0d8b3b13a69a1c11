import numpy as np
import pytest

from lab.checks import reground
from lab.checks.reground import block_variance, contraction, scaled_contraction, stability_limit

GENERATOR = np.random.default_rng(0)


def test_a_block_by_hand():
    """rho = 1/2, two steps, jump of one: 1 -> 1/4, then half of -3/4 further."""
    assert contraction({"rho": 0.5, "m": 2, "n": 1}, 1, GENERATOR).value == pytest.approx(0.25 - 0.375)
    assert scaled_contraction({"rho": 0.5, "m": 2, "n": 1}, 1, GENERATOR).value == pytest.approx(0.0625)
    assert contraction({"rho": 1.0, "m": 2, "n": 1}, 1, GENERATOR).value == 1.0


def test_a_jump_is_the_same_as_a_larger_rate_on_a_flat_loss():
    """The same noise: block for block the same positions, not only in mean and variance."""
    start = np.array([0.5, -2.0, 0.0])
    ends = reground._block(start, {"m": 4, "n": 6}, drift=0.3, noise=0.7, generator=np.random.default_rng(3))
    steps = 0.3 - 0.7 * np.random.default_rng(3).standard_normal((4, 3))
    assert ends == pytest.approx(start + 10 / 4 * steps.sum(0))


def test_stability_limit_is_where_blocks_start_to_grow():
    parameters = {"rho": 0.8, "m": 3}
    limit = stability_limit(parameters, 1, GENERATOR).value
    shrinks, grows = (
        abs(contraction({**parameters, "n": limit + side}, 1, GENERATOR).value) for side in (-1e-4, 1e-4)
    )
    assert shrinks < 1 < grows


def test_variance_is_counted_from_the_mean_not_from_the_start():
    """Without noise there is none, whatever the descent."""
    estimate = block_variance({"rho": 0.7, "m": 3, "n": 2, "noise": 0.0}, 400, np.random.default_rng(1))
    assert estimate.value == pytest.approx(0.0, abs=1e-12)
    estimate = block_variance({"m": 1, "n": 0, "noise": 2.0}, 100_000, np.random.default_rng(1))
    assert estimate.value == pytest.approx(4.0, abs=4 * estimate.standard_error)
    assert estimate.standard_error == pytest.approx(4 * np.sqrt(2 / 100_000), rel=0.15)
