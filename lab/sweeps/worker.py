"""The loop of a worker: claim a point, run its seeds one after another, tell the study, until no point is left."""

from __future__ import annotations

import errno
import math
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lab.errors import BadInput, Interrupted
from lab.files import remove_unfinished
from lab.runs import Run
from lab.sweeps.configs import as_json
from lab.sweeps.plan import Bench, Plan, set_up
from lab.sweeps.storage import heartbeat
from lab.sweeps.study import Claim, SweepStudy
from lab.sweeps.trials import read_metric

POINTS = "points"
_ERROR_LENGTH = 2000


@dataclass(frozen=True)
class Ended:
    """One line for a person: what came of a trial."""

    point: int
    state: str
    seconds: float
    values: dict[str, Any]
    metrics: dict[str, float]
    error: str = ""


def work(plan: Plan, report: Callable[[Ended], None] = lambda ended: None) -> int:
    """Run trials until every point has one; return how many were run here.

    Raises:
        BadInput: the plan cannot be used, or the very first trial shows that no trial can run.
        Interrupted: SIGTERM or Ctrl-C; the trial is taken up again by whoever comes next.
    """
    with set_up(plan) as bench:
        study = bench.open_study()
        study.want()
        return work_on(bench, study, report)


def work_on(bench: Bench, study: SweepStudy, report: Callable[[Ended], None] = lambda ended: None) -> int:
    """As `work`, on a study that is open already."""
    parent, done = os.getppid(), 0
    while os.getppid() == parent:  # a worker whose parent was killed ends after its trial
        started = time.perf_counter()
        claim = study.claim(bench.plan.retry_below)
        if claim is None:
            break
        try:
            if not study.is_duplicate(claim):
                report(_run(bench, study, claim, started))
                done += 1
            else:
                _fail(study, claim, duplicate=True)
        finally:
            claim.release()
    return done


def _run(bench: Bench, study: SweepStudy, claim: Claim, started: float) -> Ended:
    """Run one trial and tell the study how it ended."""
    trial_id: int = claim.trial._trial_id  # the only handle that Optuna's storages take
    with heartbeat(study.storage, trial_id):
        try:
            state, metrics = _evaluate(bench, study, claim, started)
            return Ended(claim.point, state, time.perf_counter() - started, claim.values, metrics)
        except (Interrupted, KeyboardInterrupt, SystemExit):
            _fail(study, claim, interrupted=True)
            raise
        except Exception as error:
            if _stops_the_sweep(error, study):
                _fail(study, claim, interrupted=True)
                raise
            text = _describe(error)
            seconds = time.perf_counter() - started
            _fail(
                study,
                claim,
                error=text,
                traceback=traceback.format_exc()[-_ERROR_LENGTH:],
                seconds=seconds,
            )
            return Ended(claim.point, "failed", seconds, claim.values, {}, text)


def _evaluate(bench: Bench, study: SweepStudy, claim: Claim, started: float) -> tuple[str, dict[str, float]]:
    from optuna.trial import TrialState

    trial, settings = claim.trial, bench.settings
    deaths = study.deaths(claim.point)
    if deaths >= settings.attempts:
        raise RuntimeError(f"the worker died {deaths} times at this point (memory?); it is not tried again")
    resolved = bench.composer.config(bench.space.overrides(claim.values))
    trial.set_user_attr("config", as_json(resolved))
    bench.kind.check({**resolved, "seed": settings.seeds[0]}, settings)
    twin = study.earlier_same(claim)
    if twin is not None:
        metrics: dict[str, dict[str, float | None]] = dict(twin.user_attrs["metrics"])
        trial.set_user_attr("same_as", twin.number)
        trial.set_user_attr("metrics", metrics)
    else:
        metrics = {}
    directory = Path(bench.plan.directory) / POINTS / f"{claim.point:05d}"
    directory.mkdir(parents=True, exist_ok=True)
    remove_unfinished(directory)
    parent = Run(directory, resolved, resumed=True)
    state = TrialState.COMPLETE
    for index, seed in enumerate(settings.seeds):
        if str(seed) not in metrics:
            with parent.child(f"seed_{seed}", {**resolved, "seed": seed}) as child:
                numbers = bench.kind.run(child, settings)
            metrics[str(seed)] = {
                name: _finite_or_none(read_metric(numbers, path, name))
                for name, path in settings.metrics.items()
            }
            trial.set_user_attr("metrics", metrics)  # at once, so that a later seed's error does not lose it
        if settings.objective is not None and index + 1 < len(settings.seeds):
            trial.report(_reported(metrics, settings.objective.metric, settings.pruner), index)
            if trial.should_prune():
                state = TrialState.PRUNED
                break
    trial.set_user_attr("seconds", time.perf_counter() - started)
    means = mean_metrics(metrics)
    value = means[settings.objective.metric] if settings.objective else 0.0
    if (
        math.isnan(value) and settings.objective is not None
    ):  # Optuna takes no NaN: it counts as the worst there is
        value = math.inf if settings.objective.direction == "minimize" else -math.inf
    study.study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
    return state.name.lower(), means


def mean_metrics(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """Return the mean of each metric over the seeds in which it is defined; NaN where it is in none."""
    names = dict.fromkeys(name for numbers in metrics.values() for name in numbers)
    means = {}
    for name in names:
        defined = [value for numbers in metrics.values() if (value := numbers.get(name)) is not None]
        means[name] = float(np.mean(defined)) if defined else float("nan")
    return means


def _reported(metrics: Mapping[str, Mapping[str, float | None]], name: str, pruner: str) -> float:
    """The intermediate value: the mean so far, or for a paired comparison the latest seed alone."""
    if pruner == "wilcoxon":
        latest = list(metrics.values())[-1].get(name)
        return float("nan") if latest is None else latest
    return mean_metrics(metrics)[name]


def _fail(study: SweepStudy, claim: Claim, **attributes: Any) -> None:
    from optuna.trial import TrialState

    for key, value in attributes.items():
        claim.trial.set_user_attr(key, value)
    study.study.tell(claim.trial, state=TrialState.FAIL)


def _stops_the_sweep(error: Exception, study: SweepStudy) -> bool:
    """Whether there is no point in going on: the disk is full, or bad input in the first trial of all."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return isinstance(error, BadInput) and study.counts().ended == 0


def _describe(error: Exception) -> str:
    text = " ".join(str(error).split()) or "(no message)"
    named = text if isinstance(error, BadInput) else f"{type(error).__name__}: {text}"
    return named[:_ERROR_LENGTH]


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
