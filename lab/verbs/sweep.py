"""`lab sweep experiment=NAME`: a study over configurations; `lab sweep status experiment=NAME`: how far it is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from lab.errors import BadInput
from lab.files import require_free_space
from lab.runs import RunSettings, open_run
from lab.settings import build, suggest, whole_number
from lab.sweeps.configs import SWEEP_KEYS, trial_overrides
from lab.sweeps.drive import (
    Progress,
    progress,
    results_attributes,
    run_sweep,
    study_directory,
    summarise,
)
from lab.sweeps.launchers import Launcher, build_launcher
from lab.sweeps.lines import duration, trial_line
from lab.sweeps.plan import Bench, Plan, check_points, disk_bytes, identity, set_up
from lab.sweeps.results import write_results
from lab.sweeps.states import refuse_another, wanted_points
from lab.sweeps.storage import JOURNAL, delete_study, mask, open_storage
from lab.sweeps.study import SweepStudy
from lab.sweeps.trials import trial_kind
from lab.sweeps.worker import Ended
from lab.verbs.train import KEYS, RUN_KEYS, is_dry_run, print_table, refuse_unread_keys

ACTIONS = ("run", "status")


def run(config: DictConfig) -> str:
    """Run, resume or join the study, or show how far it is; return the one-line result.

    Raises:
        BadInput: a space, storage or configuration that cannot be used; nothing was run.
        RunFailed, Interrupted: see `lab.sweeps.drive.run_sweep`.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    refuse_unread_keys(resolved, (*KEYS, *SWEEP_KEYS, "workers"))
    action, launcher, workers = _own_keys(resolved)
    where = _run_settings(resolved)
    directory = study_directory(where.runs_dir, where.experiment, str(where.name))
    with set_up(_plan(resolved, directory, where)) as bench:
        if action == "status":
            return _status(bench, directory)
        points = check_points(bench)
        if is_dry_run(resolved):
            return _dry_run(bench, directory, points, workers)
        launcher.require()
        return _run(bench, directory, where, resolved, launcher, workers)


def _own_keys(resolved: dict[str, Any]) -> tuple[str, Launcher, int]:
    action = str(resolved["action"])
    if action not in ACTIONS:
        raise BadInput(f"action: unknown {action!r}; {suggest(action, ACTIONS)}")
    if not isinstance(resolved["retry_failed"], bool):
        raise BadInput(f"retry_failed: expected true or false, got {resolved['retry_failed']!r}")
    if resolved["add_trials"] is not None:
        whole_number(resolved["add_trials"], "add_trials", least=1)
    if resolved["storage"] is not None and not isinstance(resolved["storage"], str):
        raise BadInput("storage: expected a database URL or null")
    if resolved["stop_after_minutes"] is not None:
        raise BadInput(
            "stop_after_minutes: ends one training run; end a sweep with Ctrl-C or SIGTERM, the same command goes on"
        )
    workers = whole_number(resolved["workers"], "workers", least=1)
    return action, build_launcher(resolved["launcher"]), workers


def _run_settings(resolved: dict[str, Any]) -> RunSettings:
    """Where the study lies: without a name it is called like its experiment."""
    experiment = HydraConfig.get().runtime.choices.get("experiment") or "sweep"
    node = {key: resolved[key] for key in RUN_KEYS}
    node["name"] = node["name"] or experiment
    return build(RunSettings, {**node, "experiment": experiment})


def _plan(resolved: dict[str, Any], directory: Path, where: RunSettings) -> Plan:
    """Put together what a worker has to know."""
    mask(resolved["storage"])  # refuses what is no URL
    hydra = HydraConfig.get()
    kind = trial_kind(str(resolved["sweep"].get("verb")))
    experiment = hydra.runtime.choices.get("experiment")
    overrides = trial_overrides(
        experiment, list(hydra.overrides.task), resolved["sweep"].get("condition") or [], kind.defaults
    )
    places = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    return Plan(
        study=where.experiment if where.name == where.experiment else f"{where.experiment}/{where.name}",
        directory=str(directory.absolute()),
        cwd=os.getcwd(),
        config_dir=places[0] if places else None,
        overrides=overrides,
        sweep=resolved["sweep"],
        storage=resolved["storage"],
        threads=resolved["threads"],
    )


