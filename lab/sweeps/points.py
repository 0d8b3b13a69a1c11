"""Which points a sweep visits: samplers behind one interface.

Grid, random and QMC points follow from the number of the point alone: the same for any number of workers and after any
interruption. TPE asks Optuna, which looks at the results so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lab.errors import BadInput
from lab.sweeps.space import Label, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from lab.sweeps.settings import SweepSettings


class Points(Protocol):
    """The points of a sweep."""

    @property
    def count(self) -> int | None:
        """How many there are; None without an end."""

    def values(self, index: int) -> dict[str, Label] | None:
        """The point number `index`; None where Optuna is to be asked."""

    def sampler(self, n_trials: int) -> BaseSampler:
        """The Optuna sampler that is asked for trial number `n_trials`."""


@dataclass(frozen=True)
class _Enumerated:
    """Points that follow from their number."""

    space: Space
    seed: int

    def sampler(self, n_trials: int) -> BaseSampler:
        """See `Points`; every value is fixed beforehand, so it is never asked for one."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=0)


@dataclass(frozen=True)
class Grid(_Enumerated):
    """Every combination, the last axis fastest."""

    @property
    def count(self) -> int | None:
        """See `Points`."""
        return self.space.size

    def values(self, index: int) -> dict[str, Label] | None:
        """See `Points`."""
        return self.space.grid_point(index)


@dataclass(frozen=True)
class Random(_Enumerated):
    """Independent points, uniform on every axis."""

    count: int | None = None

    def values(self, index: int) -> dict[str, Label] | None:
        """See `Points`."""
        return self.space.at(np.random.default_rng([self.seed, index]).random(len(self.space.axes)).tolist())


@dataclass(frozen=True)
class Qmc(_Enumerated):
    """A scrambled Sobol sequence (Owen 1998), more even than random points; best at powers of two."""

    count: int | None = None

    def values(self, index: int) -> dict[str, Label] | None:
        """See `Points`."""
        return self.space.at(_sobol(len(self.space.axes), self.seed, index))


@lru_cache(maxsize=4096)
def _sobol(dimensions: int, seed: int, index: int) -> tuple[float, ...]:
    from scipy.stats.qmc import Sobol

    sequence = Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
    if index:
        sequence.fast_forward(index)
    point: list[float] = np.minimum(sequence.random(1)[0], np.nextafter(1.0, 0.0)).tolist()
    return tuple(point)


@dataclass(frozen=True)
class Tpe:
    """Optuna's tree-structured Parzen estimator, which looks for the best objective."""

    space: Space
    seed: int
    count: int | None = None

    def values(self, index: int) -> dict[str, Label] | None:
        """See `Points`."""
        return None

    def sampler(self, n_trials: int) -> BaseSampler:
        """See `Points`; a seed of its own for each trial, so that workers do not all propose the same."""
        from optuna.samplers import TPESampler

        seed = int(np.random.SeedSequence([self.seed, n_trials]).generate_state(1)[0])
        return TPESampler(seed=seed, constant_liar=True)


SAMPLERS: dict[str, Callable[[Space, int], Points]] = {"grid": Grid, "random": Random, "tpe": Tpe, "qmc": Qmc}
"""Samplers by name."""


def build_points(space: Space, settings: SweepSettings) -> Points:
    """Return the points that the settings ask for.

    Raises:
        BadInput: a grid over a continuum, or no number of trials where points have no end.
    """
    points = SAMPLERS[settings.sampler](space, settings.seed)
    if settings.sampler == "grid":
        for axis in space.axes:
            if axis.labels is None:
                raise BadInput(
                    f"sweep.space.{axis.key}: a grid needs values to go through, such as "
                    "choice(...) or range(...); an interval needs sweep.sampler=random, qmc or tpe"
                )
    elif settings.trials is None:
        raise BadInput(
            f"sweep.trials: give the number of points, sweep.sampler={settings.sampler} has no end"
        )
    return points
