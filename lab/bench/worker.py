"""The parent's side of the conversation with a worker process; see `lab.bench.pace` for the other."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.errors import RunFailed

_SECONDS_TO_LEAVE = 10.0
_LOG_LINES = 8


class Worker:
    """A long-lived process that does steps when asked; use it as a context manager.

    Args:
        name: what messages call it.
        command: program and arguments.
        environment: its whole environment.
        log: file that takes its standard error.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(environment),
                text=True,
            )

    def wait_ready(self) -> dict[str, Any]:
        """Wait until the worker has warmed up and return what it says of itself.

        Raises:
            RunFailed: it died, or said something else.
        """
        return self._read("READY")

    def ask(self, mode: str, steps: int) -> dict[str, Any]:
        """Have the worker do `steps` steps in `mode` and return its answer: `wall`, `cpu`, and more.

        Raises:
            RunFailed: it died, or answered out of turn.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{mode} {steps}\n")
            self._process.stdin.flush()
        except (BrokenPipeError, OSError):
            raise self._death() from None
        return self._read("DONE")

    def _read(self, word: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        found, _, text = line.strip().partition(" ")
        try:
            content = json.loads(text) if found == word else None
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise RunFailed(f"the {self.name} worker said {line.strip()[:200]!r} where {word} was due")
        return content

    def _death(self) -> RunFailed:
        code = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        tail = "\n".join(f"    {line}" for line in lines[-_LOG_LINES:]) or "    (it printed nothing)"
        return RunFailed(f"the {self.name} worker died (exit code {code}); the end of {self._log}:\n{tail}")

    def close(self) -> None:
        """Let the worker leave, or make it."""
        process = self._process
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        try:
            process.wait(_SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        self.close()
