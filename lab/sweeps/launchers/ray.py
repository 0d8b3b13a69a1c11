"""Workers as tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from lab.errors import BadInput, LabError, RunFailed
from lab.settings import require
from lab.sweeps.plan import Plan
from lab.sweeps.worker_process import run_plan

_POLL_S = 1.0


@dataclass(frozen=True)
class RayLauncher:
    """Tasks of the Ray cluster at `address`, or of one started on this machine for the time of the sweep.

    Machines of the cluster have to see the study's directory and the working directory under the same paths.
    """

    name: str
    address: str | None
    cpus_per_worker: float
    gpus_per_worker: float

    def __post_init__(self) -> None:
        require(self.cpus_per_worker > 0, "cpus_per_worker", f"expected above 0, got {self.cpus_per_worker}")
        require(
            self.gpus_per_worker >= 0, "gpus_per_worker", f"expected at least 0, got {self.gpus_per_worker}"
        )

    def require(self) -> None:
        """See `Launcher`."""
        if find_spec("ray") is None:
            raise BadInput("launcher=ray: Ray is not installed; pip install 'ray[default]'")

    def run(self, plan: Plan, workers: int, watch: Callable[[], None]) -> None:
        """See `Launcher`.

        Raises:
            RunFailed: the cluster has too few CPUs or GPUs for a single worker.
        """
        import ray

        ours = not ray.is_initialized()
        if ours:
            ray.init(
                address=self.address, include_dashboard=False, log_to_driver=False, configure_logging=False
            )
        try:
            self._require_room(ray)
            task = ray.remote(num_cpus=self.cpus_per_worker, num_gpus=self.gpus_per_worker, max_retries=0)(
                run_plan
            )
            left = [task.remote(plan.as_dict()) for _ in range(workers)]
            try:
                while left:
                    ended, left = ray.wait(left, num_returns=1, timeout=_POLL_S)
                    for reference in ended:
                        _raise_what_it_reported(ray, reference)
                    watch()
            finally:
                for reference in left:
                    ray.cancel(reference, force=True)
        finally:
            if ours:
                ray.shutdown()

    def _require_room(self, ray: Any) -> None:
        has = ray.cluster_resources()
        for what, needed in (("CPU", self.cpus_per_worker), ("GPU", self.gpus_per_worker)):
            if needed > has.get(what, 0):
                raise RunFailed(
                    f"launcher: a worker asks for {needed:g} {what}, the cluster has {has.get(what, 0):g}"
                )


def _raise_what_it_reported(ray: Any, reference: Any) -> None:
    """Raise the error that a task ended with; one whose process was killed reported nothing."""
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, LabError):
            raise cause from None
        raise RunFailed(f"a worker failed: {type(cause).__name__}: {cause}") from None
    except ray.exceptions.RayError:
        return
