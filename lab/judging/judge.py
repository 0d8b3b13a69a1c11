"""The client of the judging process: starts it, asks it, replaces it, and ends it with this one."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.errors import RunFailed
from lab.judging.protocol import READY, REPLY, Outcome, encode, write
from lab.settings import require

_SECONDS_TO_START = 300
_SECONDS_TO_LEAVE = 2
_SECONDS_TO_REPLACE = 30  # beyond the limit of a judgement: for the judging process to fork anew
_STARTS = 3  # processes in a row that may die without a single judgement

_CUT_WORD = re.compile(r"\A[\w.,*^/+\-]*")


@dataclass(frozen=True)
class JudgeSettings:
    """Limits of judging one completion."""

    seconds: float
    """Wall-clock time, after which it counts as not judged."""
    memory_mb: int
    """Address space of the judging process in MiB, at least 256 (not enforced on macOS)."""
    characters: int
    """Of a longer completion only so many characters at its end are judged, at least 64."""

    def __post_init__(self) -> None:
        require(0 < self.seconds <= 3600, "seconds", f"must lie in (0, 3600], got {self.seconds}")
        require(self.memory_mb >= 256, "memory_mb", f"must be at least 256, got {self.memory_mb}")
        require(
            64 <= self.characters <= 1_000_000,
            "characters",
            f"must be 64 to 1,000,000, got {self.characters}",
        )


@dataclass
class JudgeCounts:
    """What a judge has done so far."""

    judged: int = 0
    """Completions handed in."""
    truncated: int = 0
    timeouts: int = 0
    crashes: int = 0
    unreadable: int = 0


class Judge:
    """Judges completions by a verifier that runs in another process, under limits.

    The process is started by the first judgement, used for all that follow, replaced when it dies, and ended when the
    judge is closed, collected, or this process exits. A copy, and a fork of this process, starts its own.

    Args:
        verifier: full name of the module with `warm_up()` and `verify(answer, completion)`.
        settings: the limits.
    """

    def __init__(self, verifier: str, settings: JudgeSettings) -> None:
        self.verifier = verifier
        self.settings = settings
        self.counts = JudgeCounts()
        self._worker: _Worker | None = None
        self._number = READY
        self._failed_starts = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Judge, (self.verifier, self.settings)

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[int | None]:
        """Return for each (answer, completion) 1 if it is right, 0 if wrong, None if it could not be judged.

        None comes from a judgement that took too long or ended the process, or from a verifier that cannot tell;
        `counts` says which. The others of the batch are judged all the same.

        Raises:
            RunFailed: the judging process cannot be started, or dies before it judges anything.
        """
        return [self._judge(answer, completion) for answer, completion in pairs]

    def close(self) -> None:
        """End the judging process, if there is one; a later judgement starts another."""
        self._drop(_SECONDS_TO_LEAVE)

    def _judge(self, answer: str, completion: str) -> int | None:
        text = tail(completion, self.settings.characters)
        counts = self.counts
        counts.judged += 1
        counts.truncated += text is not completion
        outcome = self._ask(answer, text)
        if outcome in (Outcome.RIGHT, Outcome.WRONG):
            return int(outcome)
        counts.timeouts += outcome == Outcome.TIMEOUT
        counts.crashes += outcome == Outcome.CRASH
        counts.unreadable += outcome == Outcome.UNREADABLE
        return None

    def _ask(self, answer: str, text: str) -> Outcome:
        self._number = self._number % (2**32 - 1) + 1
        try:
            outcome = self._running().ask(
                encode(self._number, answer, text), self._number, self.settings.seconds + _SECONDS_TO_REPLACE
            )
        except TimeoutError:
            self._drop(0)
            return Outcome.TIMEOUT
        except (EOFError, BrokenPipeError):
            self._drop(0)
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                raise RunFailed(
                    f"the judging process of {self.verifier} died {_STARTS} times in a row; see whether "
                    f"memory_mb={self.settings.memory_mb} is enough for it"
                ) from None
            return Outcome.CRASH
        except BaseException:  # an interruption may have left half a request in the pipe
            self._drop(0)
            raise
        self._failed_starts = 0
        return outcome

    def _running(self) -> _Worker:
        if self._worker is not None and self._worker.owner != os.getpid():
            self._worker = None
        if self._worker is None:
            self._worker = _Worker(self.verifier, self.settings)
        return self._worker

    def _drop(self, seconds: float) -> None:
        if self._worker is not None:
            self._worker.stop(seconds)
            self._worker = None


class _Worker:
    """One judging process."""

    def __init__(self, verifier: str, settings: JudgeSettings) -> None:
        self.owner = os.getpid()
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "lab.judging.worker",
                    verifier,
                    repr(settings.seconds),
                    str(settings.memory_mb),
                ],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # it can be ended with its fork, and a Ctrl-C does not reach it
            )
            self._finalizer = weakref.finalize(self, _stop, self._process, self.owner, _SECONDS_TO_LEAVE)
            try:
                self._reply(time.monotonic() + _SECONDS_TO_START)
            except (EOFError, TimeoutError):
                self.stop(0)
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                why = said[-1] if said else "it said nothing"
                raise RunFailed(f"the judging process of {verifier} could not start: {why}") from None

    def ask(self, request: bytes, number: int, seconds: float) -> Outcome:
        """Send a request and return its outcome.

        Raises:
            EOFError, BrokenPipeError: the process is gone.
            TimeoutError: there was no reply within `seconds`.
        """
        assert self._process.stdin is not None
        deadline = time.monotonic() + seconds
        write(self._process.stdin.fileno(), request)
        while True:
            answered, outcome = REPLY.unpack(self._reply(deadline))
            if answered == number:
                return Outcome(outcome)

    def stop(self, seconds: float) -> None:
        """End the process; it has `seconds` to do so by itself."""
        self._finalizer.detach()
        _stop(self._process, self.owner, seconds)

    def _reply(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        data = b""
        while len(data) < REPLY.size:
            if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            part = os.read(descriptor, REPLY.size - len(data))
            if not part:
                raise EOFError
            data += part
        return data


def tail(text: str, characters: int) -> str:
    """Return `text`, or its last `characters` where it is longer, less the word or number that the cut runs through."""
    return text if len(text) <= characters else _CUT_WORD.sub("", text[-characters:], count=1)


def _stop(process: subprocess.Popen[bytes], owner: int, seconds: float) -> None:
    """End `process` and the fork that it made, and leave no zombie; in a fork of its owner only let go of it."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if os.getpid() != owner:
        return
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(_SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
