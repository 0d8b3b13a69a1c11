"""Where a study is stored: a journal file in its directory, or a database by URL, whose password is never shown."""

from __future__ import annotations

import fcntl
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lab.errors import BadInput

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

JOURNAL = "study.journal"
HEARTBEAT_S = 30
GRACE_S = 120
"""A trial in a database is taken for dead when its worker has given no sign for so many seconds."""


class JournalLock:
    """The journal's lock: it ends with the process that holds it, and mends what a killed one left half-written.

    Optuna's own lock files outlive a killed process by half a minute, and a line of which only the beginning
    was written makes every later reader fail. Whoever holds the lock is the only writer, so a file that does
    not end with a line end was left so by a process that is gone; its half line was never acknowledged.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._held: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Wait for the lock and cut a half line off."""
        file = open(self._journal.with_name(self._journal.name + ".lock"), "ab")  # noqa: SIM115  (until release)
        fcntl.flock(file, fcntl.LOCK_EX)
        self._held = file
        _cut_half_line(self._journal)
        return True

    def release(self) -> None:
        """Let others have it."""
        if self._held is not None:
            self._held.close()
            self._held = None


def _cut_half_line(path: Path) -> None:
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def journal_storage(directory: Path) -> BaseStorage:
    """Return the storage in the journal file of a study's directory.

    Raises:
        BadInput: the file is not a journal.
    """
    _quiet()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = directory / JOURNAL
    lock: Any = JournalLock(path)
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, KeyError) as error:
        raise BadInput(f"{path}: corrupt ({' '.join(str(error).split())})") from None


def open_storage(url: str | None, directory: Path) -> BaseStorage:
    """Return the storage of a study: the database at `url`, else the journal file in `directory`.

    Raises:
        BadInput: the URL cannot be used or reached; the message shows it without its password.
    """
    if url is None:
        return journal_storage(directory)
    _quiet()
    masked = mask(url)
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RDBStorage

    arguments: dict[str, Any] = {"timeout": 60} if url.startswith("sqlite") else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats
            return RDBStorage(
                url,
                engine_kwargs={"pool_pre_ping": True, "connect_args": arguments},
                heartbeat_interval=HEARTBEAT_S,
                grace_period=GRACE_S,
            )
    except Exception as error:  # every driver has errors of its own, and they may quote the URL
        text = _without_password(" ".join(str(error).split()), url)[:300]
        raise BadInput(f"storage: {masked} cannot be used ({type(error).__name__}: {text})") from None


def mask(url: str | None) -> str | None:
    """Return the URL with asterisks for its password.

    Raises:
        BadInput: it is no URL.
    """
    if url is None:
        return None
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        raise BadInput(
            "storage: not a database URL; write for example sqlite:////path/study.db or "
            "postgresql+psycopg2://user:password@host/database (null keeps a file in the study's directory)"
        ) from None


def _without_password(text: str, url: str) -> str:
    from urllib.parse import quote_plus

    from sqlalchemy.engine import make_url

    password = make_url(url).password
    if not password:
        return text.replace(url, str(mask(url)))
    for form in (url, str(password), quote_plus(str(password))):
        text = text.replace(form, str(mask(url)) if form == url else "***")
    return text


@contextmanager
def heartbeat(storage: BaseStorage, trial_id: int) -> Iterator[None]:
    """Record signs of life of a trial in a database while the block runs; a journal needs none."""
    from optuna.storages import RDBStorage

    if not isinstance(storage, RDBStorage):
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        storage.record_heartbeat(trial_id)
        while not ended.wait(HEARTBEAT_S):
            storage.record_heartbeat(trial_id)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def fail_silent_trials(study: Study, storage: BaseStorage) -> None:
    """Mark trials in a database as failed whose worker has given no sign of life for `GRACE_S` seconds."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RDBStorage, fail_stale_trials

    if isinstance(storage, RDBStorage):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(study)


def delete_study(url: str, name: str, directory: Path) -> None:
    """Remove the study of this name from a database, if `lab sweep` made one there.

    Raises:
        BadInput: the storage cannot be used.
    """
    import optuna

    storage = open_storage(url, directory)
    for summary in optuna.get_all_study_summaries(storage):
        if summary.study_name == name and "sweep" in summary.user_attrs:
            optuna.delete_study(study_name=name, storage=storage)


def _quiet() -> None:
    """Let Optuna report nothing by itself: a sweep prints its own lines."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
