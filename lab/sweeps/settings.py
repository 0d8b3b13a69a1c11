"""Settings of a sweep: the node `sweep` of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lab.errors import BadInput
from lab.linearity.filters import get_protocol
from lab.settings import build, choose, require, suggest
from lab.sweeps.points import SAMPLERS


@dataclass(frozen=True)
class Goal:
    """Which metric a sweep is about, and whether more of it is better."""

    metric: str
    direction: Literal["minimize", "maximize"]


@dataclass(frozen=True)
class SweepSettings:
    """What a sweep visits and what it notes; see `lab/conf/sweep.yaml` for each key."""

    verb: str
    space: dict[str, Any]
    groups: dict[str, Any]
    condition: tuple[str, ...]
    sampler: str
    seed: int
    trials: int | None
    seeds: tuple[int, ...]
    metrics: dict[str, str]
    objective: Goal | None
    pruner: str
    measure: bool
    protocols: tuple[str, ...]
    flips: int
    attempts: int

    def __post_init__(self) -> None:
        choose(SAMPLERS, self.sampler, "sweep.sampler")
        choose(dict.fromkeys(PRUNERS), self.pruner, "sweep.pruner")
        require(self.seed >= 0, "seed", f"expected at least 0, got {self.seed}")
        require(self.trials is None or self.trials >= 1, "trials", f"expected at least 1, got {self.trials}")
        require(len(self.seeds) > 0, "seeds", "expected at least one seed")
        require(len(set(self.seeds)) == len(self.seeds), "seeds", "a seed is listed twice")
        require(min(self.seeds) >= 0, "seeds", "expected whole numbers of at least 0")
        require(self.attempts >= 1, "attempts", f"expected at least 1, got {self.attempts}")
        require(self.flips >= 19, "flips", f"at least 19 are needed for p <= .05, got {self.flips}")
        require(
            len(self.protocols) > 0 or not self.measure, "protocols", "name at least one, or measure=false"
        )
        for protocol in self.protocols:
            get_protocol(protocol)
        for name, path in self.metrics.items():
            require(isinstance(path, str) and bool(path.strip("?")), f"metrics.{name}", "expected a path")
        if self.objective is not None and self.objective.metric not in self.metrics:
            message = (
                f"unknown metric {self.objective.metric!r}; {suggest(self.objective.metric, self.metrics)}"
            )
            require(False, "objective.metric", message)
        searches = self.sampler == "tpe" or self.pruner != "none"
        require(self.objective is not None or not searches, "objective", "tpe and pruners need one")


PRUNERS = ("none", "median", "wilcoxon")
"""median: worse than the median of the others after as many seeds; wilcoxon: significantly worse than the best,
seed by seed."""


def build_sweep_settings(node: Mapping[str, Any], default_metrics: Mapping[str, str]) -> SweepSettings:
    """Build the settings from the node `sweep`; `seeds` may be a count, `metrics` a list of paths or null.

    Raises:
        BadInput: a key that no code reads, or an impossible value; names the key.
    """
    plain = dict(node)
    seeds = plain.get("seeds")
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if seeds < 1:
            raise BadInput(f"sweep.seeds: expected a count of at least 1 or a list, got {seeds}")
        plain["seeds"] = list(range(seeds))
    metrics = plain.get("metrics")
    if not metrics:
        plain["metrics"] = dict(default_metrics)
    elif isinstance(metrics, (list, tuple)):
        plain["metrics"] = {metric_name(str(path)): str(path) for path in metrics}
    for name in plain["metrics"] if isinstance(plain["metrics"], Mapping) else ():
        if name in RESERVED or name in plain.get("space", {}) or name in plain.get("groups", {}):
            raise BadInput(f"sweep.metrics.{name}: this name is taken in the results; choose another")
    return build(SweepSettings, plain, "sweep")


RESERVED = ("seed", "trial", "point", "state", "error", "seconds")
"""Names that the table of results has anyway."""


def metric_name(path: str) -> str:
    """Return the name of a metric that was given as a path only."""
    return path.rstrip("?").replace(".", "_")
