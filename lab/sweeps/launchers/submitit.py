"""Workers as SLURM jobs, submitted by submitit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lab.errors import BadInput, RunFailed
from lab.settings import require
from lab.sweeps.launchers.local import LOGS
from lab.sweeps.plan import Plan
from lab.sweeps.worker_process import STORAGE_VARIABLE, run_plan

_POLL_S = 1.0


@dataclass(frozen=True)
class SubmititLauncher:
    """Jobs of a SLURM cluster whose machines see the study's directory under the same path; see the YAML file."""

    name: str
    cluster: str | None
    timeout_min: int
    cpus_per_worker: int
    gpus_per_worker: int
    memory_gb: float | None
    partition: str | None

    def __post_init__(self) -> None:
        require(self.timeout_min >= 1, "timeout_min", f"expected at least 1, got {self.timeout_min}")
        require(
            self.cpus_per_worker >= 1, "cpus_per_worker", f"expected at least 1, got {self.cpus_per_worker}"
        )
        require(
            self.gpus_per_worker >= 0, "gpus_per_worker", f"expected at least 0, got {self.gpus_per_worker}"
        )
        require(self.memory_gb is None or self.memory_gb > 0, "memory_gb", "expected above 0")

    def require(self) -> None:
        """See `Launcher`."""
        if find_spec("submitit") is None:
            raise BadInput("launcher=submitit: submitit is not installed; pip install submitit")

    def run(self, plan: Plan, workers: int, watch: Callable[[], None]) -> None:
        """See `Launcher`."""
        executor = self._executor(Path(plan.directory) / LOGS)
        data = plan.as_dict()
        with _in_environment(data):  # submitit writes what it is given to a file, the environment it does not
            jobs = [executor.submit(run_plan, data) for _ in range(workers)]
            try:
                while not all(job.done() for job in jobs):
                    watch()
                    time.sleep(_POLL_S)
            finally:
                for job in jobs:
                    if not job.done():
                        job.cancel()
        for job in jobs:
            _raise_what_it_reported(job)

    def _executor(self, folder: Path) -> Any:
        import submitit

        executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        parameters: dict[str, Any] = {
            "name": "lab_sweep",
            "timeout_min": self.timeout_min,
            "cpus_per_task": self.cpus_per_worker,
            "gpus_per_node": self.gpus_per_worker,
        }
        if self.memory_gb is not None:
            parameters["mem_gb"] = self.memory_gb
        if self.partition is not None:
            parameters["slurm_partition"] = self.partition
        executor.update_parameters(**parameters)
        return executor


@contextmanager
def _in_environment(data: dict[str, Any]) -> Iterator[None]:
    """Move the storage, which may hold a password, from the plan to the environment that jobs inherit."""
    url = data.pop("storage")
    data["storage"] = None
    if url is None:
        yield
        return
    before = os.environ.get(STORAGE_VARIABLE)
    os.environ[STORAGE_VARIABLE] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[STORAGE_VARIABLE]
        else:
            os.environ[STORAGE_VARIABLE] = before


def _raise_what_it_reported(job: Any) -> None:
    """Raise the error that a job ended with; one that was killed or ran out of time reported nothing."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        job.result()
    except UncompletedJobError:
        return
    except FailedJobError as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip("- ")]
        last = lines[-1].strip() if lines else "no message"
        kind, _, message = last.partition(": ")
        if kind.endswith("BadInput"):
            raise BadInput(message) from None
        raise RunFailed(f"a worker failed: {last} ({job.paths.stderr})") from None
