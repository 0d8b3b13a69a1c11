"""Run directories: `runs_dir/experiment/name`, claimed by one process, resumed, listed and found.

A run directory holds `config.yaml` (the resolved configuration), data, `summary.json` (numbers that
scripts read) and last of all `DONE`. A run may hold child runs, each a run directory of its own.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import yaml

from lab.errors import BadInput
from lab.files import plain, read_json, remove_tree, write_atomic, write_json
from lab.settings import require

SCHEMA_VERSION = 1
RUN_CONTROL_KEYS = (
    "name",
    "runs_dir",
    "resume",
    "clean",
    "dry_run",
    "stop_after_minutes",
    "threads",
    "workers",
    "logger",
    "progress",
    "verbose",
)
"""Keys that say how a run is carried out, not what it computes: runs that differ in these are the same."""

_CONFIG, _SUMMARY, _DONE, _LOCK = "config.yaml", "summary.json", "DONE", ".lock"

_ABSENT = object()

State = Literal["finished", "unfinished", "running", "corrupt"]


@dataclass(frozen=True)
class RunSettings:
    """Which run directory to use.

    `resume` is "auto" (the latest unfinished run with the same configuration, else a new one), true
    (there must be one), false (never) or the path of the run to continue. `clean` starts anew: a
    named run is removed first.
    """

    name: str | None
    runs_dir: str
    resume: bool | str
    clean: bool
    experiment: str

    def __post_init__(self) -> None:
        require(bool(self.runs_dir.strip()), "runs_dir", "must name a directory")
        place = Path(self.runs_dir).absolute()
        while not place.exists():
            place = place.parent
        require(place.is_dir(), "runs_dir", f"{place} is not a directory")
        require(os.access(place, os.W_OK), "runs_dir", f"{place} cannot be written")


@dataclass(frozen=True)
class RunRecord:
    """One line of a listing of runs."""

    experiment: str
    name: str
    path: Path
    state: State
    created: datetime
    result: str


@dataclass
class Run:
    """A run directory that this process holds; use it as a context manager, or call `close`.

    An error before anything was computed leaves no directory behind, and a run that this one was to replace
    is put back.
    """

    path: Path
    config: dict[str, Any]
    resumed: bool
    _lock: IO[bytes] | None = field(default=None, repr=False)
    replaced: Path | None = None
    """Where the run lies that this one replaces, until this one has come to something."""

    @property
    def finished(self) -> bool:
        """Whether the run has ended well, now or in an earlier process."""
        return (self.path / _DONE).exists()

    def child(self, name: str, config: Mapping[str, Any] | None = None) -> Run:
        """Open the child run `name`: new, resumed, or `finished` so that the caller can skip it.

        `config` is the child's own resolved configuration, by default the parent's.

        Raises:
            BadInput: the name is not usable, or the child exists with another configuration.
        """
        path = self.path / _valid_name(name, "child")
        resolved = plain(self.config if config is None else config)
        if (path / _DONE).exists():
            _require_same_config(path, resolved)
            return Run(path, resolved, resumed=True)
        return _open_at(path, resolved, shared=False)

    def write_summary(self, numbers: Mapping[str, Any]) -> None:
        """Write `summary.json`: the numbers with a `schema_version`; undefined ones become null.

        A text under `result` is the one-line result that `lab list` shows.
        """
        write_json(self.path / _SUMMARY, {"schema_version": SCHEMA_VERSION, **numbers})

    def finish(self) -> None:
        """Mark the run as finished; whatever the run writes has to be written before."""
        write_atomic(self.path / _DONE, datetime.now(UTC).isoformat(timespec="seconds") + "\n")

    def close(self) -> None:
        """Let other processes have the run."""
        if self._lock is not None:
            if self.finished:
                (self.path / _LOCK).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and not self.resumed and self._is_empty():
            remove_tree(self.path)
            if self.replaced is not None:
                os.rename(self.replaced, self.path)
        elif self.replaced is not None:
            remove_tree(self.replaced)
        self.close()

    def _is_empty(self) -> bool:
        """Whether nothing was computed in the directory."""
        return all(item.name in (_CONFIG, _LOCK) for item in self.path.iterdir())


def open_run(settings: RunSettings, resolved_config: Mapping[str, Any], shared: bool = False) -> Run:
    """Open the run directory that `settings` ask for: a new one, or an unfinished one to continue.

    With `shared` several processes may hold the same run (the workers of a sweep); otherwise only one.

    Raises:
        BadInput: the run asked for is finished, held by another process, or has another
            configuration; there is nothing to resume; a name is not usable.
        OSError: the directory cannot be written.
    """
    config = plain(resolved_config)
    if settings.clean and settings.resume not in ("auto", False):
        raise BadInput("clean=true starts anew, so it cannot be given together with resume")
    if isinstance(settings.resume, str) and settings.resume != "auto":
        return _resume_path(settings, config, shared)
    experiment = Path(settings.runs_dir) / _valid_name(settings.experiment, "experiment")
    if settings.name is not None:
        return _open_named(experiment / _valid_name(settings.name, "name"), settings, config, shared)
    if settings.resume is not False and not settings.clean:
        run = _resume_latest(experiment, config, shared)
        if run is not None:
            return run
        if settings.resume is True:
            raise BadInput(
                f"resume=true: no unfinished run with this configuration in {experiment}; "
                "resume=auto starts one"
            )
    return _open_at(_claim_number(experiment), config, shared)


def list_runs(runs_dir: str | Path) -> list[RunRecord]:
    """Return every run in `runs_dir`, oldest first within an experiment; children are not listed."""
    return [
        _record(path)
        for experiment in _folders(Path(runs_dir))
        for path in sorted(_folders(experiment), key=_age)
        if (path / _CONFIG).exists()
    ]


def find_run(runs_dir: str | Path, reference: str) -> Path:
    """Return the directory of the run called `experiment/name`, its path, or its name where only one has it.

    Raises:
        BadInput: there is no such run, or several have that name; the message lists what exists.
    """
    for candidate in (Path(runs_dir) / reference, Path(reference)):
        if (candidate / _CONFIG).is_file():
            return candidate
    records = list_runs(runs_dir)
    matches = [record for record in records if record.name == reference]
    if len(matches) == 1:
        return matches[0].path
    names = ", ".join(f"{record.experiment}/{record.name}" for record in matches or records)
    if matches:
        raise BadInput(f"run {reference!r}: several have that name: {names}")
    raise BadInput(f"run {reference!r}: not found in {runs_dir}; there are: {names or '(none)'}")


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the resolved configuration of the run at `path`.

    Raises:
        BadInput: `path` is not a run, or its configuration cannot be read.
    """
    file = Path(path) / _CONFIG
    if not file.is_file():
        raise BadInput(f"{path}: not a run (it has no {_CONFIG})")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: corrupt ({' '.join(str(error).split())})") from None
    if not isinstance(config, dict):
        raise BadInput(f"{file}: corrupt (expected a group of keys)")
    return config


