"""Launchers: processes of this machine, submitit's own local jobs, and Ray behind its interface."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from lab.errors import BadInput, RunFailed
from lab.sweeps.launchers import build_launcher
from lab.sweeps.launchers.submitit import SubmititLauncher
from lab.sweeps.plan import Plan
from lab.sweeps.states import latest
from lab.sweeps.worker_process import STORAGE_VARIABLE, run_plan

SUBMITIT = {
    "name": "submitit",
    "cluster": "local",
    "timeout_min": 5,
    "cpus_per_worker": 1,
    "gpus_per_worker": 0,
    "memory_gb": None,
    "partition": None,
}
RAY = {"name": "ray", "address": None, "cpus_per_worker": 1, "gpus_per_worker": 0}


@pytest.fixture
def plan(bed: Any) -> Plan:
    """A sweep that other processes can run: four points of `lab power`, without any language model."""
    made = bed.plan(
        verb="power",
        space={"signal": "choice(0.0,3.0)", "effective_coordinates": "choice(2,4)"},
        condition=["checkpoints=[7]", "simulations=20", "flips=31"],
        metrics={"power": "power.0"},
    )
    return dataclasses.replace(made, overrides=tuple(made.sweep["condition"]))


def complete(bed: Any, plan: Plan) -> list[str]:
    with bed.study(plan) as (_, study):
        return [trial.state.name for trial in latest(study.trials()).values()]


@pytest.mark.parametrize(
    "node", [{"name": "local"}, pytest.param(SUBMITIT, id="submitit")], ids=lambda node: node.get("name")
)
def test_two_workers_run_every_point(bed: Any, plan: Plan, node: dict[str, Any]) -> None:
    launcher = build_launcher(node)
    launcher.require()
    with bed.study(plan):
        pass  # the verb opens the study before it starts workers
    watched: list[int] = []
    launcher.run(plan, 2, lambda: watched.append(1))
    assert complete(bed, plan) == ["COMPLETE"] * 4
    assert watched and (Path(plan.directory) / "workers").is_dir()


def test_what_a_worker_reports_is_raised(bed: Any, plan: Plan) -> None:
    broken = dataclasses.replace(plan, sweep={**plan.sweep, "metrics": {"power": "pover.0"}})
    with pytest.raises(BadInput, match="did you mean 'power'"):
        build_launcher({"name": "local"}).run(broken, 1, lambda: None)


def test_submitit_is_given_no_password(bed: Any, plan: Plan, monkeypatch: Any) -> None:
    """What is submitted is written to a file, so the URL goes through the environment alone."""
    seen: dict[str, Any] = {}

    class Job:
        paths = types.SimpleNamespace(stderr="err")

        def done(self) -> bool:
            return True

        def result(self) -> int:
            return 0

    class Executor:
        def submit(self, function: Any, data: dict[str, Any]) -> Job:
            import os

            seen.update(data=dict(data), environment=os.environ[STORAGE_VARIABLE], function=function)
            return Job()

    monkeypatch.setattr(SubmititLauncher, "_executor", lambda self, folder: Executor())
    secret = dataclasses.replace(plan, storage="postgresql://me:hunter2@host/db")
    build_launcher(SUBMITIT).run(secret, 1, lambda: None)
    assert "hunter2" not in repr(seen["data"]) and "hunter2" in seen["environment"]
    assert seen["function"] is run_plan
    import os

    assert STORAGE_VARIABLE not in os.environ


class FakeRay(types.ModuleType):
    """As much of Ray's interface as the launcher uses; tasks run when they are waited for."""

    def __init__(self, cpus: float = 2.0) -> None:
        super().__init__("ray")
        self.cpus, self.log, self.options = cpus, [], {}

        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            def __init__(self, cause: Exception) -> None:
                self.cause = cause

        self.exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def is_initialized(self) -> bool:
        return False

    def init(self, **options: Any) -> None:
        self.log.append("init")
        self.options = options

    def shutdown(self) -> None:
        self.log.append("shutdown")

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.cpus}

    def remote(self, **options: Any) -> Any:
        return lambda function: types.SimpleNamespace(remote=lambda data: (function, data))

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return references[:1], references[1:]

    def get(self, reference: Any) -> Any:
        function, data = reference
        try:
            return function(data)
        except Exception as error:
            raise self.exceptions.RayTaskError(error) from error

    def cancel(self, reference: Any, force: bool) -> None:
        self.log.append("cancel")


def test_ray_runs_the_workers_and_is_stopped(bed: Any, plan: Plan, monkeypatch: Any) -> None:
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.chdir(Path(plan.cwd))
    build_launcher(RAY).run(plan, 2, lambda: None)
    assert ray.log == ["init", "shutdown"]
    assert complete(bed, plan) == ["COMPLETE"] * 4


def test_ray_reports_errors_and_too_small_a_cluster(bed: Any, plan: Plan, monkeypatch: Any) -> None:
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.chdir(Path(plan.cwd))
    broken = dataclasses.replace(plan, sweep={**plan.sweep, "metrics": {"power": "pover.0"}})
    with pytest.raises(BadInput, match="did you mean 'power'"):
        build_launcher(RAY).run(broken, 2, lambda: None)
    assert ray.log == ["init", "cancel", "shutdown"]
    with pytest.raises(RunFailed, match="asks for 4 CPU, the cluster has 2"):
        build_launcher({**RAY, "cpus_per_worker": 4}).run(plan, 1, lambda: None)


@pytest.mark.parametrize("node", [RAY, SUBMITIT], ids=["ray", "submitit"])
def test_a_missing_package_is_named_with_its_command(node: dict[str, Any], monkeypatch: Any) -> None:
    launcher = build_launcher(node)
    monkeypatch.setattr(sys.modules[type(launcher).__module__], "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install"):
        launcher.require()


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "rai"}, "launcher.name: unknown 'rai'; did you mean 'ray'"),
        ({**RAY, "adress": "x"}, "launcher.adress: no code reads this key; did you mean 'address'"),
        ({**SUBMITIT, "timeout_min": 0}, "launcher.timeout_min: expected at least 1"),
        ("ray", "launcher: expected a group of keys"),
    ],
)
def test_impossible_launchers(node: Any, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        build_launcher(node)
    assert message in str(caught.value)
