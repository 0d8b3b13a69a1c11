"""Where a result came from: versions, git state, time. Attached to everything that is stored."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("rlvr-linear-lab", "torch", "pytorch-lightning", "transformers", "numpy", "xarray")


def provenance() -> dict[str, Any]:
    """Return package versions, Python version, git commit and whether the tree is dirty, creation time (UTC).

    Git state is that of the tree the package is imported from; null when it is no checkout.
    """
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": versions,
        "git_commit": commit,
        "git_dirty": None if changes is None else bool(changes),
    }


def code_version() -> dict[str, Any]:
    """Return when and by which code something is made: `provenance` without the list of packages."""
    return {key: value for key, value in provenance().items() if key != "packages"}


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
