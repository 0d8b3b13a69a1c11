"""Flipped rewards, by the lab's reward noise and advantages: prediction 3.

The learner sees noisy rewards; a rollout's score is its true reward, so that the gap is one (the scatter of scores
around their means adds nothing to a mean). Samples are rollouts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lab.checks.estimate import Estimate, mean_estimate
from lab.checks.groups import (
    batch_advantages,
    flip,
    group_gradients,
    infinite_group,
    large_group_drift,
    rewards,
)
from lab.checks.pooled import SLICES, jackknife
from lab.checks.simulation import Parameters, Simulation
from lab.objectives.advantages import AdvantageScale

Array = NDArray[np.float64]

_PROMPT_ROLLOUTS = 8
_BLOCKS = 100  # Of the jackknife: each hands a whole group to the lab's code.


def _flipped(truth: Array, parameters: Parameters, generator: np.random.Generator) -> Array:
    return flip(truth, parameters["false_positive"], parameters["false_negative"], generator)


def _pass_rate(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    truth = rewards(parameters["pass_rate"], (samples, 1), generator)
    return mean_estimate(_flipped(truth, parameters, generator)[:, 0])


def _one_prompt(rate: float, parameters: Parameters, samples: int, generator: np.random.Generator) -> Array:
    """True and noisy rewards of many rollouts of one prompt, [rollout, 2]."""
    truth = rewards(rate, (1, samples), generator)
    return np.stack([truth[0], _flipped(truth, parameters, generator)[0]], axis=1)


def _drifts(table: Array) -> tuple[float, float]:
    """Drift without and with flips, from [rollout, 2]: true and noisy reward."""
    truth, noisy = table.T
    return large_group_drift(truth, truth), large_group_drift(noisy, truth)


def _scale(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    def ratio(table: Array) -> float:
        clean, noisy = _drifts(table)
        return noisy / clean

    return infinite_group(
        _one_prompt(parameters["pass_rate"], parameters, samples, generator), ratio, _BLOCKS
    )


def _rotation(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Two prompts of orthogonal gaps, of length one and of length `gap_ratio`."""
    prompts = [
        _one_prompt(parameters[key], parameters, samples // 2, generator)
        for key in ("pass_rate_1", "pass_rate_2")
    ]

    def cosine(table: Array) -> float:
        drifts = np.array([_drifts(table[:, :2]), _drifts(table[:, 2:])])
        drifts[1] *= parameters["gap_ratio"]
        clean, noisy = drifts.T
        return float(clean @ noisy / np.sqrt((clean @ clean) * (noisy @ noisy)))

    return infinite_group(np.concatenate(prompts, axis=1), cosine, _BLOCKS)


def _coefficient(scale: AdvantageScale) -> Simulation:
    def run(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        rollouts = parameters["rollouts"]
        truth = rewards(parameters["pass_rate"], (max(samples // rollouts, 400), rollouts), generator)
        noisy = _flipped(truth, parameters, generator)
        return mean_estimate(group_gradients(noisy, truth, scale, parameters.get("epsilon", 0.0)))

    return Simulation(run, 1_000_000)


def _batch(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """The gradient of the first prompt of each batch."""
    prompts, rollouts = parameters["prompts"], parameters["rollouts"]
    rates = np.full((prompts, 1), float(parameters["other_pass_rate"]))
    rates[0] = parameters["pass_rate"]
    count = max(samples // (prompts * rollouts), 400)
    truth = (generator.random((count, prompts, rollouts)) < rates).astype(np.float64)
    noisy = _flipped(truth.reshape(-1, rollouts), parameters, generator).reshape(truth.shape)
    paid, unpaid = batch_advantages(noisy.sum(axis=2).astype(np.int64), rollouts, parameters["epsilon"])
    advantage = np.where(noisy[:, 0] > 0, paid[:, None], unpaid[:, None])
    return mean_estimate((advantage * truth[:, 0]).mean(axis=1))


def _prompt_scales(parameters: Parameters, samples: int, generator: np.random.Generator) -> Array:
    """Drift with flips over drift without, of prompts of every pass rate whose flips are fixed, [prompt].

    A prompt's group is drawn again until it has a drift to be scaled, that is until its rewards differ.
    """
    count = samples // _PROMPT_ROLLOUTS
    truth = np.empty((0, _PROMPT_ROLLOUTS))
    while len(truth) < count:
        rates = generator.random((count, 1))
        drawn = (generator.random((count, _PROMPT_ROLLOUTS)) < rates).astype(np.float64)
        mixed = (drawn.min(axis=1) < 1) & (drawn.max(axis=1) > 0)
        truth = np.concatenate([truth, drawn[mixed]])[:count]
    noisy = flip(truth, parameters["false_positive"], parameters["false_negative"], generator, per="prompt")
    return group_gradients(noisy, truth, "std", 0.0) / group_gradients(truth, truth, "std", 0.0)


def _root(square: float) -> float:
    return float(np.sqrt(max(square, 0.0)))


def _over_prompts(statistic: Callable[[float, float], float], samples: int) -> Simulation:
    """A function of the mean and the mean square over prompts of their scales."""

    def run(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        width = max(samples // (_PROMPT_ROLLOUTS * SLICES), 2)
        scales = _prompt_scales(parameters, width * SLICES * _PROMPT_ROLLOUTS, generator)
        slices = scales.reshape(SLICES, width)
        moments = np.stack([slices.mean(axis=1), (slices**2).mean(axis=1)], axis=1)
        return jackknife(moments, lambda mean: statistic(float(mean[0]), float(mean[1])), width * SLICES)

    return Simulation(run, samples)


SIMULATIONS: dict[str, Simulation] = {
    "noisy_pass_rate": Simulation(_pass_rate, 500_000),
    "drift_scale": Simulation(_scale, 120_000),
    "std_coefficient": _coefficient("std"),
    "unbiased_std_coefficient": _coefficient("unbiased_std"),
    "none_coefficient": _coefficient("none"),
    "batch_std_coefficient": Simulation(_batch, 1_000_000),
    "rotation_cosine": Simulation(_rotation, 40_000),
    "fixed_mean_scale": _over_prompts(lambda mean, square: mean, 800_000),
    "fixed_scale_spread": _over_prompts(lambda mean, square: _root(square - mean**2), 320_000),
    "fixed_cosine": _over_prompts(lambda mean, square: mean / _root(square), 320_000),
}
