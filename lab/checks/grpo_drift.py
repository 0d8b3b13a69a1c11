"""The drift of GRPO on one prompt, by rollouts: prediction 1.

An infinite group is one group of all rollouts drawn. Scores have skewed noise, so that no law rests on Gaussian ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lab.checks.estimate import Estimate, mean_estimate
from lab.checks.groups import infinite_group, large_group_drift, rewards, skewed
from lab.checks.pooled import SLICES, jackknife
from lab.checks.simulation import Parameters, Simulation

Array = NDArray[np.float64]

_SCORE_NOISE = 0.2
_RIGHT = np.array([1.0, 0.5, 0.0])  # v_R and the mean score of a run along which both stay.
_MEAN = np.array([0.2, -0.1, 0.3])
_RUN = np.array([0.9, 0.5, 0.25])  # Its failure rates, relative to that of the point.
_BATCHES = 16
_DIMENSION = 10  # Of scores, where the law does not say.


def _rollouts(
    pass_rate: float, right: float, wrong: float, count: int, generator: np.random.Generator
) -> Array:
    """Rewards and scores, [rollout, 2]; a rollout's uniform number and its neighbour's add up to one."""
    uniform = generator.random(count // 2)
    reward = (np.stack([uniform, 1 - uniform], axis=1).ravel() < pass_rate).astype(np.float64)
    noise = _SCORE_NOISE * skewed(reward.shape, generator)
    return np.stack([reward, np.where(reward > 0, right, wrong) + noise], axis=1)


def _measured_drift(table: Array) -> float:
    return large_group_drift(table[:, 0], table[:, 1])


def _stated_drift(table: Array) -> float:
    """(p/sigma) v_R, from the rollouts: the mean of reward times score over the spread of the rewards."""
    spread = table[:, 0].std()
    return float((table[:, 0] * table[:, 1]).mean() / spread) if spread > 0 else 0.0


def _drift(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    table = _rollouts(
        parameters["pass_rate"], parameters["right_score"], parameters["wrong_score"], samples, generator
    )
    return infinite_group(table, _measured_drift)


def _discrepancy(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    rate, mean, gap = parameters["pass_rate"], parameters["mean_score"], 0.3
    table = _rollouts(rate, mean + (1 - rate) * gap, mean - rate * gap, samples, generator)
    return infinite_group(table, lambda kept: _measured_drift(kept) - _stated_drift(kept))


def _paper_drift(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    rate, right = parameters["pass_rate"], parameters["right_score"]
    wrong = -rate * right / (1 - rate) if rate < 1 else 0.0
    return infinite_group(_rollouts(rate, right, wrong, samples, generator), _measured_drift)


def _averaged_scores(stop: float, count: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Lengths, and scores on the stop logit averaged over the tokens, of responses of geometric length.

    The score of a token is one less its probability if it ends the response, and minus that probability if not.
    """
    if stop == 0:  # nothing ends a response: however far it is followed, all its tokens go on
        return np.full(count, np.inf), np.full(count, -stop)
    lengths = generator.geometric(stop, count).astype(np.float64)
    return lengths, ((1 - stop) + (lengths - 1) * -stop) / lengths


