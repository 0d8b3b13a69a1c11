"""Checkpoints on the Hugging Face Hub, one revision (branch or tag) a step: `hub:OWNER/NAME`.

`hub:OWNER/NAME@100,200` takes only these steps. Files go to the Hub's own cache and are downloaded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from lab.errors import BadInput
from lab.files import require_free_space
from lab.trajectory.readers.layouts.entry import Entry, Found, step_in_name, step_number
from lab.trajectory.readers.layouts.model import locate

PREFIX = "hub:"
WANTED = ("*.json", "*.safetensors")
"""Only these are downloaded: no code, no pickles."""


class HubApi(Protocol):
    """The part of `huggingface_hub.HfApi` that is used."""

    def list_repo_refs(self, repo_id: str) -> Any:
        """Return branches and tags."""
        ...

    def repo_info(self, repo_id: str, *, revision: str, files_metadata: bool) -> Any:
        """Return the files of one revision with their sizes."""
        ...

    def snapshot_download(self, repo_id: str, *, revision: str, allow_patterns: list[str]) -> str:
        """Download one revision, where it is not in the cache yet, and return its directory."""
        ...


def find_hub(source: str, api: HubApi | None = None) -> Found:
    """Return the checkpoints of a repository whose revisions are named by steps.

    Raises:
        BadInput: the repository cannot be reached, has no such revisions, lacks a step asked for, or does not fit
            on the disk.
    """
    repository, _, chosen = source.removeprefix(PREFIX).partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise BadInput(f"{source}: expected hub:OWNER/NAME, or hub:OWNER/NAME@100,200 for some of its steps")
    api = api or _default_api()
    try:
        refs = api.list_repo_refs(repository)
    except Exception as error:  # what is raised without a network depends on the client's version
        raise _unreachable(source, error) from error
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    revisions = _by_step(source, names)
    if not revisions:
        raise BadInput(f"{source}: no revision is named step_N; there are {', '.join(names) or 'none'}")
    steps = _chosen(source, chosen, revisions) if chosen else sorted(revisions)
    _require_space(source, api, repository, [revisions[step] for step in steps])
    found = [Entry(step, _download(source, api, repository, revisions[step])) for step in steps]
    return Found(tuple(found), (f"{source}: revisions {', '.join(revisions[step] for step in steps)}",))


def download_revision(source: str, api: HubApi | None = None) -> Path:
    """Return the directory of one revision, `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`, downloaded.

    Raises:
        BadInput: it cannot be downloaded or holds no weights.
    """
    repository, _, revision = source.removeprefix(PREFIX).partition("@")
    return _download(source, api or _default_api(), repository, revision or "main")


def _default_api() -> HubApi:
    from huggingface_hub import HfApi

    api: HubApi = HfApi()
    return api


def _by_step(source: str, names: Sequence[str]) -> dict[int, str]:
    revisions: dict[int, str] = {}
    for name in names:
        step = step_in_name(name)
        if step is not None and revisions.setdefault(step, name) != name:
            raise BadInput(
                f"{source}: two revisions of step {step}: {revisions[step]} and {name}; list paths instead"
            )
    return revisions


def _chosen(source: str, chosen: str, revisions: dict[int, str]) -> list[int]:
    steps = []
    for word in chosen.split(","):
        step = step_number(word.strip())
        if step not in revisions:
            raise BadInput(
                f"{source}: no step {word.strip()!r}; there are {', '.join(map(str, sorted(revisions)))}"
            )
        steps.append(step)
    return steps


def _require_space(source: str, api: HubApi, repository: str, revisions: list[str]) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        files = api.repo_info(repository, revision=revisions[-1], files_metadata=True).siblings
    except Exception as error:
        raise _unreachable(source, error) from error
    size = sum(file.size or 0 for file in files if Path(file.rfilename).suffix == ".safetensors")
    require_free_space(HF_HUB_CACHE, size * len(revisions), f"{source} at {len(revisions)} steps")


def _download(source: str, api: HubApi, repository: str, revision: str) -> Path:
    try:
        directory = api.snapshot_download(repository, revision=revision, allow_patterns=list(WANTED))
    except Exception as error:
        raise _unreachable(source, error) from error
    return locate(Path(directory))


def _unreachable(source: str, error: Exception) -> BadInput:
    lines = str(error).strip().splitlines()
    return BadInput(f"{source}: cannot be read from the Hub ({lines[0] if lines else type(error).__name__})")
