"""Sinusoids and white gradients through the lab's optimisers: prediction 8.

Gains are measured by what comes out where a sinusoid goes in, spectra by autocovariances of what comes out where white
noise goes in: summed up to a lag beyond which memory has faded, they estimate a spectrum without bias.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lab.checks.descent import CONSTANT, descend, sgd
from lab.checks.estimate import Estimate, mean_estimate
from lab.checks.simulation import Parameters, Simulation
from lab.optimizers import AdamWSettings

Array = NDArray[np.float64]

_FORGOTTEN = 1e-10  # share of a start that may be left in a filter that should be in its steady state
_FADED = 1e-4  # share of an autocovariance beyond which lags are left out
_REPLICATES = 4000
_CYCLES = 20  # checkpoints at which an aliased sinusoid is seen


def _memory(beta: float, left: float) -> int:
    """Updates after which no more than `left` of a moving average's past remains."""
    return 1 if beta == 0 else int(np.ceil(np.log(left) / np.log(beta))) + 1


def _sinusoid(frequency: float) -> Callable[[int, Array, Array], object]:
    """Gradients cos(w t) and sin(w t) on two coordinates."""

    def gradient(update: int, here: Array, out: Array) -> None:
        out[:] = np.cos(frequency * update), np.sin(frequency * update)

    return gradient


def _average_gain(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Size of Adam's first moment, a moving average of the gradient, under a sinusoid of size 1."""
    beta = float(parameters["beta"])
    adam = AdamWSettings("adamw", 1e-3, 0.0, None, CONSTANT, beta, 0.999, 1e-8)
    steady = _memory(beta, _FORGOTTEN)
    run = descend(adam, np.zeros(2), _sinusoid(float(parameters["frequency"])))
    *_, (_, moments) = islice(run, steady + 1)
    return Estimate(float(np.hypot(*moments["first_moment"])), 0.0, 1)


def _window_gain(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """How far SGD of rate 1/K moves in K updates under a sinusoid of size 1."""
    window = int(parameters["window"])
    run = descend(sgd(1 / window), np.zeros(2), _sinusoid(float(parameters["frequency"])))
    *_, (position, _) = islice(run, window)
    return Estimate(float(np.hypot(*position)), 0.0, 1)


def _white(generator: np.random.Generator, size: float = 1.0) -> Callable[[int, Array, Array], object]:
    """White Gaussian gradients of standard deviation `size`."""

    def gradient(update: int, here: Array, out: Array) -> None:
        generator.standard_normal(out=out)
        out *= size

    return gradient


def _replicates(samples: int) -> int:
    return min(_REPLICATES, max(samples // 200, 400))


def _passed_variance(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """Mean square of Adam's first moment, averaged over time, under white gradients of variance 1."""
    beta, count = float(parameters["beta"]), _replicates(samples)
    adam = AdamWSettings("adamw", 1e-3, 0.0, None, CONSTANT, beta, 0.999, 1e-8)
    steady, updates = _memory(beta**2, _FORGOTTEN), max(samples // count, 1)
    total = np.zeros(count)
    run = descend(adam, np.zeros(count), _white(generator))
    for _, moments in islice(run, steady, steady + updates):
        total += moments["first_moment"] ** 2
    return mean_estimate(total / updates)


def _displacements(
    parameters: Parameters, window: int, samples: int, generator: np.random.Generator
) -> Array:
    """Displacements between checkpoints under momentum, stationary, [checkpoint interval, replicate].

    The rate times the gradients has the standard deviation `noise`; as in the law, momentum weighs gradients by
    (1 - beta) beta^age.
    """
    beta, noise, count = float(parameters["beta"]), float(parameters["noise"]), _replicates(samples)
    steady = _memory(beta, _FORGOTTEN)
    intervals = max(samples // (count * window), 2 * _lags(beta, window))
    run = descend(sgd(0.1 * (1 - beta), beta), np.zeros(count), _white(generator, noise / 0.1))
    positions = [
        position.copy() for position, _ in islice(run, steady - 1, steady + intervals * window, window)
    ]
    return np.diff(np.stack(positions), axis=0)


def _lags(beta: float, window: int) -> int:
    """Number of autocovariances, that at lag 0 included, that are not negligible at this spacing."""
    return 2 + int(np.ceil(_memory(beta, _FADED) / window))


def _power(displacements: Array, frequency: float, lags: int) -> Array:
    """An unbiased estimate of the spectrum for each replicate, [replicate], once lags >= `lags` have faded.

    The spectrum is the sum over all lags of autocovariance x cos(lag x frequency); the mean is known to be zero.
    """
    length, count = displacements.shape
    lag = np.arange(lags)
    weights = np.where(lag == 0, 1.0, 2 * np.cos(lag * frequency)) / (length - lag)
    result = np.empty(count)
    for start in range(0, count, _REPLICATES // 20):
        part = displacements[:, start : start + _REPLICATES // 20].T
        # padded with zeros, so that the transform does not wrap round
        transform = np.fft.rfft(part, length + lags)
        products = np.fft.irfft(transform.real**2 + transform.imag**2, length + lags)[:, :lags]
        result[start : start + _REPLICATES // 20] = products @ weights
    return result


def _spectrum(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    window = int(parameters.get("window", 1))
    moved = _displacements(parameters, window, samples, generator)
    return mean_estimate(_power(moved, parameters["frequency"], _lags(float(parameters["beta"]), window)))


def _alias(parameters: Parameters, samples: int, generator: np.random.Generator) -> Estimate:
    """The frequency of SGD's displacements between checkpoints under a sinusoid.

    Any sinusoid obeys x_{k+1} + x_{k-1} = 2 cos(frequency) x_k, which is solved for the frequency a checkpoint.
    """
    window = int(parameters["window"])
    run = descend(sgd(1.0), np.zeros(2), _sinusoid(float(parameters["frequency"])))
    positions = [position.copy() for position, _ in islice(run, 0, _CYCLES * window, window)]
    moved = np.diff(np.stack(positions), axis=0)
    neighbours = moved[2:] + moved[:-2]
    cosine = (neighbours * moved[1:-1]).sum() / (2 * (moved[1:-1] ** 2).sum())
    return Estimate(float(np.arccos(np.clip(cosine, -1, 1)) / window), 0.0, 1)


SIMULATIONS: dict[str, Simulation] = {
    "average_gain": Simulation(_average_gain, 1),
    "window_gain": Simulation(_window_gain, 1),
    "passed_variance": Simulation(_passed_variance, 1_000_000),
    "increment_spectrum": Simulation(_spectrum, 3_000_000),
    "checkpoint_spectrum": Simulation(_spectrum, 3_000_000),
    "alias_frequency": Simulation(_alias, 1),
}
