"""The judging process: `python -m lab.judging.worker MODULE SECONDS MEMORY_MB`, started by `lab.judging.judge`.

It loads the verifier once and forks. The fork judges, with a limit on its memory and, for each completion, an alarm
that the kernel answers by ending it, whatever it is computing. When it has died, the first process says so in its
place and forks again, which takes milliseconds where loading took seconds. The limits bound what a completion can cost;
they are no sandbox.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import mmap
import os
import resource
import signal
import sys
from types import ModuleType

from lab.judging.protocol import LENGTH, READY, REPLY, Outcome, receive, write

_DONE = 0
_FAILED = 1


def main(arguments: list[str]) -> int:
    """Serve requests until the client closes its end; return the exit status."""
    module, seconds, memory_mb = arguments[0], float(arguments[1]), int(arguments[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client decides when to stop
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_FAILED))
    requests, replies = os.dup(0), os.dup(1)
    logging.disable(logging.CRITICAL)
    verifier = importlib.import_module(module)
    verifier.warm_up()
    _close_standard_streams()
    write(replies, REPLY.pack(READY, Outcome.RIGHT))
    # In memory that both processes see: the number of the request being judged, 0 between requests.
    current = mmap.mmap(-1, LENGTH.size)
    while True:
        child = os.fork()
        if child == 0:
            status = _FAILED
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                _limit(memory_mb)
                _judge(verifier, requests, replies, current, seconds)
                status = _DONE
            finally:
                os._exit(status)
        status = _wait(child)
        number = LENGTH.unpack(current[:])[0]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _DONE:
            return _DONE
        if number == 0:
            return _FAILED
        timed_out = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        current[:] = LENGTH.pack(0)
        write(replies, REPLY.pack(number, Outcome.TIMEOUT if timed_out else Outcome.CRASH))


def _wait(child: int) -> int:
    """Return the status with which `child` ended; told to leave meanwhile, end it first."""
    try:
        return os.waitpid(child, 0)[1]
    except SystemExit:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def _judge(verifier: ModuleType, requests: int, replies: int, current: mmap.mmap, seconds: float) -> None:
    """Judge one request after another, until there are no more.

    Raises:
        MemoryError: the limit is reached; the process must not go on.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    while (request := receive(requests)) is not None:
        number, answer, completion = request
        current[:] = LENGTH.pack(number)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            verdict = verifier.verify(answer, completion)
        except MemoryError:
            raise
        except Exception:  # whatever a library raises on junk
            verdict = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        write(replies, REPLY.pack(number, Outcome.UNREADABLE if verdict is None else Outcome(int(verdict))))
        current[:] = LENGTH.pack(0)


def _limit(memory_mb: int) -> None:
    """Limit the address space, and forbid writing files, of this process."""
    for kind, wanted in (
        (resource.RLIMIT_AS, memory_mb * 1024**2),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of the address space
            resource.setrlimit(kind, (limit, limit))


def _close_standard_streams() -> None:
    """Point standard input, output and error nowhere: what a library prints must not look like a reply."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # without taking down what was loaded, which takes a second
