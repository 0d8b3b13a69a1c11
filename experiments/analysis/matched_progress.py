"""Straightness at equal progress: the window from the start that ends where a run has gained a fixed pass rate.

Progress is the verified pass rate of the training rollouts (before flips), smoothed by a parabola in time through the
run's intervals; the window's mean R² is read at the checkpoint before and after by interpolation. A short window is
straighter by chance alone, so that what is compared is R² less that of random walks of as many checkpoints. A run that
never gains as much is censored: it is counted and left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.analysis.statistics import Rows, interval
from lab.linearity.walk import exact_mean_walk_r_squared

Array = NDArray[np.float64]


def smoothed_gain(steps: Sequence[float], pass_rate: Sequence[float]) -> Array:
    """Return the gain in pass rate since the first step at each recorded step, [checkpoint].

    Args:
        steps: recorded steps, [checkpoint].
        pass_rate: means over the intervals between them, [checkpoint - 1], 3 or more.
    """
    edges = np.asarray(steps, dtype=np.float64)
    span = edges[-1] - edges[0]
    middle = ((edges[1:] + edges[:-1]) / 2 - edges[0]) / span
    parabola = np.polynomial.Polynomial.fit(middle, pass_rate, 2, domain=[0, 1], window=[0, 1])
    return np.asarray(parabola((edges - edges[0]) / span) - parabola(0.0))


def excess_at_gain(row: Mapping[str, Any], gain: float, shortest: int) -> float | None:
    """Return the window's mean R² less the walk's where the run first gains `gain`; None where it never does.

    Args:
        row: a collected run with `steps`, `training_pass_rate` and `window_r2_mean`, the R² of windows that end
            at the checkpoints from number `shortest` (counted from 1) on.
        gain: in pass rate, positive.
        shortest: checkpoints of the shortest window; one that would be shorter is taken as that.
    """
    gains = smoothed_gain(row["steps"], row["training_pass_rate"])
    reached = np.flatnonzero(gains >= gain)
    if not len(reached):
        return None
    last = max(int(reached[0]), 1)
    # where between two checkpoints, counted in checkpoints
    place = last - (gains[last] - gain) / max(gains[last] - gains[last - 1], 1e-12)
    windows = np.asarray(row["window_r2_mean"], dtype=np.float64)
    walks = np.array([exact_mean_walk_r_squared(shortest + i) for i in range(len(windows))])
    return float(np.interp(place + 1, np.arange(len(windows)) + shortest, windows - walks))


def slope_on_flips(excess: Mapping[float, Mapping[int, float]]) -> dict[str, Any]:
    """Return the slope of excess R² on the share of flips, by seeds that every arm has; t interval over seeds.

    Args:
        excess: by share of flips, by seed.
    """
    flips = np.array(sorted(excess))
    seeds = sorted(set.intersection(*(set(values) for values in excess.values())))
    centred = flips - flips.mean()
    slopes = [
        float(centred @ [excess[share][seed] for share in flips] / (centred @ centred)) for seed in seeds
    ]
    return interval(slopes)


def at_matched_progress(rows: Rows, gain: float, shortest: int) -> dict[str, Any]:
    """Compare arms of one cell at a fixed gain.

    Args:
        rows: collected runs whose `flips` are numbers.
        gain: in pass rate.
        shortest: see `excess_at_gain`.

    Returns:
        for each share of flips the interval of the excess over seeds, how many runs there are and how many were
        censored; the slope over arms in which at least two runs reach the gain, and which arms those are.
    """
    arms: dict[float, dict[int, float | None]] = {}
    for row in rows:
        arms.setdefault(float(row["flips"]), {})[int(row["seed"])] = excess_at_gain(row, gain, shortest)
    reached = {
        share: {seed: value for seed, value in values.items() if value is not None}
        for share, values in sorted(arms.items())
    }
    used = {share: values for share, values in reached.items() if len(values) >= 2}
    return {
        "gain": gain,
        "arms": {
            str(share): {
                "excess_r2": interval(values.values()),
                "runs": len(arms[share]),
                "censored": len(arms[share]) - len(values),
            }
            for share, values in reached.items()
        },
        "slope_on_flips": slope_on_flips(used) if len(used) > 1 else None,
        "slope_over_flips": sorted(used),
    }
