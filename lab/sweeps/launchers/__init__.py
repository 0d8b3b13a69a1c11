"""Where the workers of a sweep run: a family of launchers behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from lab.settings import build, choose, option_name
from lab.sweeps.plan import Plan


class Launcher(Protocol):
    """Places workers and waits for them."""

    def require(self) -> None:
        """Refuse what cannot be launched here, before anything is made.

        Raises:
            BadInput: a package is missing; the message says how to install it.
        """

    def run(self, plan: Plan, workers: int, watch: Callable[[], None]) -> None:
        """Run `workers` workers to their end, calling `watch` now and then.

        A worker that was killed is no error here: its trial is found dead and tried again.

        Raises:
            BadInput, RunFailed: what a worker reported.
            Interrupted: SIGTERM or Ctrl-C; the workers are stopped.
        """


LAUNCHERS: dict[str, str] = {
    "local": "lab.sweeps.launchers.local:LocalLauncher",
    "ray": "lab.sweeps.launchers.ray:RayLauncher",
    "submitit": "lab.sweeps.launchers.submitit:SubmititLauncher",
}
"""Launchers by name: a settings dataclass `module:name` that launches."""


def build_launcher(node: Mapping[str, Any]) -> Launcher:
    """Build the launcher that the group `launcher` chooses.

    Raises:
        BadInput: an unknown name, a key that it does not read, a value that cannot be.
    """
    name = option_name(node, "launcher")
    module, attribute = choose(LAUNCHERS, name, "launcher.name").split(":")
    launcher: Launcher = build(getattr(import_module(module), attribute), node, "launcher")
    return launcher
