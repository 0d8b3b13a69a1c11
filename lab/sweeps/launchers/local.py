"""Workers as processes of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BadInput, Interrupted, RunFailed
from lab.sweeps.plan import Plan

LOGS = "workers"
_POLL_S = 0.5


@dataclass(frozen=True)
class LocalLauncher:
    """Processes of this machine; what they print is kept in `workers/` of the study."""

    name: str

    def require(self) -> None:
        """See `Launcher`: nothing is needed."""

    def run(self, plan: Plan, workers: int, watch: Callable[[], None]) -> None:
        """See `Launcher`."""
        folder = Path(plan.directory) / LOGS
        folder.mkdir(exist_ok=True)
        processes: list[tuple[subprocess.Popen[bytes], Path]] = []
        try:
            for number in range(workers):
                log = folder / f"{os.getpid()}_{number}.log"
                processes.append((_start(plan, log), log))
            while any(process.poll() is None for process, _ in processes):
                watch()
                time.sleep(_POLL_S)
                for process, log in processes:
                    _raise_what_it_reported(process.poll(), log)
            for process, log in processes:
                _raise_what_it_reported(process.poll(), log)
        finally:
            for process, _ in processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            for process, _ in processes:
                process.wait()


def _start(plan: Plan, log: Path) -> subprocess.Popen[bytes]:
    """Start a worker; the plan goes through a pipe, since it may hold a password."""
    threads = str(plan.threads)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.sweeps.worker_process"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=plan.cwd,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops its workers
        )
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(json.dumps(plan.as_dict()).encode())
    return process


def _raise_what_it_reported(code: int | None, log: Path) -> None:
    """Raise the error that a worker ended with; one that was killed by a signal reported nothing."""
    if code is None or code <= 0:
        return
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    message = f"{lines[-1] if lines else 'a worker failed'} ({log})"
    if code == BadInput.exit_code:
        raise BadInput(message)
    if code == Interrupted.exit_code:
        raise Interrupted("a worker was stopped")
    raise RunFailed(message)
