"""How many runs and checkpoints it takes to see an effect: power by simulation and by the noncentral t.

A run is simulated as `coordinates` independent random walks with a drift each, of which S² is the drift over the
window squared over the variance of the noise accumulated over it, pooled over coordinates. The thousands of weights
of a real run share noise directions and amount to far fewer independent ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lab.linearity.filters import get_protocol
from lab.linearity.sign_flip import sign_flip_test, sign_patterns
from lab.linearity.statistics import MedianRSquared
from lab.settings import require

Array = NDArray[np.float64]
Drifts = Literal["equal", "gaussian"]


@dataclass(frozen=True)
class RunPower:
    """What one run of so many checkpoints can show.

    Attributes:
        power: share of simulated runs whose sign-flip p is at most the level.
        error: standard error of `power`.
        smallest_p: the least p that this many checkpoints allow; power is 0 where it exceeds the level.
        median: [run], median R² of each simulated run.
    """

    power: float
    error: float
    smallest_p: float
    median: Array


def run_power(
    checkpoints: int,
    signal: float,
    coordinates: int,
    generator: np.random.Generator,
    level: float = 0.05,
    flips: int = 199,
    simulations: int = 200,
    drifts: Drifts = "gaussian",
) -> RunPower:
    """Simulate runs and test each by sign flips of its median R², as `lab measure` does.

    Args:
        checkpoints: n, equally spaced, 3 or more.
        signal: S over the window, 0 or more.
        coordinates: independent ones that the run amounts to.
        generator: source of all randomness.
        level: of the test, in (0, 1).
        flips: sign patterns where not all 2^(n-2) are enumerated.
        simulations: number of runs.
        drifts: the same size at each coordinate, or Gaussian over coordinates.

    Raises:
        Invalid: a number out of range.
    """
    require(checkpoints >= 3, "checkpoints", f"expected at least 3, got {checkpoints}")
    require(coordinates >= 1, "coordinates", f"expected at least 1, got {coordinates}")
    require(simulations >= 1, "simulations", f"expected at least 1, got {simulations}")
    patterns = sign_patterns(checkpoints - 1, flips, generator, max_enumeration=flips + 1)
    statistic = MedianRSquared(get_protocol("unfiltered"), "weights")
    steps = np.arange(checkpoints, dtype=np.float64)
    p_values, medians = np.empty(simulations), np.empty(simulations)
    for index in range(simulations):
        path = simulate_run(checkpoints, signal, coordinates, generator, drifts)
        tested = sign_flip_test(path, steps, statistic, generator, patterns=patterns)
        p_values[index], medians[index] = tested.p_value, tested.observed
    power = float(np.mean(p_values <= level))
    return RunPower(
        power, float(np.sqrt(power * (1 - power) / simulations)), 1 / (1 + len(patterns.signs)), medians
    )


def simulate_run(
    checkpoints: int, signal: float, coordinates: int, generator: np.random.Generator, drifts: Drifts
) -> Array:
    """Return walks of unit variance an interval with drift, float64 [checkpoint, coordinate], starting at 0.

    Over the n - 1 intervals the noise accumulates variance n - 1, so that S² = (n - 1) drift².
    """
    size = np.ones(coordinates) if drifts == "equal" else generator.standard_normal(coordinates)
    drift = signal / np.sqrt(checkpoints - 1) * size
    increments = drift + generator.standard_normal((checkpoints - 1, coordinates))
    return np.concatenate([np.zeros((1, coordinates)), np.cumsum(increments, axis=0)])


def paired_t_power(runs: ArrayLike, effect: ArrayLike, level: float = 0.05) -> Array:
    """Power of the two-sided paired t test.

    t of n pairs with mean difference delta and standard deviation sigma of differences is noncentral t with n - 1
    degrees of freedom and noncentrality sqrt(n) delta/sigma (Johnson and Welch 1940).

    Args:
        runs: number of pairs n, 2 or more.
        effect: delta/sigma, broadcast against `runs`.
        level: of the test, in (0, 1).

    Returns:
        power, in the broadcast shape.

    Raises:
        Invalid: fewer than two pairs, a level outside (0, 1).
    """
    from scipy.stats import nct
    from scipy.stats import t as student

    pairs, size = np.broadcast_arrays(np.asarray(runs, dtype=np.float64), np.abs(np.asarray(effect, float)))
    require(bool(np.all(pairs >= 2)), "runs", "a t test needs at least 2 pairs")
    require(0 < level < 1, "level", f"expected a number between 0 and 1, got {level}")
    limit = student.isf(level / 2, pairs - 1)
    centre = np.sqrt(pairs) * size
    # far out, where the distribution function gives NaN, the test cannot miss
    upper = np.nan_to_num(nct.sf(limit, pairs - 1, centre), nan=1.0)
    lower = np.nan_to_num(nct.cdf(-limit, pairs - 1, centre), nan=0.0)
    return np.asarray(np.clip(upper + lower, 0.0, 1.0))


def runs_needed(effect: float, power: float = 0.8, level: float = 0.05, most: int = 10_000) -> int | None:
    """Return the smallest number of pairs at which the paired t test has this power; None above `most`.

    Raises:
        Invalid: see `paired_t_power`.
    """
    low, high = 2, most
    if float(paired_t_power(high, effect, level)) < power:
        return None
    while low < high:  # power grows with the number of pairs
        middle = (low + high) // 2
        if float(paired_t_power(middle, effect, level)) >= power:
            high = middle
        else:
            low = middle + 1
    return low


def smallest_effect(runs: int, power: float = 0.8, level: float = 0.05) -> float:
    """Return delta/sigma that the paired t test of so many pairs sees with this power, to 1e-9 of itself.

    Raises:
        Invalid: see `paired_t_power`.
    """
    low, high = 0.0, 1.0
    while float(paired_t_power(runs, high, level)) < power:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        if float(paired_t_power(runs, middle, level)) < power:
            low = middle
        else:
            high = middle
    return high


def spread_of_differences(values: ArrayLike) -> float:
    """Return the standard deviation of the difference of two points at the same seed, pooled over points.

    What is left of each value after the means of its point and of its seed is the part that common random numbers
    do not cancel; a difference has twice its variance.

    Args:
        values: [point, seed]; points with an undefined seed are left out.

    Returns:
        the standard deviation, in the unit of the values; NaN where fewer than two points or seeds are left.
    """
    table = np.asarray(values, dtype=np.float64)
    table = table[~np.isnan(table).any(axis=1)]
    points, seeds = table.shape
    if points < 2 or seeds < 2:
        return float("nan")
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float(np.sqrt(2 * (rest**2).sum() / ((points - 1) * (seeds - 1))))
