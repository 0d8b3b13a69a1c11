"""Drift of finite groups and batches, by the lab's advantages of sampled rewards: prediction 2.

The score of a rollout is its reward, so that right and wrong ones differ by one and the mean gradient of a group is
what multiplies the gap; the scatter of scores around their means adds nothing to a mean. Samples are rollouts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lab.checks.estimate import Estimate, mean_estimate
from lab.checks.groups import batch_advantages, group_gradients, rewards
from lab.checks.simulation import Parameters, Simulation
from lab.objectives.advantages import AdvantageScale, group_advantages

Array = NDArray[np.float64]

_MOST_BATCHES = 3_000  # One call each: beyond this it is slow, and precise enough.


def _groups(parameters: Parameters, samples: int, generator: np.random.Generator) -> Array:
    count = max(samples // parameters["rollouts"], 400)
    return rewards(parameters["pass_rate"], (count, parameters["rollouts"]), generator)


def _coefficient(scale: AdvantageScale, relative: bool = False) -> Simulation:
    """The mean gradient of a group, or with `relative` as a multiple of what an infinite group would give."""

    def run(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        reward = _groups(parameters, samples, generator)
        gradient = group_gradients(reward, reward, scale, parameters.get("epsilon", 0.0))
        rate = parameters["pass_rate"]
        # where every reward is the same, no group of any size drifts, and the share is set to zero
        infinite = np.sqrt(rate * (1 - rate)) if relative and 0 < rate < 1 else 1.0
        return mean_estimate(gradient / infinite)

    return Simulation(run, 1_000_000)


def _batch(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """The gradient of the first prompt of each batch."""
    prompts, rollouts = parameters["prompts"], parameters["rollouts"]
    rates = np.full((prompts, 1), float(parameters["other_pass_rate"]))
    rates[0] = parameters["pass_rate"]
    count = max(samples // (prompts * rollouts), 400)
    reward = generator.random((count, prompts, rollouts)) < rates
    right = reward.sum(axis=2)
    advantage, _ = batch_advantages(right, rollouts, parameters["epsilon"])
    return mean_estimate(right[:, 0] * advantage / rollouts)


def _large_batch(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Prompts of one pass rate: the mean over all of them."""
    prompts, rollouts = parameters["prompts"], parameters["rollouts"]
    count = min(max(samples // (prompts * rollouts), 400), _MOST_BATCHES)
    means = []
    for _ in range(count):
        reward = rewards(parameters["pass_rate"], (prompts, rollouts), generator)
        means.append((group_advantages(reward, "batch", parameters["epsilon"]) * reward).mean())
    return mean_estimate(np.array(means))


def _zero_signal(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    advantage = group_advantages(_groups(parameters, samples, generator), "std", 0.0)
    return mean_estimate((advantage == 0).all(axis=1).astype(np.float64))


SIMULATIONS: dict[str, Simulation] = {
    "std_factor": _coefficient("std", relative=True),
    "std_factor_large_group": _coefficient("std", relative=True),
    "std_coefficient": _coefficient("std"),
    "unbiased_std_coefficient": _coefficient("unbiased_std"),
    "none_coefficient": _coefficient("none"),
    "batch_std_coefficient": Simulation(_batch, 1_000_000),
    "batch_std_coefficient_large_batch": Simulation(_large_batch, 600_000),
    "zero_signal_share": Simulation(_zero_signal, 1_000_000),
}