def differing_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the dotted keys in which two configurations differ, run-control keys left out."""
    left, right = dict(_flat(first)), dict(_flat(second))
    names = dict.fromkeys([*left, *right])
    return [name for name in names if repr(left.get(name, _ABSENT)) != repr(right.get(name, _ABSENT))]


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if not prefix and key in RUN_CONTROL_KEYS:
            continue
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _resume_path(settings: RunSettings, config: dict[str, Any], shared: bool) -> Run:
    path = Path(str(settings.resume))
    if settings.name is not None and settings.name != path.name:
        raise BadInput(f"resume={path} and name={settings.name} ask for different runs; give one of them")
    _require_same_config(path, config)
    if (path / _DONE).exists():
        raise BadInput(f"resume={path}: this run is finished; there is nothing to resume")
    return _open_at(path, config, shared)


def _open_named(path: Path, settings: RunSettings, config: dict[str, Any], shared: bool) -> Run:
    if not path.exists():
        if settings.resume is True:
            raise BadInput(f"resume=true: there is no run {path}; resume=auto starts it")
        path.parent.mkdir(parents=True, exist_ok=True)
        return _open_at(path, config, shared)
    is_run = (path / _CONFIG).is_file()
    if not is_run and not _is_fresh(path):
        raise BadInput(f"{path} exists and is not a run (it has no {_CONFIG}); choose another name")
    if settings.clean and is_run:
        with _acquire(path, shared=False):
            aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.replaced")
            os.rename(path, aside)
        run = _open_at(path, config, shared)
        run.replaced = aside
        return run
    if (path / _DONE).exists():
        raise BadInput(f"{path} is finished; choose another name, or clean=true to remove it and start anew")
    if is_run and settings.resume is False:
        raise BadInput(
            f"{path} exists and resume=false; choose another name, resume=auto to continue it, "
            "or clean=true to remove it and start anew"
        )
    return _open_at(path, config, shared)


def _resume_latest(experiment: Path, config: dict[str, Any], shared: bool) -> Run | None:
    for path in sorted(_folders(experiment), key=_age, reverse=True):
        if (path / _DONE).exists() or not (path / _CONFIG).is_file():
            continue
        try:
            same = not differing_keys(read_config(path), config)
        except BadInput:  # another run's damage is not this run's concern; `lab list` shows it
            continue
        lock = _try_acquire(path, shared) if same else None
        if lock is None:
            continue
        if not (path / _DONE).exists():
            return Run(path, config, resumed=True, _lock=lock)
        lock.close()
    return None


def _claim_number(experiment: Path) -> Path:
    experiment.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in _folders(experiment) if path.name.isdecimal()]
    number = max(taken, default=0) + 1
    while True:
        path = experiment / f"{number:03d}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def _open_at(path: Path, config: dict[str, Any], shared: bool) -> Run:
    """Hold the directory, new or unfinished, and write the configuration unless it is there already."""
    path.mkdir(exist_ok=True)
    lock = _acquire(path, shared)
    try:
        if (path / _DONE).exists():
            raise BadInput(f"{path} has been finished by another process meanwhile")
        resumed = (path / _CONFIG).exists()
        if resumed:
            _require_same_config(path, config)
        else:
            text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
            write_atomic(path / _CONFIG, text)
    except BaseException:
        lock.close()
        raise
    return Run(path, config, resumed, _lock=lock)


def _require_same_config(path: Path, config: dict[str, Any]) -> None:
    stored = read_config(path)
    differing = differing_keys(stored, config)
    if not differing:
        return
    there, here = dict(_flat(stored)), dict(_flat(config))
    shown = "; ".join(
        f"{key} is {there.get(key, 'absent')!r} there and {here.get(key, 'absent')!r} here"
        for key in differing[:5]
    )
    more = f" (and {len(differing) - 5} more)" if len(differing) > 5 else ""
    raise BadInput(f"{path} has another configuration: {shown}{more}; choose another name, or clean=true")


def _acquire(path: Path, shared: bool) -> IO[bytes]:
    for _ in range(5):  # a listing holds the lock for an instant; a run holds it to its end
        lock = _try_acquire(path, shared)
        if lock is not None:
            return lock
        time.sleep(0.02)
    raise BadInput(f"{path} is held by another process that is still running; wait for it, or stop it")


def _try_acquire(path: Path, shared: bool) -> IO[bytes] | None:
    file = open(path / _LOCK, "ab")  # noqa: SIM115  (stays open as long as the run is held)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _is_held(path: Path) -> bool:
    if not (path / _LOCK).exists():
        return False
    with open(path / _LOCK, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _record(path: Path) -> RunRecord:
    state: State = "unfinished"
    result = ""
    try:
        read_config(path)
        if (path / _SUMMARY).exists():
            summary = read_json(path / _SUMMARY)
            if not isinstance(summary, dict):
                raise BadInput(f"{path / _SUMMARY}: expected a group of keys")
            result = " ".join(str(summary.get("result") or "").split())
        if (path / _DONE).exists():
            state = "finished"
        elif _is_held(path):
            state = "running"
    except BadInput as error:
        state, result = "corrupt", str(error)
    created = datetime.fromtimestamp((path / _CONFIG).stat().st_mtime)
    return RunRecord(path.parent.name, path.name, path, state, created, result)


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))


def _age(path: Path) -> tuple[int, str]:
    file = path / _CONFIG
    return (file.stat().st_mtime_ns if file.exists() else 0, path.name)


def _is_fresh(path: Path) -> bool:
    """Whether a directory is what a process leaves that was killed right after claiming it."""
    return path.is_dir() and all(item.name == _LOCK or item.suffix == ".partial" for item in path.iterdir())


def _valid_name(name: str, key: str) -> str:
    bad = not name.strip() or name.startswith(".") or "\0" in name
    if bad or os.sep in name or "\\" in name or name != name.strip():
        raise BadInput(f"{key}: {name!r} cannot name a directory (no '/', no leading '.', not empty)")
    return name
