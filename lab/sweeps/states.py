"""What trials and the attributes of a study say: states, the trial that speaks for a point, what is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab.errors import BadInput
from lab.runs import differing_keys

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def latest(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """The trial that speaks for each point: one that ended before one that died, the newest of its kind."""
    best: dict[int, tuple[bool, FrozenTrial]] = {}
    for trial in trials:
        point = trial.user_attrs.get("point")
        if point is None or "duplicate" in trial.user_attrs:
            continue
        counts = state_name(trial, alive=True) != "dead"
        if point not in best or counts or not best[point][0]:
            best[point] = (counts, trial)
    return {point: best[point][1] for point in sorted(best)}


def state_name(trial: FrozenTrial, alive: bool) -> str:
    """Return complete, pruned, failed, running, or dead: its worker is gone, its point will be tried again.

    Args:
        trial: any.
        alive: whether the worker of a running trial still runs.
    """
    from optuna.trial import TrialState

    if trial.state == TrialState.COMPLETE:
        return "complete"
    if trial.state == TrialState.PRUNED:
        return "pruned"
    if trial.state == TrialState.FAIL:
        return "failed" if "error" in trial.user_attrs else "dead"
    return "running" if alive else "dead"


def wanted_points(known: int, trials: int | None, limit: int | None, more: int | None) -> int:
    """Return how many points a study wants.

    Args:
        known: what it wanted so far, 0 for a new one.
        trials: what the settings say; None is all.
        limit: how many points there are; None without an end.
        more: so many on top.

    Raises:
        BadInput: more points than there are.
    """
    asked = max(known, trials if trials is not None else (limit or 0))
    if more is not None and limit is not None and asked + more > limit:
        raise BadInput(
            f"add_trials: the grid has {limit} points, {min(asked, limit)} are in the study already"
        )
    wanted = asked + (more or 0)
    return wanted if limit is None else min(wanted, limit)


def refuse_another(
    attributes: Mapping[str, Any], n_trials: int, name: str, identity: Mapping[str, Any], where: str
) -> None:
    """Refuse a study that is about something else.

    Args:
        attributes: user attributes of the study.
        n_trials: how many trials it has.
        name: of the study, for the message.
        identity: what the study should be about.
        where: the storage, for the message.

    Raises:
        BadInput: names what differs.
    """
    known = attributes.get("sweep")
    if known is None:
        if n_trials:
            raise BadInput(f"{where} has a study {name!r} that `lab sweep` did not make; choose another name")
        return
    differing = differing_keys(known, identity)
    if differing:
        shown = "; ".join(
            f"{key} was {_at(known, key)!r} and is {_at(identity, key)!r}" for key in differing[:5]
        )
        raise BadInput(
            f"the study {name!r} in {where} is another sweep: {shown}; choose another name, or clean=true"
        )


def _at(mapping: Mapping[str, Any], dotted: str) -> Any:
    """Return what lies under a dotted key, keys that hold dots themselves included."""
    if dotted in mapping:
        return mapping[dotted]
    for key, value in mapping.items():
        if dotted.startswith(f"{key}.") and isinstance(value, Mapping):
            return _at(value, dotted[len(key) + 1 :])
    return None
