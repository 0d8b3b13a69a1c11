"""Noise of policy gradients against prompts and rollouts, by sampled updates: prediction 4.

Scores have skewed noise wherever a law does not ask for Gaussian ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lab.checks.estimate import Estimate, mean_estimate
from lab.checks.groups import count_advantages, rewards, skewed
from lab.checks.pooled import SLICES, jackknife
from lab.checks.simulation import Parameters, Simulation
from lab.objectives.advantages import AdvantageScale, group_advantages

Array = NDArray[np.float64]

_OFFSET = 0.7  # Of all scores: the mean score is not zero.
_POPULATION = 8  # Prompts, where the law does not say how many there are.


def _trace(gradients: Array) -> Estimate:
    """Trace of the covariance of independent gradients, [sample, coordinate]."""
    count = len(gradients)
    squares = ((gradients - gradients.mean(axis=0)) ** 2).sum(axis=1)
    return mean_estimate(squares * (count / (count - 1)))


def _within(scale: AdvantageScale) -> Simulation:
    """Gradients of one group in two dimensions, the gap along the first; samples are rollouts."""

    def run(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        rollouts = parameters["rollouts"]
        reward = rewards(parameters["pass_rate"], (max(samples // rollouts, 400), rollouts), generator)
        advantage = group_advantages(reward, scale, parameters.get("epsilon", 0.0))
        right, wrong = (float(np.sqrt(parameters[f"{truth}_trace"] / 2)) for truth in ("right", "wrong"))
        spread = np.where(reward > 0, right, wrong)
        means = (_OFFSET + parameters["gap"] * reward, np.full_like(reward, _OFFSET))
        gradient = [
            (advantage * (mean + spread * skewed(reward.shape, generator))).mean(axis=1) for mean in means
        ]
        return _trace(np.stack(gradient, axis=1))

    return Simulation(run, 1_000_000)


def _within_large_group(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """The same with Gaussian scores, whose sum over the right and over the wrong rollouts is drawn at once."""
    rollouts = parameters["rollouts"]
    right = generator.binomial(rollouts, parameters["pass_rate"], samples)
    wrong = rollouts - right
    paid, unpaid = count_advantages(right, rollouts, "std", 0.0)
    gradient = []
    for gap in (parameters["gap"], 0.0):
        noise = generator.standard_normal((2, samples))
        sums = (
            right * (_OFFSET + gap) + np.sqrt(right * parameters["right_trace"] / 2) * noise[0],
            wrong * _OFFSET + np.sqrt(wrong * parameters["wrong_trace"] / 2) * noise[1],
        )
        gradient.append((paid * sums[0] + unpaid * sums[1]) / rollouts)
    return _trace(np.stack(gradient, axis=1))


def _population(between: float, size: int) -> Array:
    """Expected gradients of the prompts of a population: mean zero, mean square `between`, all different."""
    places = np.arange(size) - (size - 1) / 2
    return np.asarray(places * np.sqrt(between / (places**2).mean()))


def _prompt_gradients(
    parameters: Parameters, shape: tuple[int, ...], generator: np.random.Generator
) -> Array:
    """Gradients of prompts drawn with replacement: expected gradient of the prompt plus noise of its rollouts."""
    prompts = generator.integers(_POPULATION, size=shape)
    expected = _population(parameters["between"], _POPULATION)[prompts]
    return np.asarray(expected + np.sqrt(parameters["within"]) * skewed(shape, generator))


def _noise_trace(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    gradients = _prompt_gradients(parameters, (samples, parameters["prompts"]), generator)
    return _trace(gradients.mean(axis=1)[:, None])


def _two_kinds(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Samples are rollouts."""
    prompts, rollouts = parameters["prompts"], parameters["rollouts"]
    count = max(samples // (prompts * rollouts), 400)
    kind = generator.integers(2, size=(count * prompts, 1))
    rate = np.array([parameters["pass_rate_1"], parameters["pass_rate_2"]])[kind]
    gap = np.array([parameters["gap_1"], parameters["gap_2"]])[kind]
    reward = (generator.random((count * prompts, rollouts)) < rate).astype(np.float64)
    noise = np.sqrt(parameters["score_trace"]) * skewed(reward.shape, generator)
    advantage = group_advantages(reward, "std", 0.0)
    gradient = (advantage * (_OFFSET + gap * reward + noise)).mean(axis=1)
    return _trace(gradient.reshape(count, prompts).mean(axis=1, keepdims=True))


def _epochs(between: float, population: int, batch: int, count: int, generator: np.random.Generator) -> Array:
    """Expected gradients of the updates of shuffled epochs, [epoch, update]."""
    order = np.broadcast_to(_population(between, population), (count, population))
    shuffled = generator.permuted(order, axis=1)
    whole = population // batch * batch
    return np.asarray(shuffled[:, :whole].reshape(count, -1, batch).mean(axis=2))


def _batch_variance(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """All updates of an epoch; the mean over the population is known to be zero."""
    updates = _epochs(
        parameters["between"], parameters["population"], parameters["prompts"], samples, generator
    )
    return mean_estimate((updates**2).mean(axis=1))


def _batch_correlation(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Between the first two updates of an epoch."""
    width = max(samples // SLICES, 2)
    population, batch = parameters["population"], parameters["prompts"]
    first, second = _epochs(1.0, population, batch, width * SLICES, generator)[:, :2].T
    moments = np.stack([first * second, (first**2 + second**2) / 2], axis=1)
    slices = moments.reshape(SLICES, width, 2).mean(axis=1)
    return jackknife(slices, lambda mean: float(mean[0] / mean[1]), width * SLICES)


def _window(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """The sum of T updates from the start of an epoch on."""
    updates, batch, population = (parameters[key] for key in ("updates", "prompts", "population"))
    total = np.zeros(samples)
    for start in range(0, updates, population // batch):
        epoch = _epochs(parameters["between"], population, batch, samples, generator)
        total += epoch[:, : updates - start].sum(axis=1)
    noise = skewed((samples, updates, batch), generator).mean(axis=2).sum(axis=1)
    return _trace((total + np.sqrt(parameters["within"]) * noise)[:, None])


def _window_with_replacement(
    parameters: Parameters, samples: int, generator: np.random.Generator
) -> Estimate:
    gradients = _prompt_gradients(
        parameters, (samples, parameters["updates"], parameters["prompts"]), generator
    )
    return _trace(gradients.mean(axis=2).sum(axis=1)[:, None])


def _noise_scale(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Variance of the gradients of single prompts over their squared mean."""
    width = max(samples // SLICES, 2)
    gradients = np.sqrt(parameters["signal_power"]) + _prompt_gradients(
        parameters, (SLICES, width), generator
    )
    moments = np.stack([gradients.mean(axis=1), (gradients**2).mean(axis=1)], axis=1)
    return jackknife(moments, lambda mean: float(mean[1] / mean[0] ** 2 - 1), width * SLICES)


def _unit_noise(batch: int, count: int, generator: np.random.Generator) -> Array:
    """Squares of the mean noise of batches of prompts, each prompt's of variance one, [sample]."""
    return np.asarray(skewed((count, batch), generator).mean(axis=1) ** 2)


def _squared_norm(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    noise = skewed((samples, parameters["prompts"]), generator).mean(axis=1)
    gradient = np.sqrt(parameters["signal_power"]) + np.sqrt(parameters["noise_trace"]) * noise
    return mean_estimate(gradient**2)


def _two_batches(place: int, samples: int) -> Simulation:
    """The truth, (|g|², tr(Sigma)), of which simulated batches have just the squared norms that were observed.

    Args:
        place: which of the two is wanted.
        samples: batches of each size.
    """

    def run(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        width = max(samples // SLICES, 2)
        slices = np.stack(
            [
                _unit_noise(parameters[key], width * SLICES, generator).reshape(SLICES, width).mean(axis=1)
                for key in ("batch_small", "batch_big")
            ],
            axis=1,
        )
        observed = np.array([parameters["squared_small"], parameters["squared_big"]])

        def truth(noise: Array) -> float:
            system = np.stack([np.ones(2), noise], axis=1)
            return float(np.linalg.solve(system, observed)[place])

        return jackknife(slices, truth, width * SLICES)

    return Simulation(run, samples)


def _signal_ratio(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Gradient descent at a constant gradient of one: squared mean displacement over its variance."""
    width = max(samples // (SLICES * parameters["updates"]), 10)
    noise = np.sqrt(parameters["noise_scale"] / parameters["prompts"])
    weight = np.zeros((SLICES, width))
    for _ in range(parameters["updates"]):
        weight -= 1e-3 * (1.0 + noise * generator.standard_normal(weight.shape))
    moments = np.stack([weight.mean(axis=1), (weight**2).mean(axis=1)], axis=1)
    return jackknife(moments, lambda mean: float(mean[0] ** 2 / (mean[1] - mean[0] ** 2)), weight.size)


SIMULATIONS: dict[str, Simulation] = {
    "within_trace_none": _within("none"),
    "within_trace_std": _within("std"),
    "within_trace_unbiased_std": _within("unbiased_std"),
    "within_trace_large_group": Simulation(_within_large_group, 300_000),
    "noise_trace": Simulation(_noise_trace, 300_000),
    "two_kinds_trace": Simulation(_two_kinds, 4_000_000),
    "batch_variance": Simulation(_batch_variance, 400_000),
    "batch_correlation": Simulation(_batch_correlation, 1_200_000),
    "window_variance": Simulation(_window, 200_000),
    "window_variance_with_replacement": Simulation(_window_with_replacement, 200_000),
    "noise_scale": Simulation(_noise_scale, 1_000_000),
    "squared_norm": Simulation(_squared_norm, 500_000),
    "signal_power_estimate": _two_batches(0, 300_000),
    "noise_trace_estimate": _two_batches(1, 1_500_000),
    "signal_ratio_squared": Simulation(_signal_ratio, 20_000_000),
}
