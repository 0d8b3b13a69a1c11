"""What the simulations of groups rest on, against the lab's code on whole batches and against exact numbers."""

from __future__ import annotations

import numpy as np
import pytest

from lab.checks.estimate import blocked_estimate, mean_estimate
from lab.checks.groups import batch_advantages, count_advantages, flip, infinite_group, skewed
from lab.objectives.advantages import group_advantages


def test_batch_advantages_are_those_of_the_whole_batch() -> None:
    rng = np.random.default_rng(0)
    reward = (rng.random((40, 3, 5)) < rng.random((40, 3, 1))).astype(float)
    paid, unpaid = batch_advantages(reward.sum(axis=2).astype(np.int64), 5, 0.01)
    for batch, one, zero in zip(reward, paid, unpaid, strict=True):
        expected = group_advantages(batch, "batch", 0.01)[0]
        assert np.where(batch[0] > 0, one, zero) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scale", ["std", "unbiased_std", "none"])
def test_count_advantages_are_those_of_the_group(scale: str) -> None:
    rng = np.random.default_rng(1)
    reward = (rng.random((50, 4)) < 0.5).astype(float)
    paid, unpaid = count_advantages(reward.sum(axis=1).astype(np.int64), 4, scale, 0.1)  # type: ignore[arg-type]
    expected = group_advantages(reward, scale, 0.1)  # type: ignore[arg-type]
    assert np.where(reward > 0, paid[:, None], unpaid[:, None]) == pytest.approx(expected, abs=1e-12)


def test_skewed_noise_has_unit_variance_and_an_exponential_third_moment() -> None:
    noise = skewed((400_000,), np.random.default_rng(2))
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.var() == pytest.approx(1, abs=0.03)
    assert (noise**3).mean() == pytest.approx(2, abs=0.2)


def test_flips_fixed_for_a_prompt_treat_all_its_rollouts_alike() -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random((3000, 6)) < 0.5).astype(float)
    noisy = flip(truth, 0.3, 0.3, rng, per="prompt")
    changed = (noisy != truth).mean(axis=1)
    assert set(changed) == {0.0, 1.0}
    assert changed.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 3000))
    fresh = flip(truth, 0.3, 0.3, rng)
    assert len(set((fresh != truth).mean(axis=1))) > 2
    assert (flip(truth, 0.0, 0.0, rng) == truth).all()


def test_jackknife_of_a_mean_is_the_mean_with_its_usual_error() -> None:
    sample = np.random.default_rng(4).exponential(size=400)
    blocked, plain = (
        blocked_estimate(sample, lambda kept: float(kept.mean()), blocks=400),
        mean_estimate(sample),
    )
    assert blocked.value == pytest.approx(plain.value)
    assert blocked.standard_error == pytest.approx(plain.standard_error)


def test_jackknife_takes_off_the_bias_of_one_over_the_group() -> None:
    """The mean square of n normals estimates mean² + 1/n: without correction it is too large by 1/n."""
    rng = np.random.default_rng(5)
    values = [
        infinite_group(rng.standard_normal((40, 1)), lambda kept: float(kept.mean() ** 2), blocks=40).value
        for _ in range(1000)
    ]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    assert 4 * error < 0.25 / 40
