"""A study: which point is next, which trials are alive, and the refusal of a changed space under an old name.

The Optuna storage holds everything; a point is tried by a trial, and by another one where its worker died. A trial
that runs holds a lock file in the study's directory, which ends with its process.
"""

from __future__ import annotations

import secrets
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lab.files import write_atomic
from lab.sweeps.locks import holding, is_held, try_hold
from lab.sweeps.points import Points
from lab.sweeps.settings import SweepSettings
from lab.sweeps.space import Label, Space
from lab.sweeps.states import latest, refuse_another, state_name, wanted_points
from lab.sweeps.storage import GRACE_S, fail_silent_trials

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_PLACE, _LOCKS, _CLAIM = ".place", ".trials", ".claim"


@dataclass
class Claim:
    """A trial that this process is to run: of point number `point`, at `values`."""

    trial: Trial
    point: int
    values: dict[str, Label]
    _lock: IO[bytes]

    def release(self) -> None:
        """Say that the trial is no longer run here."""
        self._lock.close()


@dataclass(frozen=True)
class Counts:
    """How far a study has come, in points; `wanted` is None where nobody has said."""

    wanted: int
    complete: int
    pruned: int
    failed: int
    running: int

    @property
    def ended(self) -> int:
        """Points that will not be tried again."""
        return self.complete + self.pruned + self.failed

    @property
    def waiting(self) -> int:
        """Points that nobody has begun, or whose worker died."""
        return max(0, self.wanted - self.ended - self.running)


