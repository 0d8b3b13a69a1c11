"""What a worker has to know: plain data, so that it travels to another process or machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import BadInput
from lab.sweeps.configs import Composer, composing, refuse_own_keys
from lab.sweeps.points import Points, build_points
from lab.sweeps.settings import SweepSettings, build_sweep_settings
from lab.sweeps.space import Space, parse_space
from lab.sweeps.storage import JOURNAL, mask, open_storage
from lab.sweeps.study import SweepStudy
from lab.sweeps.trials import TrialKind, trial_kind

CHECKED_POINTS = 200
"""So many points of a sweep are composed and checked before the first trial; more are checked when their turn comes."""


@dataclass(frozen=True)
class Plan:
    """Everything that a worker needs to take part in a sweep.

    Attributes:
        study: name of the Optuna study.
        directory: of the study, absolute.
        cwd: working directory, against which `./conf` and relative paths are read.
        config_dir: of the command line, absolute.
        overrides: of every trial.
        sweep: the node `sweep`, plain.
        storage: database URL, never shown; None for the journal file.
        threads: CPU threads of each worker.
        retry_below: failed trials of smaller number are tried again.
    """

    study: str
    directory: str
    cwd: str
    config_dir: str | None
    overrides: tuple[str, ...]
    sweep: dict[str, Any]
    storage: str | None = field(repr=False)
    threads: int
    retry_below: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain data, the password of the storage included: keep it out of files."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of `as_dict`, JSON in between allowed."""
        return cls(**{**data, "overrides": tuple(data["overrides"])})


@dataclass(frozen=True)
class Bench:
    """What a plan becomes in the process that works on it."""

    plan: Plan
    kind: TrialKind
    settings: SweepSettings
    space: Space
    points: Points
    composer: Composer

    def open_study(self) -> SweepStudy:
        """Open the study, or make it.

        Raises:
            BadInput: the storage cannot be used, or has another study of this name.
        """
        directory = Path(self.plan.directory)
        storage = open_storage(self.plan.storage, directory)
        study = SweepStudy(self.plan.study, directory, storage, self.space, self.points, self.settings)
        study.agree_on(identity(self), self.storage_name)
        return study

    @property
    def storage_name(self) -> str:
        """What messages call the storage."""
        return mask(self.plan.storage) or str(Path(self.plan.directory) / JOURNAL)


@contextmanager
def set_up(plan: Plan) -> Iterator[Bench]:
    """Parse the space and compose the base of all trials; configurations can be composed while the block runs.

    Raises:
        BadInput: something in the node `sweep` or in the overrides cannot be used.
    """
    with composing(plan.config_dir) as loader:
        kind = trial_kind(str(plan.sweep.get("verb")))
        settings = build_sweep_settings(plan.sweep, kind.metrics)
        space = parse_space(settings.space, settings.groups, loader)
        refuse_own_keys(space)
        points = build_points(space, settings)
        yield Bench(plan, kind, settings, space, points, Composer(kind.config, plan.overrides))


def check_points(bench: Bench) -> int:
    """Compose and check the points that are known beforehand, the corners of the space where none are; return how many.

    Raises:
        BadInput: a key that does not exist or that no code reads, a value that cannot be; names the point.
    """
    checked = 0
    for values in _known_points(bench.space, bench.points, bench.settings.trials):
        try:
            resolved = bench.composer.config(bench.space.overrides(values))
            bench.kind.check({**resolved, "seed": bench.settings.seeds[0]}, bench.settings)
        except BadInput as error:
            shown = ", ".join(f"{key}={value}" for key, value in values.items())
            raise BadInput(f"{error} (at the point {shown})") from None
        checked += 1
    return checked


def _known_points(space: Space, points: Points, trials: int | None) -> Iterator[dict[str, Any]]:
    yield space.at([0.0] * len(space.axes))
    yield space.at([1.0 - 2.0**-53] * len(space.axes))
    for number, axis in enumerate(
        space.axes
    ):  # each option of each axis once: where a group option can be wrong
        for position in range(len(axis.labels or ())):
            shares = [0.0] * len(space.axes)
            shares[number] = (position + 0.5) / len(axis.labels or (0,))
            yield space.at(shares)
    limits = [limit for limit in (points.count, trials, CHECKED_POINTS) if limit is not None]
    for index in range(min(limits)):
        values = points.values(index)
        if values is not None:
            yield values


def identity(bench: Bench) -> dict[str, Any]:
    """Return what makes two sweeps the same: space, seeds, what is noted, what all trials share."""
    settings = dataclasses.asdict(bench.settings)
    for key in ("trials", "attempts", "space", "groups"):
        del settings[key]
    settings["seeds"] = list(bench.settings.seeds)
    settings["condition"] = list(bench.settings.condition)
    settings["protocols"] = list(bench.settings.protocols)
    return {"space": bench.space.describe(), "sweep": settings, "base": bench.composer.base}


def disk_bytes(bench: Bench, points: int) -> int:
    """How much disk the sweep takes at most, by its base configuration."""
    return points * len(bench.settings.seeds) * bench.kind.disk_bytes(bench.composer.base)