def _mean_score(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    return mean_estimate(_averaged_scores(parameters["stop_probability"], samples, generator)[1])


def _share(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    lengths, scores = _averaged_scores(parameters["stop_probability"], samples, generator)
    table = np.stack([lengths > 1, scores], axis=1).astype(np.float64)
    return infinite_group(table, lambda kept: _stated_drift(kept) / _measured_drift(kept))


def _slope_gap_constant(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Five pass rates of a run, from the point on: v_R from gap and mean score, and the slope at the first."""
    share, cosine = parameters["mean_share"], parameters["cosine"]
    steps = np.log(max(1 - parameters["pass_rate"], 1e-12)) - 0.01 * np.arange(5)
    wanted = np.array([[share * cosine, share * np.sqrt(1 - cosine**2)], [1.0, 0.0]])
    logs = []
    for failure in np.exp(steps):
        system = np.array([[1 - failure, failure], [1.0, -1.0]])  # mean score and gap from v_R and v_W
        right = np.linalg.solve(system, wanted)[0]
        logs.append(np.log(right @ right))
    curve = np.polyfit((steps - steps[0]) / 0.01, logs, 4)
    return Estimate(float(curve[-2] / 0.01), 0.0, len(steps))


def _slope(of: Callable[[Array, Array], Array]) -> Callable[..., Estimate]:
    """Slope on log(1-p) of the log of a squared mean score along a run of constant v_R and mean score.

    The square is the inner product of the means of two independent batches.

    Args:
        of: mean scores given right and given wrong, [..., coordinate] each -> the mean score that is squared.
    """

    def simulate(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        failures = (1 - parameters["pass_rate"]) * _RUN
        width = max(samples // SLICES, 10)
        sums = np.zeros((SLICES, len(failures), 2, 2, 4))  # [slice, pass rate, batch, truth, count and sums]
        for index, failure in enumerate(failures):
            wrong = (_MEAN - (1 - failure) * _RIGHT) / failure
            reward = rewards(1 - failure, (SLICES, 2, width), generator)
            scores = _SCORE_NOISE * skewed((SLICES, 2, width, 3), generator)
            scores += np.where(reward[..., None] > 0, _RIGHT, wrong)
            for truth in (0, 1):
                given = (reward == truth).astype(np.float64)
                sums[:, index, :, truth, 0] = given.mean(axis=2)
                sums[:, index, :, truth, 1:] = np.einsum("sbw,sbwd->sbd", given, scores) / width

        def slope(mean: Array) -> float:
            scores = mean[..., 1:] / mean[..., :1]  # [pass rate, batch, truth, coordinate]
            first, second = np.moveaxis(of(scores[:, :, 1], scores[:, :, 0]), 1, 0)
            return float(np.polyfit(np.log(failures), np.log((first * second).sum(axis=1)), 1)[0])

        return jackknife(sums, slope, 2 * width * SLICES * len(failures))

    return simulate


def _batch_means(
    parameters: Parameters, shape: tuple[int, ...], dimension: int, generator: np.random.Generator
) -> Array:
    """Means of batches of n rollouts, [*shape, coordinate]; the sum of n exponentials is drawn at once."""
    count = parameters["rollouts"]
    spread = np.sqrt(parameters["noise_trace"] / dimension)
    true = np.zeros(dimension)
    true[0] = np.sqrt(parameters["signal_power"])
    return true + spread * (generator.standard_gamma(count, (*shape, dimension)) - count) / count


def _split_square(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """The mean over all pairs of sixteen batches."""
    means = _batch_means(parameters, (samples, _BATCHES), _DIMENSION, generator)
    all_pairs = (means.sum(axis=1) ** 2).sum(axis=1) - (means**2).sum(axis=(1, 2))
    return mean_estimate(all_pairs / (_BATCHES * (_BATCHES - 1)))


def _naive_square(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    return mean_estimate((_batch_means(parameters, (samples,), _DIMENSION, generator) ** 2).sum(axis=1))


def _split_error(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    dimension = parameters["dimension"]
    width = max(samples // (dimension * SLICES), 10)
    first, second = (_batch_means(parameters, (SLICES, width), dimension, generator) for _ in range(2))
    products = (first * second).sum(axis=2)
    products -= products.mean()  # keeps the difference of moments below free of cancellation
    moments = np.stack([products.mean(axis=1), (products**2).mean(axis=1)], axis=1)
    return jackknife(moments, lambda mean: float(np.sqrt(max(mean[1] - mean[0] ** 2, 0.0))), width * SLICES)


def _cosine(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Two estimates of a direction whose noise has unit variance in every coordinate."""
    dimension = parameters["dimension"]
    first, second = generator.standard_normal((2, max(samples // dimension, 400), dimension))
    length = np.sqrt(parameters["power_ratio"] * dimension)
    first[:, 0] += length
    second[:, 0] += length
    norms = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return mean_estimate((first * second).sum(axis=1) / norms)


SIMULATIONS: dict[str, Simulation] = {
    "drift": Simulation(_drift, 40_000),
    "discrepancy": Simulation(_discrepancy, 80_000),
    "paper_drift": Simulation(_paper_drift, 40_000),
    "length_averaged_mean_score": Simulation(_mean_score, 1_000_000),
    "length_averaged_share": Simulation(_share, 60_000),
    "slope_gap_constant": Simulation(_slope_gap_constant, 5),
    "slope_right_constant": Simulation(_slope(lambda right, wrong: right), 200_000),
    "gap_slope_right_constant": Simulation(_slope(lambda right, wrong: right - wrong), 100_000),
    "split_batch_square": Simulation(_split_square, 50_000),
    "naive_square": Simulation(_naive_square, 100_000),
    "split_batch_error": Simulation(_split_error, 4_000_000),
    "naive_cosine": Simulation(_cosine, 2_000_000),
    "naive_cosine_many_dimensions": Simulation(_cosine, 4_000_000),
}