class SweepStudy:
    """The study of one sweep, seen by one process.

    Args:
        name: of the Optuna study.
        directory: of the study, shared by all workers that see this disk.
        storage: see `lab.sweeps.storage`.
        space: the axes.
        points: of the sweep.
        settings: of the sweep.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        storage: BaseStorage,
        space: Space,
        points: Points,
        settings: SweepSettings,
    ) -> None:
        import optuna

        self.name, self.directory, self.storage = name, directory, storage
        self.space, self.points, self.settings = space, points, settings
        (directory / _LOCKS).mkdir(exist_ok=True)
        direction = settings.objective.direction if settings.objective else "maximize"
        with holding(directory / _CLAIM):
            self.place = _place(directory)
            self.study: Study = optuna.create_study(
                storage=storage,
                study_name=name,
                load_if_exists=True,
                direction=direction,
                pruner=_pruner(settings.pruner),
            )

    # ------------------------------------------------------------------------------------------------------------
    # What the study is about
    # ------------------------------------------------------------------------------------------------------------

    def agree_on(self, identity: Mapping[str, Any], where: str) -> None:
        """Note what the study is about, or refuse it where the storage has it otherwise.

        Args:
            identity: the plain mapping that makes two sweeps the same.
            where: the storage, for the message.

        Raises:
            BadInput: the study of this name is another one; names what differs.
        """
        with holding(self.directory / _CLAIM):
            attributes = self.study.user_attrs
            refuse_another(attributes, len(self.trials()), self.name, identity, where)
            if "sweep" not in attributes:
                self.study.set_user_attr("sweep", dict(identity))

    def note_code(self, commit: str | None) -> list[str]:
        """Note the version of the code that works on this study; return all versions so far."""
        with holding(self.directory / _CLAIM):
            versions: list[str] = list(self.study.user_attrs.get("code_versions", []))
            if str(commit) not in versions:
                versions.append(str(commit))
                self.study.set_user_attr("code_versions", versions)
            return versions

    def want(self, more: int | None = None) -> int:
        """Settle how many points are wanted: what the settings say, never fewer than before, or `more` on top.

        Raises:
            BadInput: more points than there are.
        """
        with holding(self.directory / _CLAIM):
            wanted = wanted_points(self.wanted, self.settings.trials, self.points.count, more)
            if wanted != self.wanted:
                self.study.set_user_attr("wanted", wanted)
            return wanted

    @property
    def wanted(self) -> int:
        """How many points are wanted in all."""
        return int(self.study.user_attrs.get("wanted", 0))

    # ------------------------------------------------------------------------------------------------------------
    # Trials
    # ------------------------------------------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """All trials, oldest first."""
        return self.study.get_trials(deepcopy=False)

    def counts(self) -> Counts:
        """How far the study has come."""
        states = Counter(state_name(trial, self.is_alive(trial)) for trial in latest(self.trials()).values())
        return Counts(self.wanted, states["complete"], states["pruned"], states["failed"], states["running"])

    def is_alive(self, trial: FrozenTrial) -> bool:
        """Whether the worker of a running trial still runs, as far as can be told from here."""
        place = trial.user_attrs.get("place")
        if place == self.place or (place is None and self._is_journal()):
            return is_held(self._lock_of(trial.number))
        if place is None:  # in a database: its worker is about to say where it is, or died before it could
            started = trial.datetime_start
            return started is None or (datetime.now() - started).total_seconds() < GRACE_S
        return True  # elsewhere; `fail_stale_trials` judges it by its heartbeat

    @contextmanager
    def _claiming(self) -> Iterator[list[FrozenTrial]]:
        """Hold the right to begin trials, with dead ones marked so that their points are tried again."""
        from optuna.trial import TrialState

        with holding(self.directory / _CLAIM):
            fail_silent_trials(self.study, self.storage)
            stale = [
                trial
                for trial in self.trials()
                if trial.state == TrialState.RUNNING and not self.is_alive(trial)
            ]
            for trial in stale:
                self.study.tell(trial.number, state=TrialState.FAIL)
            yield self.trials()

    def claim(self, retry_below: int = 0) -> Claim | None:
        """Begin a trial of the next point that has none; None where every point has one.

        Args:
            retry_below: failed trials of smaller number do not count: their points are tried again.
        """
        with self._claiming() as trials:
            while True:
                queued = self._left_in_queue(trials)
                point = queued if queued is not None else self._next_point(trials, retry_below)
                if point is None:
                    return None
                claim = self._begin(point, trials, queued is not None)
                if claim is not None:
                    return claim
                trials = self.trials()

    def _left_in_queue(self, trials: Sequence[FrozenTrial]) -> int | None:
        """The point of a trial that was put in the queue here by a worker that died before it took it."""
        from optuna.trial import TrialState

        for trial in trials:
            if trial.state == TrialState.WAITING and trial.user_attrs.get("place") == self.place:
                return int(trial.user_attrs["point"])
        return None

    def _next_point(self, trials: Sequence[FrozenTrial], retry_below: int) -> int | None:
        taken = set()
        for trial in trials:
            state = state_name(trial, alive=True)
            if state != "dead" and not (state == "failed" and trial.number < retry_below):
                taken.add(trial.user_attrs.get("point"))
        return next((point for point in range(self.wanted) if point not in taken), None)

    def _begin(self, point: int, trials: Sequence[FrozenTrial], queued: bool) -> Claim | None:
        """Take a trial from Optuna; None where another place took what was queued here (try again)."""
        from optuna.trial import TrialState

        values = self.points.values(point)
        distributions = self.space.distributions()
        if values is None:  # a point that Optuna chose before and whose worker died
            earlier = [trial for trial in trials if trial.user_attrs.get("point") == point]
            chosen = [trial.params for trial in earlier if set(trial.params) == set(distributions)]
            values = dict(chosen[-1]) if chosen else None
        self.study.sampler = self.points.sampler(len(trials))
        if values is not None and not queued:
            self.study.enqueue_trial(values, user_attrs={"point": point, "place": self.place})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Heartbeat")  # ours is `lab.sweeps.storage.heartbeat`
            trial = self.study.ask(distributions)
        if "point" not in trial.user_attrs:
            if values is not None:
                trial.set_user_attr("duplicate", True)
                self.study.tell(trial, state=TrialState.FAIL)
                return None
            trial.set_user_attr("point", point)
        lock = try_hold(self._lock_of(trial.number))
        assert lock is not None, "nobody else can hold the lock of a new trial"
        if trial.user_attrs.get("place") != self.place:
            trial.set_user_attr("place", self.place)
        return Claim(trial, int(trial.user_attrs["point"]), dict(trial.params), lock)

    def earlier_same(self, claim: Claim) -> FrozenTrial | None:
        """A complete trial at the same values: with the same seeds it can only come out the same."""
        from optuna.trial import TrialState

        for trial in self.trials():
            if trial.state == TrialState.COMPLETE and trial.params == claim.trial.params:
                return trial
        return None

    def is_duplicate(self, claim: Claim) -> bool:
        """Whether another place began this point first (two places of one database cannot see each other's locks)."""
        return any(
            trial.user_attrs.get("point") == claim.point
            and trial.number < claim.trial.number
            and trial.user_attrs.get("place") != self.place
            and state_name(trial, alive=True) in ("running", "complete", "pruned")
            for trial in self.trials()
        )

    def deaths(self, point: int) -> int:
        """How often a worker died in a trial of this point."""
        return sum(
            trial.user_attrs.get("point") == point
            and state_name(trial, alive=True) == "dead"
            and "interrupted" not in trial.user_attrs
            for trial in self.trials()
        )

    def _lock_of(self, number: int) -> Path:
        return self.directory / _LOCKS / f"{number:05d}"

    def _is_journal(self) -> bool:
        from optuna.storages import JournalStorage

        return isinstance(self.storage, JournalStorage)


def _place(directory: Path) -> str:
    """Return what the workers that see this directory call it; made once."""
    path = directory / _PLACE
    if not path.exists():
        write_atomic(path, secrets.token_hex(8))
    return path.read_text()


def _pruner(name: str) -> Any:
    from optuna.exceptions import ExperimentalWarning
    from optuna.pruners import MedianPruner, NopPruner, WilcoxonPruner

    if name == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    if name == "wilcoxon":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return WilcoxonPruner(p_threshold=0.1)
    return NopPruner()
