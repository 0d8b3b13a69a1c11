"""The virtual environment that holds the peers: found, or made when asked for."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from lab.errors import BadInput, RunFailed

_HAS_TRL = "from importlib.metadata import version; version('trl')"


def peer_requirements() -> list[str]:
    """Return what the peers' environment needs; torch and transformers as here, so that they do not differ."""
    shared = [f"{package}=={version(package).split('+')[0]}" for package in ("torch", "transformers")]
    return [*shared, "trl==1.16.0", "mergekit==0.1.5"]


def install_commands(directory: str) -> list[list[str]]:
    """Return the commands that make the environment `directory`."""
    pip = str(Path(directory) / "bin" / "pip")
    return [["python", "-m", "venv", directory], [pip, "install", *peer_requirements()]]


def peer_python(directory: str, install: bool) -> Path:
    """Return the Python of the peers' environment.

    Args:
        directory: path of the environment, relative to the working directory.
        install: make it, or complete it, where it is missing.

    Raises:
        BadInput: it is missing and `install` is false; the message has the commands that make it.
        RunFailed: it could not be made.
    """
    python = Path(directory).expanduser().absolute() / "bin" / "python"
    if _usable(python):
        return python
    make, fill = install_commands(directory)
    if not install:
        raise BadInput(
            f"peers: no environment with trl at {directory}; make it with\n"
            f"    {shlex.join(make)} && {shlex.join(fill)}\n"
            "or give install_peers=true, or peers=PATH of one that has it"
        )
    for command in ([sys.executable, *make[1:]], [str(python.with_name("pip")), *fill[1:]]):
        # What pip says belongs to standard error: the last line of standard output is the result.
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(done.stdout, file=sys.stderr, flush=True)
        if done.returncode:
            raise RunFailed(
                f"peers: this command failed (exit code {done.returncode}): {shlex.join(command)}"
            )
    if not _usable(python):
        raise RunFailed(f"peers: {directory} was made but has no trl")
    return python


def _usable(python: Path) -> bool:
    if not python.exists():
        return False
    return subprocess.run([str(python), "-I", "-c", _HAS_TRL], capture_output=True).returncode == 0
