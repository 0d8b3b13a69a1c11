"""What R² driftless random walks have: the reference that stands beside every histogram of R².

Walks are independent between elements, so these are reference curves, not tests: elements of one run share
noise. For a p-value see `lab.linearity.sign_flip`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lab.linearity.checks import MINIMUM_CHECKPOINTS, FloatArray, check_steps, check_trajectory
from lab.linearity.filters import Protocol
from lab.linearity.r_squared import r_squared_unchecked
from lab.settings import require


@dataclass(frozen=True)
class SelectionMatched:
    """R² of random walks that passed a protocol's cast and filter.

    Attributes:
        r2: [survivor], float64; NaN where a survivor has zero variance.
        retained_share: share of the walks that the filter kept.
    """

    r2: FloatArray
    retained_share: float


def walk_r_squared(steps: ArrayLike, samples: int, generator: np.random.Generator) -> FloatArray:
    """R² of driftless Gaussian random walks observed at `steps`, shape [samples], float64.

    Increment k has variance t_{k+1} - t_k (Brownian motion at the checkpoints); R² does not depend on the
    scale. Classical: about .44 in the mean at any length (Nelson & Kang 1984).

    Raises:
        Invalid: bad `steps`, or `samples` below 1.
    """
    times = check_steps(steps)
    require(samples >= 1, "samples", f"expected at least 1, got {samples}")
    return r_squared_unchecked(_walks(times, np.ones(samples), generator), times)


def selection_matched(
    values: ArrayLike,
    steps: ArrayLike,
    protocol: Protocol,
    kind: str,
    generator: np.random.Generator,
    samples: int,
) -> SelectionMatched:
    """R² of walks that share the real elements' starts and scales, and pass the same cast and filter.

    Each walk starts at the first value of a real element and has that element's own increment scale, the root
    mean square of (increment / sqrt(spacing)) over the uncast values; elements are used equally often. The
    scale includes whatever drift there is, so a drifting element's walk moves as far as the element does.

    Args:
        values: [checkpoint, element], before the cast.
        steps: [checkpoint].
        protocol: the cast and the filter.
        kind: 'weights' or 'logprobs'.
        generator: source of randomness.
        samples: number of walks before the filter.

    Raises:
        Invalid: see `check_trajectory`; unknown `kind`; `samples` below 1.
    """
    table, times = check_trajectory(values, steps)
    require(samples >= 1, "samples", f"expected at least 1, got {samples}")
    spacing = np.diff(times)[:, None]
    scale = np.sqrt(np.mean(np.square(np.diff(table, axis=0)) / spacing, axis=0))
    elements = np.resize(generator.permutation(table.shape[1]), samples)
    walks = protocol.cast(table[0, elements] + _walks(times, scale[elements], generator), kind)
    kept = protocol.keep(walks, kind)
    return SelectionMatched(r_squared_unchecked(walks[:, kept], times), float(kept.mean()))


def exact_mean_walk_r_squared(n: int) -> float:
    """Exact mean R² of a driftless Gaussian random walk at `n` equally spaced checkpoints.

    With x the centred walk, u the centred unit-norm steps, lambda_i the non-zero eigenvalues of x's
    covariance and a_i the components of u along its eigenvectors,

        E[(u'x)² / (x'x)] = int_0^inf E[(u'x)² exp(-z x'x)] dz = int_0^inf f(z) dz,
        f(z) = prod_i (1 + 2 z lambda_i)^(-1/2) sum_i a_i² lambda_i / (1 + 2 z lambda_i),

    the one-dimensional integral for a ratio of quadratic forms. .538 at n = 4, .442 at 14, .434 in the limit.

    Raises:
        Invalid: `n` below 3.
    """
    from scipy.integrate import quad  # Slow to import, and only this function needs it.

    require(n >= MINIMUM_CHECKPOINTS, "n", f"expected at least {MINIMUM_CHECKPOINTS} checkpoints, got {n}")
    index = np.arange(n, dtype=np.float64)
    centring = np.eye(n) - 1.0 / n
    eigenvalues, eigenvectors = np.linalg.eigh(centring @ np.minimum.outer(index, index) @ centring)
    eigenvalues, eigenvectors = (
        eigenvalues[1:],
        eigenvectors[:, 1:],
    )  # The first belongs to the constant vector.
    eigenvalues /= eigenvalues[-1]
    direction = index - index.mean()
    loading = np.square(direction @ eigenvectors) / (direction @ direction) * eigenvalues

    def integrand(z: float) -> float:
        widths = 1.0 + 2.0 * z * eigenvalues
        return float(np.sum(loading / widths) * np.exp(-0.5 * np.sum(np.log(widths))))

    return float(quad(integrand, 0.0, 1.0)[0] + quad(integrand, 1.0, np.inf)[0])


def _walks(times: FloatArray, scale: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Walks from zero, [checkpoint, walk], with increments of standard deviation scale * sqrt(spacing)."""
    increments = generator.standard_normal((len(times) - 1, len(scale)))
    increments *= np.sqrt(np.diff(times))[:, None] * scale
    return np.concatenate([np.zeros((1, len(scale))), np.cumsum(increments, axis=0)])
