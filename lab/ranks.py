"""The other processes of a run on one machine: started beside this one, ended with it.

Each is `python -m lab.ranks RUN_DIRECTORY`, takes its place from the environment variables that torch.distributed and
Lightning read, and reads what to train from the run directory's config.yaml.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import LabError, RunFailed
from lab.runs import Run, read_config

_SECONDS_TO_LEAVE = 30
_SECONDS_TO_SAY_WHY = 1
_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK", "RANK")


@contextmanager
def other_ranks(run: Run, world: int) -> Iterator[None]:
    """Run the processes 1 to world - 1 of `run` while the block, which is process 0, runs.

    Raises:
        RunFailed: one of them failed.
    """
    if world == 1 or "LOCAL_RANK" in os.environ:
        yield
        return
    before = {name: os.environ.get(name) for name in _VARIABLES}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(world)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "lab.ranks", str(run.path.absolute())],
            env={**os.environ, **place, "NODE_RANK": "0", "LOCAL_RANK": str(rank), "RANK": str(rank)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C reaches process 0 alone, which tells the others
        )
        for rank in range(1, world)
    ]
    os.environ.update({**place, "NODE_RANK": "0", "LOCAL_RANK": "0", "RANK": "0"})
    try:
        try:
            yield
        except RuntimeError as error:  # what a collective says when another process has gone
            time.sleep(_SECONDS_TO_SAY_WHY)
            gone = [
                (rank, code) for rank, process in enumerate(processes, start=1) if (code := process.poll())
            ]
            if gone:
                raise RunFailed(_how_it_ended(*gone[0], world)) from error
            raise
        for rank, process in enumerate(processes, start=1):
            try:
                code = process.wait(_SECONDS_TO_LEAVE)
            except subprocess.TimeoutExpired:
                continue  # all is done and written; it only fails to leave, and is made to
            if code != 0:
                raise RunFailed(_how_it_ended(rank, code, world))
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _how_it_ended(rank: int, code: int, world: int) -> str:
    """Say how a process failed; `code` is negative where a signal ended it, which leaves no message of its own."""
    if code >= 0:
        return f"process {rank} of {world} failed; its message stands above"
    names = {number.value: number.name for number in signal.Signals}
    short = "; the system does so where memory runs out" if -code == signal.SIGKILL else ""
    return f"process {rank} of {world} was ended by {names.get(-code, f'signal {-code}')}{short}"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main(directory: str) -> int:
    """Take part in the run at `directory` as the process that the environment names; return the exit code."""
    from lab.threads import set_threads
    from lab.training import build_train_settings, fit

    config = read_config(directory)
    set_threads(config.get("threads", 1))
    try:
        fit(build_train_settings(config), Run(Path(directory), config, resumed=True), title="")
    except LabError as error:
        print(f"process {os.environ['RANK']}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