def _run(
    bench: Bench,
    directory: Path,
    where: RunSettings,
    resolved: dict[str, Any],
    launcher: Launcher,
    workers: int,
) -> str:
    exists = (directory / "config.yaml").is_file() and not where.clean
    known = bench.open_study().wanted if exists else 0
    wanted_points(known, bench.settings.trials, bench.points.count, resolved["add_trials"])
    done = directory / "DONE"
    if done.exists() and not where.clean:
        if not _reopens(bench, resolved):
            return f"{directory}: finished already; {_line(bench)}"
        done.unlink(missing_ok=True)
    points = bench.points.count if bench.settings.trials is None else bench.settings.trials
    if not exists:
        require_free_space(directory, disk_bytes(bench, points or 0), "this sweep")
    if bench.plan.storage is not None and not where.clean:
        _refuse_another_in_database(bench, directory)
    with open_run(where, stored_config(resolved), shared=True) as held:
        if where.clean and bench.plan.storage is not None:
            delete_study(bench.plan.storage, bench.plan.study, directory)
        study = bench.open_study()
        study.want(resolved["add_trials"])
        if resolved["retry_failed"]:
            bench = _retrying(bench, study)
        with _bar(workers) as watch:
            summary = run_sweep(bench, study, held, launcher, workers, _print_line, watch)
        rows = progress(study).rows()
        if "never_defined" in summary:
            rows["never defined"] = ", ".join(summary["never_defined"])
        print_table(rows)
        return f"{held.path}: {summary['result']}"


def _refuse_another_in_database(bench: Bench, directory: Path) -> None:
    """Look into the database before a directory is made."""
    import optuna

    storage = open_storage(bench.plan.storage, directory)
    for found in optuna.get_all_study_summaries(storage):
        if found.study_name == bench.plan.study:
            mine, where = identity(bench), bench.storage_name
            refuse_another(found.user_attrs, found.n_trials, found.study_name, mine, where)


def _reopens(bench: Bench, resolved: dict[str, Any]) -> bool:
    """Whether there is more to do in a finished study."""
    study = bench.open_study()
    more = resolved["add_trials"] is not None or (resolved["retry_failed"] and study.counts().failed > 0)
    limit = bench.points.count
    asked = bench.settings.trials or 0
    return more or min(asked, limit if limit is not None else asked) > study.wanted


def _line(bench: Bench) -> str:
    study = bench.open_study()
    return str(summarise(bench, study, study.counts(), [])["result"]) + (
        "; add_trials=N or a larger sweep.trials goes on"
    )


def _retrying(bench: Bench, study: SweepStudy) -> Bench:
    plan = dataclasses.replace(bench.plan, retry_below=len(study.trials()))
    return dataclasses.replace(bench, plan=plan)


def stored_config(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration as it is kept: no password, and nothing that a later call may change."""
    kept = {
        key: value for key, value in resolved.items() if key not in ("add_trials", "retry_failed", "action")
    }
    kept["storage"] = mask(resolved["storage"])
    kept["sweep"] = {
        key: value for key, value in resolved["sweep"].items() if key not in ("trials", "attempts")
    }
    del kept["launcher"]
    return kept


def _status(bench: Bench, directory: Path) -> str:
    if not (directory / "config.yaml").is_file():
        raise BadInput(
            f"{directory}: no such study; `lab list` shows what there is, name= and runs_dir= choose"
        )
    study = bench.open_study()
    versions = study.study.user_attrs.get("code_versions", [])
    write_results(study, results_attributes(bench, versions), directory)
    print_table(progress(study).rows())
    return f"{directory}: {summarise(bench, study, study.counts(), versions)['result']}"


def _dry_run(bench: Bench, directory: Path, checked: int, workers: int) -> str:
    settings = bench.settings
    first = bench.points.values(0) or bench.space.at([0.0] * len(bench.space.axes))
    points = bench.points.count if settings.trials is None else settings.trials
    if bench.points.count is not None and points is not None:
        points = min(points, bench.points.count)
    rows: dict[str, Any] = {
        "points": points,
        "seeds of each": len(settings.seeds),
        "runs": (points or 0) * len(settings.seeds),
        "configurations checked": checked,
        "disk at most": f"{disk_bytes(bench, points or 0) / 1024**2:.0f} MiB",
    }
    if (directory / JOURNAL).is_file() or (bench.plan.storage and directory.is_dir()):
        rows |= {
            f"so far: {key}": value for key, value in progress(bench.open_study(), workers).rows().items()
        }
    else:
        rows["time"] = "unknown before the first trial; `lab sweep status` tells after it"
    print_table(rows)
    config = bench.composer.config(bench.space.overrides(first))
    print(OmegaConf.to_yaml({**config, "seed": settings.seeds[0]}), end="")
    return "dry run: nothing was computed"


@contextmanager
def _bar(workers: int) -> Iterator[Callable[[Progress], None]]:
    """Yield what shows progress: a bar where several workers run elsewhere; one in here has its own lines and bar."""
    console = Console(stderr=True)
    bar = Bar(
        TextColumn("points"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=workers == 1 or not console.is_terminal,
    )
    task = bar.add_task("points", total=None, note="")

    def watch(now: Progress) -> None:
        counts = now.counts
        note = f"{counts.running} running, {counts.failed} failed, {duration(now.seconds_left)} left"
        bar.update(task, total=counts.wanted, completed=counts.ended, note=note)

    with bar:
        yield watch


def _print_line(ended: Ended) -> None:
    Console(stderr=True, soft_wrap=True).print(trial_line(ended), markup=False, highlight=False)
