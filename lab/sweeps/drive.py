"""A sweep from a plan to its results: workers until no point is left, then dataset, table, summary."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import RunFailed
from lab.process import peak_memory_mb, seconds_since_start
from lab.provenance import provenance
from lab.runs import Run
from lab.sweeps.launchers import Launcher
from lab.sweeps.launchers.local import LocalLauncher
from lab.sweeps.lines import duration
from lab.sweeps.plan import Bench
from lab.sweeps.results import DATASET, best, never_defined, write_results
from lab.sweeps.states import latest
from lab.sweeps.study import Counts, SweepStudy
from lab.sweeps.worker import Ended, work_on


@dataclass(frozen=True)
class Progress:
    """How far a study is, and how long the rest will take.

    Attributes:
        counts: of points.
        seconds_per_point: mean over those that were run; None before the first.
        seconds_left: for the points left, at the number of workers that run now; None before the first.
        best: value of the best point and its axes; None without an objective.
    """

    counts: Counts
    seconds_per_point: float | None
    seconds_left: float | None
    best: tuple[float, dict[str, Any]] | None

    def rows(self) -> dict[str, Any]:
        """What `lab sweep status` shows."""
        counts = self.counts
        shown: dict[str, Any] = {
            "points": counts.wanted,
            "complete": counts.complete,
            "pruned": counts.pruned,
            "failed": counts.failed,
            "running": counts.running,
            "waiting": counts.waiting,
            "time per point": duration(self.seconds_per_point),
            "time left": duration(self.seconds_left),
        }
        if self.best is not None:
            point = ", ".join(f"{key}={value}" for key, value in self.best[1].items())
            shown |= {"best value": self.best[0], "best point": point}
        return shown


def progress(study: SweepStudy, workers: int = 1) -> Progress:
    """Read how far the study is; needs no lock."""
    counts = study.counts()
    ran = [trial for trial in latest(study.trials()).values() if "same_as" not in trial.user_attrs]
    seconds = [trial.user_attrs["seconds"] for trial in ran if "seconds" in trial.user_attrs]
    each = sum(seconds) / len(seconds) if seconds else None
    left = counts.waiting + counts.running
    at_once = max(1, counts.running, workers)
    found = best(study)
    return Progress(
        counts,
        each,
        None if each is None else each * math.ceil(left / at_once),
        None if found is None else (float(found.value or 0.0), dict(found.params)),
    )


def run_sweep(
    bench: Bench,
    study: SweepStudy,
    run: Run,
    launcher: Launcher,
    workers: int,
    report: Callable[[Ended], None],
    watch: Callable[[Progress], None],
) -> dict[str, Any]:
    """Run workers until no point is left to begin; write and return the summary.

    One local worker runs in this process. The run is marked as finished when no other process works on it either.

    Raises:
        BadInput: what the first trial shows to be wrong with all.
        RunFailed: no trial ended well, or workers die before they begin one.
        Interrupted: the same command goes on where this one was.
    """
    versions = study.note_code(provenance()["git_commit"])
    if workers == 1 and isinstance(launcher, LocalLauncher):
        work_on(bench, study, report)
    else:
        while study.counts().waiting > 0:
            before = len(study.trials())
            launcher.run(bench.plan, workers, lambda: watch(progress(study, workers)))
            if study.counts().waiting > 0 and len(study.trials()) == before:
                raise RunFailed(
                    f"the workers died before they began a trial; see what they printed in {run.path}"
                )
    return finish(bench, study, run, versions)


def finish(bench: Bench, study: SweepStudy, run: Run, versions: list[str]) -> dict[str, Any]:
    """Write results and summary, and mark the run as finished where every point has ended.

    Raises:
        RunFailed: every point failed; the message has the first error.
    """
    counts = study.counts()
    found = write_results(study, results_attributes(bench, versions), run.path)
    summary = summarise(bench, study, counts, versions)
    if (undefined := never_defined(found, bench.settings)) and bench.plan.sweep.get("metrics"):
        summary["never_defined"] = undefined
    run.write_summary(summary)
    if counts.ended >= counts.wanted and counts.running == 0:
        if counts.complete + counts.pruned == 0:
            errors = [trial.user_attrs.get("error") for trial in latest(study.trials()).values()]
            raise RunFailed(
                f"all {counts.failed} points failed, the first with: {errors[0]} (retry_failed=true tries them again)"
            )
        run.finish()
    return summary


def summarise(bench: Bench, study: SweepStudy, counts: Counts, versions: list[str]) -> dict[str, Any]:
    """Return the numbers of a sweep for scripts."""
    state = progress(study)
    settings = bench.settings
    line = f"{counts.complete} of {counts.wanted} points complete"
    for name in ("pruned", "failed", "running", "waiting"):
        if getattr(counts, name):
            line += f", {getattr(counts, name)} {name}"
    if state.best is not None and settings.objective is not None:
        point = ", ".join(f"{key}={value}" for key, value in state.best[1].items())
        line += f"; best {settings.objective.metric} {state.best[0]:.4g} at {point}"
    return {
        "study": study.name,
        "points": counts.wanted,
        "complete": counts.complete,
        "pruned": counts.pruned,
        "failed": counts.failed,
        "running": counts.running,
        "waiting": counts.waiting,
        "seeds": list(settings.seeds),
        "sampler": settings.sampler,
        "metrics": dict(settings.metrics),
        "best": None if state.best is None else {"value": state.best[0], "params": state.best[1]},
        "seconds_per_point": state.seconds_per_point,
        "code_versions": versions,
        "results": DATASET,
        "wall_clock_s": seconds_since_start(),
        "peak_rss_mb": peak_memory_mb(),
        "result": line,
    }


def results_attributes(bench: Bench, versions: list[str]) -> Mapping[str, Any]:
    """Return what the dataset says about where it came from."""
    return {
        "config": bench.composer.base,
        "sweep": dict(bench.plan.sweep),
        "code_versions": versions,
        "provenance": provenance(),
    }


def study_directory(runs_dir: str, experiment: str, name: str) -> Path:
    """Return where a study lies."""
    return Path(runs_dir) / experiment / name
