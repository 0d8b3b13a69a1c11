"""The virtual environment that holds the peers: found, or made when asked for."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from lab.errors import BadInput, RunFailed


def peer_requirements() -> list[str]:
    """Return what the peers' environment needs; torch and transformers as here, so that they do not differ."""
    shared = [f"{package}=={version(package).split('+')[0]}" for package in ("torch", "transformers")]
    return [*shared, "trl==1.16.0"]


def install_commands(directory: str) -> list[list[str]]:
    """Return the commands that make the environment `directory`."""
    pip = str(Path(directory) / "bin" / "pip")
    return [[sys.executable, "-m", "venv", directory], [pip, "install", *peer_requirements()]]


def peer_python(directory: str, install: bool) -> Path:
    """Return the Python of the peers' environment.

    Args:
        directory: path of the environment, relative to the working directory.
        install: make it where there is none.

    Raises:
        BadInput: there is none and `install` is false; the message has the commands that make it.
        RunFailed: it could not be made.
    """
    python = Path(directory).expanduser().absolute() / "bin" / "python"
    if python.exists():
        return python
    commands = install_commands(directory)
    if not install:
        shown = " && ".join(
            shlex.join(["python", *command[1:]] if i == 0 else command) for i, command in enumerate(commands)
        )
        raise BadInput(
            f"peers: no environment at {directory}; make it with\n    {shown}\n"
            "or give install_peers=true, or peers=PATH of one that has trl"
        )
    for command in commands:
        print(shlex.join(command), file=sys.stderr, flush=True)
        if subprocess.run(command, stdout=sys.stderr.fileno() if _has_file(sys.stderr) else None).returncode:
            raise RunFailed(
                f"peers: this command failed: {shlex.join(command)}; remove {directory} before the next try"
            )
    return python


def _has_file(stream: object) -> bool:
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except (OSError, AttributeError):
        return False
    return True
