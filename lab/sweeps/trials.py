"""What one seed of a point is: the verbs that can be swept, each with its configuration, check and function."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from lab.errors import BadInput
from lab.runs import Run
from lab.settings import choose, suggest
from lab.sweeps.settings import SweepSettings


class TrialKind(Protocol):
    """A verb that can be swept."""

    config: str
    """Name of the configuration that it composes."""
    defaults: tuple[str, ...]
    """Overrides that a sweep makes unless the experiment makes them otherwise."""
    metrics: Mapping[str, str]
    """What is noted where an experiment names no metrics: name -> path, see `read_metric`."""

    def check(self, resolved: Mapping[str, Any], settings: SweepSettings) -> None:
        """Refuse a configuration that cannot run, in milliseconds.

        Raises:
            BadInput: names the key.
        """

    def disk_bytes(self, resolved: Mapping[str, Any]) -> int:
        """How much disk one seed takes at most."""

    def run(self, run: Run, settings: SweepSettings) -> Mapping[str, Any]:
        """Run what `run.config` says, or read what was run already, and return nested numbers for `read_metric`.

        Raises:
            BadInput, RunFailed, Interrupted: as the verb does.
        """


TRIALS: dict[str, str | TrialKind] = {
    "train": "lab.sweeps.train_trial:TrainTrial",
    "power": "lab.sweeps.power_trial:PowerTrial",
}
"""Verbs that can be swept: a class `module:name`, imported when it is needed, or an instance."""


def trial_kind(verb: str) -> TrialKind:
    """Return what runs the trials of `sweep.verb`.

    Raises:
        BadInput: no such verb, or one that cannot be swept.
    """
    target = choose(TRIALS, verb, "sweep.verb")
    if not isinstance(target, str):
        return target
    module, name = target.split(":")
    kind: TrialKind = getattr(import_module(module), name)()
    return kind


def read_metric(numbers: Mapping[str, Any], path: str, name: str) -> float:
    """Return the number at a dotted path; whole numbers index lists; undefined (null) is NaN.

    A `?` at the end makes NaN of a path that does not exist.

    Raises:
        BadInput: the path does not exist or leads to something that is no number.
    """
    node: Any = numbers
    optional = path.endswith("?")
    parts = path.rstrip("?").split(".")
    for depth, part in enumerate(parts):
        if node is None:  # a whole group may be undefined
            return float("nan")
        if isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(node, (list, tuple)) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        elif optional:
            return float("nan")
        else:
            known = [str(key) for key in node] if isinstance(node, Mapping) else []
            where = ".".join(parts[:depth]) or "the summary"
            raise BadInput(
                f"sweep.metrics.{name}: {path}: {where} has no {part!r}; {suggest(part, known)}; "
                "a path that is there in some trials only ends in '?'"
            )
    if node is None:
        return float("nan")
    if not isinstance(node, (bool, int, float)):
        inside = f"; inside: {', '.join(map(str, node))}" if isinstance(node, Mapping) else ""
        raise BadInput(f"sweep.metrics.{name}: {path} is no number{inside}")
    return float(node)
