"""Adam under noise, stationary and in a bowl: prediction 7."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.checks.adam_process import AdamProcess
from lab.checks.controlled import controlled_covariance, controlled_mean
from lab.checks.estimate import Estimate, blocked_estimate, mean_estimate
from lab.checks.noise_record import NoiseRecord
from lab.checks.simulation import Parameters, Simulation
from lab.draw import Draw
from lab.errors import RunFailed
from lab.linearity.r_squared import r_squared
from lab.noise import TokenSignNoise

Array = NDArray[np.float64]
Run = Callable[[Parameters, int, np.random.Generator], Estimate]

_REPLICATES = 400
_BURN_IN = 4.0  # memories of v: what is left of a wrong variance of v is exp(-8)
_WINDOW = 1000  # updates of a displacement, where the law does not say how many
_PARTS = 16  # of a run or a window: the noise of each is a control
_BETA1, _BETA2 = 0.9, 0.999  # where the law has none
_DESCENT_BETA2 = 0.98  # descent_time states its error for it
_NOISELESS_UPDATES = 20_000  # so many memories of v that the path is that of an ideal descent
_CHUNK = 20_000  # replicates at a time
_MOST_PAIRS = 4000
_MOST_SHARE = 50  # of the updates a descent would take at full speed, until it is given up


# ----------------------------------------------------------------------------------------------------------------
# A gradient of constant mean
# ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Windows:
    """Displacements against the gradient over successive windows, with the noise that made them.

    Attributes:
        moved: float64 [replicate, window].
        controls: of the noise, float64 [replicate, window, control].
        variances: of the controls, known, float64 [control].
    """

    moved: Array
    controls: Array
    variances: Array


def stationary_windows(
    mean: float,
    noise: float,
    learning_rate: float,
    beta1: float,
    beta2: float,
    window: int,
    samples: int,
    generator: np.random.Generator,
) -> Windows:
    """Adam under gradients `mean` + `noise` xi, moments stationary: about `samples` updates, cut into windows.

    The moments start at their means and run until they have forgotten so.
    """
    replicates = min(_REPLICATES, max(samples // window, 200))
    count = max(samples // (window * replicates), 1)
    process = AdamProcess(
        np.zeros(replicates), learning_rate, beta1, beta2, moments=(mean, mean**2 + noise**2)
    )
    record = NoiseRecord(replicates, beta2, corrected=False)
    xi = np.empty(replicates)

    def update(part: int) -> None:
        generator.standard_normal(out=xi)
        record.add(xi, part)
        np.multiply(xi, noise, out=xi)
        np.add(xi, mean, out=xi)
        process.update(xi)

    for _ in range(int(np.ceil(_BURN_IN / (1 - max(beta1, beta2))))):
        update(0)
    parts = min(_PARTS, window)
    moved, controls = [], []
    for _ in range(count):
        start = process.position.copy()
        record.begin(parts)
        for inside in range(window):
            update(inside * parts // window)
        moved.append(start - process.position)
        controls.append(record.controls())
    return Windows(np.stack(moved, axis=1), np.stack(controls, axis=1), record.variances())


def _windows(parameters: Parameters, samples: int, window: int, generator: np.random.Generator) -> Windows:
    return stationary_windows(
        float(parameters["gradient_snr"]),
        1.0,
        float(parameters["learning_rate"]),
        float(parameters["beta1"]),
        float(parameters["beta2"]),
        window,
        samples,
        generator,
    )


def _drift(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    windows = _windows(parameters, samples, _WINDOW, generator)
    return controlled_mean(windows.moved / _WINDOW, windows.controls)


def _window_variance(per_update: bool) -> Run:
    def run(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
        window = int(parameters["window"])
        drawn = _windows(parameters, samples, window, generator)
        moved = drawn.moved / (np.sqrt(window) if per_update else 1.0)
        return controlled_covariance(moved, moved, drawn.controls, drawn.variances)

    return run


def _contraction(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """An update at a distance where the run has been held until the moments are stationary."""
    distance = float(parameters["distance"])
    windows = stationary_windows(
        float(parameters["curvature"]) * distance,
        float(parameters["noise"]),
        float(parameters["learning_rate"]),
        _BETA1,
        _BETA2,
        _WINDOW,
        samples,
        generator,
    )
    step = windows.moved / _WINDOW
    if parameters["noise"] == 0:
        return Estimate(float(1 - step.mean() / distance), 0.0, 1)
    return controlled_mean(1 - step / distance, windows.controls)


def _pure_noise_step_power(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """The last of a run's first updates, moments from zero."""
    number, rate = int(parameters["updates"]), float(parameters["learning_rate"])
    powers = []
    for start in range(0, samples, _CHUNK):
        count = min(_CHUNK, samples - start)
        process = AdamProcess(np.zeros(count), rate, float(parameters["beta1"]), float(parameters["beta2"]))
        before = process.position
        for _ in range(number):
            before = process.position.copy()
            process.update(generator.standard_normal(count))
        powers.append((process.position - before) ** 2)
    return mean_estimate(np.concatenate(powers))


def _sign_steps(parameters: Parameters, samples: int, generator: np.random.Generator) -> Array:
    """Steps against the gradient of Adam without memory."""
    process = AdamProcess(np.zeros(samples), float(parameters["learning_rate"]), 0.0, 0.0)
    process.update(parameters["gradient_snr"] + generator.standard_normal(samples))
    return -process.position


def _sign_step_mean(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    return mean_estimate(_sign_steps(parameters, samples, generator))


def _sign_step_variance(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Half the squared difference of two steps, whose mean is the variance."""
    first = _sign_steps(parameters, samples, generator)
    return mean_estimate((first - _sign_steps(parameters, samples, generator)) ** 2 / 2)


# ----------------------------------------------------------------------------------------------------------------
# A bowl
# ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Paths:
    """Runs in a bowl, and mirror images of their noise.

    Attributes:
        positions: distances from the bottom, float64 [checkpoint, replicate, 2]: a run and its mirror image.
        controls: of the noise, float64 [replicate, 2, control].
        variances: of the controls, known, float64 [control].
    """

    positions: Array
    controls: Array
    variances: Array


def bowl_paths(
    distance: float,
    curvature: float,
    noise: float,
    learning_rate: float,
    betas: tuple[float, float],
    marks: NDArray[np.int64],
    pairs: int,
    generator: np.random.Generator,
) -> Paths:
    """Adam from a point, moments from zero, under the gradient curvature x distance + noise xi.

    Args:
        distance: at the start.
        curvature: of the bowl.
        noise: standard deviation of the gradient.
        learning_rate: of every update.
        betas: decays of the moments.
        marks: updates at which checkpoints are taken, increasing, from 0.
        pairs: runs, each with its mirror image.
        generator: source of xi.
    """
    last = int(marks[-1])
    process = AdamProcess(np.full((2, pairs), distance), learning_rate, *betas)
    # parts end at every checkpoint, so that the noise of any window is a sum of controls; the first updates, which v
    # has hardly any gradients to scale by, have short ones
    doubling = 2 ** np.arange(int(np.log2(max(last // _PARTS, 1))) + 1)
    equal = np.arange(1, _PARTS) * last // _PARTS
    edges = np.unique(np.concatenate([marks, equal, doubling[doubling <= last]]))
    part = np.searchsorted(edges[edges > 0], np.arange(1, last + 1))
    record = NoiseRecord(pairs, betas[1], corrected=True)
    record.begin(int(part.max(initial=0)) + 1)
    xi = np.empty(pairs)
    gradient = np.empty((2, pairs))
    wanted = set(int(mark) for mark in marks)
    taken = [process.position.copy()] if 0 in wanted else []
    for update in range(1, last + 1):
        generator.standard_normal(out=xi)
        record.add(xi, part[update - 1])
        xi *= noise
        np.multiply(process.position, curvature, out=gradient)
        gradient[0] += xi
        gradient[1] -= xi
        process.update(gradient)
        if update in wanted:
            taken.append(process.position.copy())
    controls = record.controls()
    mirrored = np.stack([controls, controls * record.signs()], axis=1)
    return Paths(np.stack(taken).transpose(0, 2, 1), mirrored, record.variances())


def _paths(
    parameters: Parameters, marks: NDArray[np.int64], pairs: int, generator: np.random.Generator
) -> Paths:
    return bowl_paths(
        float(parameters.get("distance", 1.0)),
        float(parameters["curvature"]),
        float(parameters["noise"]),
        float(parameters["learning_rate"]),
        (float(parameters.get("beta1", _BETA1)), float(parameters.get("beta2", _BETA2))),
        marks,
        pairs,
        generator,
    )


def _pairs(samples: int, updates: int) -> int:
    return min(max(samples // (2 * max(updates, 1)), 200), _MOST_PAIRS)


def _bowl_mean(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    marks = np.array([int(parameters["updates"])])
    paths = _paths(parameters, marks, _pairs(samples, int(marks[-1])), generator)
    return mean_estimate(paths.positions[0].mean(axis=1))


def _bowl_covariance(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    ends = [int(parameters[name]) for name in ("first", "second", "updates") if name in parameters]
    marks, which = np.unique(ends, return_inverse=True)
    paths = _paths(parameters, marks, _pairs(samples, int(marks[-1])), generator)
    early, late = paths.positions[which[0]], paths.positions[which[-1]]
    return controlled_covariance(early, late, paths.controls, paths.variances)


def _bowl_r_squared(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    updates, count = int(parameters["updates"]), int(parameters["checkpoints"])
    steps = np.round(np.linspace(0, updates, count)).astype(np.int64)
    # curvature and distance one; the noise is then in units of the gradient at the start
    paths = bowl_paths(
        1.0,
        1.0,
        float(parameters["noise_ratio"]),
        float(parameters["path_ratio"]) / updates,
        (float(parameters["beta1"]), float(parameters["beta2"])),
        steps,
        _pairs(samples, updates),
        generator,
    )
    values = r_squared(paths.positions.reshape(count, -1), steps)
    return mean_estimate(values.reshape(-1, 2).mean(axis=1))


def _descent_time(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """When the mean distance has fallen to what should remain, by interpolation between two updates."""
    distance, remaining = float(parameters["distance"]), float(parameters["remaining"])
    curvature, noise = float(parameters["curvature"]), float(parameters["noise"])
    rate = float(parameters["learning_rate"])
    if remaining == distance:
        return Estimate(0.0, 0.0, 1)
    slowest = distance / rate * np.hypot(1.0, noise / (curvature * remaining))
    pairs = max(int(samples / slowest / 2), 100)
    process = AdamProcess(np.full((2, pairs), distance), rate, _BETA1, _DESCENT_BETA2)
    xi, gradient = np.empty(pairs), np.empty((2, pairs))
    means = [distance]
    while means[-1] > remaining:
        if process.updates > _MOST_SHARE * slowest:
            raise RunFailed(
                f"Adam did not come within {remaining} of the bottom in {process.updates} updates"
            )
        generator.standard_normal(out=xi)
        xi *= noise
        np.multiply(process.position, curvature, out=gradient)
        gradient[0] += xi
        gradient[1] -= xi
        process.update(gradient)
        means.append(float(process.position.mean()))
    step = means[-2] - means[-1]
    time = process.updates - (remaining - means[-1]) / step
    back = min(100, process.updates)
    speed = (means[-1 - back] - means[-1]) / back
    spread = process.position.mean(axis=0).std(ddof=1) / np.sqrt(pairs)
    return Estimate(time, float(spread / speed), pairs)


def _noiseless(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """One descent without noise, a checkpoint after every update."""
    rate = float(parameters["path_ratio"]) / _NOISELESS_UPDATES
    process = AdamProcess(np.ones(1), rate, _BETA1, _DESCENT_BETA2)
    path = np.ones((_NOISELESS_UPDATES + 1, 1))
    for update in range(1, len(path)):
        process.update(process.position.copy())
        path[update] = process.position
    return Estimate(float(r_squared(path, np.arange(len(path)))[0]), 0.0, 1)


# ----------------------------------------------------------------------------------------------------------------
# Sign noise on tokens
# ----------------------------------------------------------------------------------------------------------------


def _token_weights(decibels: float, shape: tuple[int, int], generator: np.random.Generator) -> Array:
    """Weights a + b eps of tokens, [batch, token], with a = 1."""
    noise = TokenSignNoise(1.0, 10 ** (-decibels / 20))
    return noise.weights(shape, Draw(int(generator.integers(2**62))), step=0)


def _token_snr(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Mean over standard deviation of batches of weighted token gradients.

    The native gradients of a batch have unit variance and any two the same correlation, which makes the variance of
    their mean `clustering` times that of independent ones.
    """
    tokens, clustering = int(parameters["tokens"]), float(parameters["clustering"])
    correlation = (clustering - 1) / (tokens - 1)
    shared = np.sqrt(clustering / tokens)  # standard deviation of the batch's native gradient
    gradients = []
    batches = max(samples // tokens, 1000)
    for start in range(0, batches, _CHUNK):
        count = min(_CHUNK, batches - start)
        own = generator.standard_normal((count, tokens))
        own -= own.mean(axis=1, keepdims=True)
        own *= np.sqrt(1 - correlation)
        own += shared * (parameters["native_snr"] + generator.standard_normal((count, 1)))
        own *= _token_weights(float(parameters["decibels"]), (count, tokens), generator)
        gradients.append(own.mean(axis=1))
    return blocked_estimate(np.concatenate(gradients), lambda g: float(g.mean() / g.std(ddof=1)))


def _signal_amplitude(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """The mean weight of a token, once the weights are scaled to a mean square of one."""
    weights = _token_weights(float(parameters["decibels"]), (samples, 1), generator)[:, 0]
    return blocked_estimate(weights, lambda c: float(c.mean() / np.sqrt((c**2).mean())))


SIMULATIONS: dict[str, Simulation] = {
    "drift": Simulation(_drift, 1_600_000),
    "drift_corrected": Simulation(_drift, 1_600_000),
    "window_variance": Simulation(_window_variance(per_update=False), 4_000_000),
    "diffusion_short": Simulation(_window_variance(per_update=True), 2_000_000),
    "diffusion_long": Simulation(_window_variance(per_update=True), 6_000_000),
    "pure_noise_step_power": Simulation(_pure_noise_step_power, 200_000),
    "sign_step_mean": Simulation(_sign_step_mean, 400_000),
    "sign_step_variance": Simulation(_sign_step_variance, 400_000),
    "contraction": Simulation(_contraction, 400_000),
    "descent_time": Simulation(_descent_time, 4_000_000),
    "noisy_bowl_mean": Simulation(_bowl_mean, 4_000_000),
    "noisy_bowl_variance": Simulation(_bowl_covariance, 24_000_000),
    "noiseless_r_squared": Simulation(_noiseless, 1),
    "token_snr": Simulation(_token_snr, 3_000_000),
    "signal_amplitude": Simulation(_signal_amplitude, 400_000),
    "bowl_path_mean": Simulation(_bowl_mean, 4_000_000),
    "bowl_path_covariance": Simulation(_bowl_covariance, 24_000_000),
    "bowl_mean_r_squared": Simulation(_bowl_r_squared, 4_000_000),
}
