"""The study and its workers, on trials that cost nothing: every point once, whatever happens."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.errors import BadInput, Interrupted
from lab.sweeps.plan import Plan, check_points, identity, set_up
from lab.sweeps.results import best, dataset, rows, write_results
from lab.sweeps.states import latest
from lab.sweeps.storage import JOURNAL, JournalLock, mask, open_storage
from lab.sweeps.worker import Ended, work, work_on

STEPS = {"steps": "choice(1,2,3)", "objective.prompts": "choice(4,8)"}


def value_of(steps: float, prompts: float, seed: float) -> float:
    return 1000.0 * steps + 10.0 * prompts + seed


def states(bed: Any, plan: Plan) -> dict[int, str]:
    with bed.study(plan) as (_, study):
        return {point: trial.state.name for point, trial in latest(study.trials()).items()}


def test_a_grid_with_common_seeds_ends_in_one_dataset(bed: Any) -> None:
    plan = bed.plan(space=STEPS, seeds=[5, 7])
    with bed.study(plan) as (bench, study):
        assert work_on(bench, study) == 6
        found = dataset(study, {})
        assert found["value"].dims == ("steps", "objective.prompts", "seed")
        assert found["steps"].values.tolist() == [1, 2, 3]
        for steps in (1, 2, 3):
            for prompts in (4, 8):
                for seed in (5, 7):
                    cell = found["value"].sel({"steps": steps, "objective.prompts": prompts, "seed": seed})
                    assert float(cell) == value_of(steps, prompts, seed)
        assert set(found["state"].values.ravel()) == {"complete"} and found.attrs["complete"] == 1
        assert work_on(bench, study) == 0  # nothing is left
    assert sorted(bed.ran()) == sorted(f"{p:05d}/seed_{s}" for p in range(6) for s in (5, 7))


def test_the_resolved_configuration_is_kept_with_the_trial(bed: Any) -> None:
    plan = bed.plan(space=STEPS, groups={"rate": {"low": ["optimizer.learning_rate=0.1"]}})
    with bed.study(plan) as (bench, study):
        work_on(bench, study)
        trial = study.trials()[3]
        config = json.loads(trial.user_attrs["config"])
        assert trial.params == {"steps": 2, "objective.prompts": 8, "rate": "low"}
        assert (config["steps"], config["objective"]["prompts"]) == (2, 8)
        assert config["optimizer"]["learning_rate"] == 0.1


def test_options_of_groups_can_be_axes(bed: Any) -> None:
    plan = bed.plan(space={"optimizer": "glob(*)", "steps": "1,2"}, condition=["objective.prompts=6"])
    with bed.study(plan) as (bench, study):
        assert check_points(bench) > 0
        work_on(bench, study)
        names = [json.loads(trial.user_attrs["config"])["optimizer"]["name"] for trial in study.trials()]
    assert names == ["adamw", "adamw", "sgd", "sgd"]


def test_a_failed_trial_keeps_its_error_and_the_sweep_goes_on(bed: Any) -> None:
    plan = bed.plan(space={"optimizer.learning_rate": "choice(0.1,2,0.5)"}, seeds=2)
    reported: list[Ended] = []
    with bed.study(plan) as (bench, study):
        assert work_on(bench, study, reported.append) == 3
        assert [ended.state for ended in reported] == ["complete", "failed", "complete"]
        assert reported[1].error == "RuntimeError: diverged"
        found = dataset(study, {})
        assert found["state"].values.tolist() == ["complete", "failed", "complete"]
        assert np.isnan(found["value"].values).tolist() == [[False] * 2, [True] * 2, [False] * 2]
        failed = [row for row in rows(study) if row["state"] == "failed"]
        assert [row["error"] for row in failed] == ["RuntimeError: diverged"]
        assert work_on(bench, study) == 0  # not tried again by itself ...
        again = len(study.trials())
    with bed.study(bed.plan(space=plan.sweep["space"], seeds=2, retry_below=again)) as (bench, study):
        assert work_on(bench, study) == 1  # ... but when asked to, once
        assert study.counts().failed == 1


def test_undefined_metrics_are_stored_and_count_as_the_worst(bed: Any) -> None:
    plan = bed.plan(
        space={"steps": "choice(13,2)"}, objective={"metric": "value", "direction": "minimize"}, seeds=1
    )
    with bed.study(plan) as (bench, study):
        work_on(bench, study)
        undefined, defined = study.trials()
        assert undefined.state.name == "COMPLETE" and undefined.value == math.inf
        assert undefined.user_attrs["metrics"] == {"0": {"value": None}}
        assert best(study).number == defined.number
        assert np.isnan(dataset(study, {})["value"].values).tolist() == [[True], [False]]


def test_a_metric_that_no_summary_has_stops_at_the_first_trial(bed: Any) -> None:
    plan = bed.plan(space={"steps": "1,2"}, metrics={"m": "parts.serie"})
    with bed.study(plan) as (bench, study):
        with pytest.raises(BadInput, match=r"sweep.metrics.m: parts.serie.*did you mean 'series'"):
            work_on(bench, study)
        assert study.counts().ended == 0 and study.counts().waiting == 2


def test_metrics_by_path(bed: Any) -> None:
    plan = bed.plan(space={"steps": "3"}, metrics=["parts.series.0", "absent.at_all?"], seeds=[9])
    with bed.study(plan) as (bench, study):
        work_on(bench, study)
        found = dataset(study, {})
        assert found["parts_series_0"].values.tolist() == [[3.0]]
        assert np.isnan(found["absent_at_all"].values).all()


def test_an_interrupted_trial_is_taken_up_again_and_finished_seeds_stay(bed: Any, monkeypatch: Any) -> None:
    plan = bed.plan(space=STEPS, seeds=3)
    original, calls = bed.kind.run, []

    def stop_at_the_eighth(run: Any, settings: Any) -> Any:
        calls.append(run.path)
        if len(calls) == 8:
            raise Interrupted("stopped by SIGTERM")
        return original(run, settings)

    monkeypatch.setattr(bed.kind, "run", stop_at_the_eighth)
    with pytest.raises(Interrupted):
        work(plan)
    assert len(bed.ran()) == 7
    work(plan)
    with bed.study(plan) as (_, study):
        assert study.counts().complete == 6
        assert [row["seed"] for row in rows(study) if row["point"] == 2] == ["0", "0", "1", "2"]
    assert len(bed.ran()) == 18 == len(set(bed.ran()))  # no seed twice


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_points_follow_from_their_number(bed: Any, sampler: str) -> None:
    space = {"optimizer.learning_rate": "tag(log,interval(1e-5,1e-1))", "steps": "int(interval(1,8))"}
    plan = bed.plan(space=space, sampler=sampler, trials=5)
    work(plan)
    with bed.study(bed.plan(space=space, sampler=sampler, trials=8)) as (bench, study):
        assert study.wanted == 8  # a larger number goes on
        work_on(bench, study)
        drawn = [trial.params for trial in study.trials()]
        assert drawn == [bench.points.values(index) for index in range(8)]
        found = dataset(study, {})
        assert found["value"].dims == ("trial", "seed")
        assert found["steps"].values.tolist() == [params["steps"] for params in drawn]
    if sampler == "qmc":  # eight points of a Sobol sequence: one in each eighth of every axis
        logs = [math.log10(params["optimizer.learning_rate"]) for params in drawn]
        assert sorted(math.floor((x + 5) / 4 * 8) for x in logs) == list(range(8))
        assert sorted(params["steps"] for params in drawn) == list(range(1, 9))


def test_tpe_finds_the_minimum_and_adds_trials_when_asked(bed: Any) -> None:
    sweep = {
        "space": {"objective.prompts": "int(interval(1,60))", "steps": "int(interval(1,4))"},
        "sampler": "tpe",
        "trials": 25,
        "objective": {"metric": "value", "direction": "minimize"},
    }
    plan = bed.plan(**sweep)
    work(plan)
    with bed.study(plan, more=5) as (bench, study):
        assert work_on(bench, study) == 5
        assert study.wanted == 30 == study.counts().complete
        late = np.mean([trial.value for trial in study.trials()[15:]])
        early = np.mean([trial.value for trial in study.trials()[:10]])
        assert best(study).params["steps"] == 1 and late < early
        assert len({trial.user_attrs["point"] for trial in study.trials()}) == 30


@pytest.mark.parametrize("pruner", ["median", "wilcoxon"])
def test_pruning_after_a_seed(bed: Any, pruner: str) -> None:
    plan = bed.plan(
        space={"steps": "choice(1,2,3,4,5,90,91)"},
        seeds=6,
        pruner=pruner,
        objective={"metric": "value", "direction": "minimize"},
    )
    with bed.study(plan) as (bench, study):
        work_on(bench, study)
        counts = study.counts()
        assert counts.pruned >= 2 and counts.ended == 7
        ends = [trial.state.name for trial in study.trials()]
        assert ends[0] == "COMPLETE" and ends[5:] == ["PRUNED", "PRUNED"]
        kept = study.trials()[6].user_attrs["metrics"]
        assert 1 <= len(kept) < 6 and kept["0"]["value"] == value_of(91, 16, 0)


def test_a_changed_space_under_the_old_name_is_refused(bed: Any) -> None:
    work_on_first = bed.plan(space={"steps": "1,2"})
    with bed.study(work_on_first):
        pass
    for changed, message in (
        ({"space": {"steps": "1,3"}}, "space.steps"),
        ({"space": {"steps": "1,2"}, "seeds": 3}, "sweep.seeds"),
        ({"space": {"steps": "1,2"}, "metrics": ["seed"]}, "sweep.metrics"),
    ):
        with pytest.raises(BadInput, match=message), bed.study(bed.plan(**changed)):
            pass
    with bed.study(bed.plan(space={"steps": "1,2"}, attempts=9)):
        pass  # how often to try is no matter of what is computed


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"space": {"objective.promts": "1,2"}}, "objective.promts: no such key; did you mean 'prompts'"),
        ({"space": {"seed": "1,2"}}, "sweep.space.seed: this key is the sweep's own"),
        ({"space": {"runs_dir": "a,b"}}, "sweep.space.runs_dir: this key is the sweep's own"),
        ({"space": {"optimizer": "adam,sgd"}}, "optimizer: unknown 'adam'; did you mean 'adamw'"),
        ({"space": {"steps": "1,0"}}, "steps: expected at least 1 (at the point steps=0)"),
        ({"space": {"steps": "interval(1,2)"}}, "sweep.space.steps: a grid needs values"),
        ({"space": {"steps": "1,2"}, "sampler": "random"}, "sweep.trials: give the number of points"),
        ({"space": {"steps": "1,2"}, "sampler": "gird"}, "did you mean 'grid'"),
        ({"space": {"steps": "1,2"}, "sampler": "tpe", "trials": 3}, "sweep.objective: tpe and pruners"),
        ({"space": {"steps": "1,2"}, "seeds": 0}, "sweep.seeds: expected a count of at least 1"),
        ({"space": {"steps": "1,2"}, "seeds": [1, 1]}, "sweep.seeds: a seed is listed twice"),
        ({"space": {"steps": "1,2"}, "metrics": {"steps": "value"}}, "this name is taken"),
        ({"space": {"steps": "1,2"}, "sampels": 3}, "sweep.sampels: no code reads this key"),
        ({"space": {"steps": "1,2"}, "groups": {"g": {"a": ["+b=1"]}}}, "plain key=value"),
        (
            {"space": {"steps": "1,2"}, "objective": {"metric": "valeu", "direction": "maximize"}},
            "sweep.objective.metric: unknown metric 'valeu'; did you mean 'value'",
        ),
    ],
)
def test_refused_before_the_first_trial(bed: Any, sweep: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught, set_up(bed.plan(**sweep)) as bench:
        check_points(bench)
    assert message in str(caught.value)
    assert bed.ran() == []


# ----------------------------------------------------------------------------------------------------------------
# Storage
# ----------------------------------------------------------------------------------------------------------------


def test_a_database_holds_the_study(bed: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    plan = bed.plan(space=STEPS, storage=url)
    work(plan)
    assert states(bed, plan) == dict.fromkeys(range(6), "COMPLETE")
    assert not (bed.directory / JOURNAL).exists()
    changed = bed.plan(space={"steps": "1,2"}, storage=url)
    with pytest.raises(BadInput, match="is another sweep"), bed.study(changed):
        pass


def test_a_database_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path) -> None:
    import sqlalchemy.engine

    url = "postgresql+psycopg2://me:hunter2@localhost:1/none"
    with pytest.raises(BadInput) as caught:
        open_storage(url, tmp_path)
    assert "hunter2" not in str(caught.value)
    assert "postgresql+psycopg2://me:***@localhost:1/none" in str(caught.value)
    assert mask(url) == sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    with pytest.raises(BadInput, match="not a database URL"):
        open_storage("no url", tmp_path)
    with pytest.raises(BadInput, match="cannot be used"):
        open_storage(f"sqlite:///{tmp_path}/missing/study.db", tmp_path)


def test_a_study_of_somebody_else_is_refused(bed: Any, tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path}/study.db"
    other = optuna.create_study(study_name="fake", storage=url, direction="maximize")
    other.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(BadInput, match="did not make"), bed.study(bed.plan(space=STEPS, storage=url)):
        pass


def test_two_places_of_one_database_do_a_point_once(bed: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Workers without a common disk cannot see each other's locks: the trial that began first holds the point."""
    import dataclasses

    url = f"sqlite:///{tmp_path}/study.db"
    here = bed.plan(space={"steps": "1,2"}, storage=url)
    (tmp_path / "elsewhere").mkdir()
    there = dataclasses.replace(here, directory=str(tmp_path / "elsewhere"))
    with bed.study(here) as (bench, study), set_up(there) as other_bench:
        other = other_bench.open_study()
        assert other.place != study.place
        mine = study.claim()
        assert mine is not None and mine.point == 0
        # the other one takes the next point, and takes mine for alive although it sees no lock of it
        second = other.claim()
        assert second is not None and second.point == 1 and not other.is_duplicate(second)
        assert other.claim() is None
        # both began the same point at once: the later trial gives way, the earlier one does not
        late = other._begin(0, other.trials(), queued=False)
        assert late is not None and late.point == 0
        assert other.is_duplicate(late) and not study.is_duplicate(mine)
        late.release()
        mine.release()
        second.release()


def test_a_half_written_line_of_a_killed_worker_is_cut_off(bed: Any) -> None:
    plan = bed.plan(space=STEPS)
    work(plan)
    journal = bed.directory / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":5,"worker_id":"x","tri')
    lock = JournalLock(journal)
    assert lock.acquire()
    lock.release()
    assert journal.read_bytes() == whole
    journal.write_bytes(whole + b'{"op_code":5,"worker_id":"x","tri')
    assert states(bed, bed.plan(space=STEPS)) == dict.fromkeys(range(6), "COMPLETE")
    with bed.study(plan) as (_, study):
        study.study.set_user_attr("still", "writable")
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_optuna_reads_the_study_by_itself(bed: Any) -> None:
    """As optuna-dashboard does: through Optuna's own classes and lock, nothing of ours."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    work(bed.plan(space=STEPS, objective={"metric": "value", "direction": "maximize"}, seeds=[1]))
    storage = JournalStorage(JournalFileBackend(str(bed.directory / JOURNAL)))
    study = optuna.load_study(study_name="fake", storage=storage)
    assert study.best_value == value_of(3, 8, 1) and study.best_params == {"steps": 3, "objective.prompts": 8}


# ----------------------------------------------------------------------------------------------------------------
# Workers that die
# ----------------------------------------------------------------------------------------------------------------


def _in_fork(plan: Plan) -> Any:
    process = multiprocessing.get_context("fork").Process(target=work, args=(plan,))
    process.start()
    return process


def _wait_for(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_a_worker_killed_in_a_trial_loses_no_seed_and_another_takes_the_point(bed: Any) -> None:
    bed.kind.seconds = 0.2
    plan = bed.plan(space={"steps": "1,2"}, seeds=4)
    process = _in_fork(plan)
    _wait_for(lambda: len(bed.ran()) >= 2)
    with bed.study(plan) as (_, study):
        assert study.counts().running == 1  # alive, seen by its lock
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    bed.kind.seconds = 0.0
    with bed.study(plan) as (bench, study):
        assert study.counts().running == 0 and study.counts().waiting == 2
        assert work_on(bench, study) == 2
        assert study.counts().complete == 2
        dead = [row for row in rows(study) if row["state"] == "dead"]
        assert len({row["trial"] for row in dead}) == 1
    assert len(bed.ran()) == 8 == len(set(bed.ran()))


def test_killed_again_and_again_it_ends_with_every_point(bed: Any) -> None:
    bed.kind.seconds = 0.04
    plan = bed.plan(space={"steps": "range(1,7)"}, attempts=20)
    generator = np.random.default_rng(0)
    finished: set[int] = set()
    for _ in range(3):
        process = _in_fork(plan)
        time.sleep(float(generator.uniform(0.1, 0.4)))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with bed.study(plan) as (_, study):
            now = {point for point, trial in latest(study.trials()).items() if trial.state.name == "COMPLETE"}
        assert finished <= now
        finished = now
    bed.kind.seconds = 0.0
    work(plan)
    assert states(bed, plan) == dict.fromkeys(range(6), "COMPLETE")
    assert len(bed.ran()) == len(set(bed.ran()))


def test_a_point_that_kills_its_worker_is_given_up(bed: Any) -> None:
    plan = bed.plan(space={"steps": "1,2"}, attempts=2)
    with bed.study(plan) as (bench, study):
        for _ in range(2):
            claim = study.claim()
            assert claim is not None and claim.point == 0
            claim.release()  # what a death leaves: a running trial whose lock nobody holds
        assert work_on(bench, study) == 2
        counts = study.counts()
        assert (counts.failed, counts.complete) == (1, 1)
        assert "died 2 times" in [row["error"] for row in rows(study) if row["state"] == "failed"][0]


def test_a_worker_killed_between_queue_and_ask_leaves_nothing_undone(bed: Any) -> None:
    plan = bed.plan(space={"steps": "1,2,3"})
    with bed.study(plan) as (bench, study):
        study.study.enqueue_trial({"steps": 1}, user_attrs={"point": 0, "place": study.place})
        assert work_on(bench, study) == 3
        assert [trial.user_attrs["point"] for trial in study.trials()] == [0, 1, 2]
        assert [trial.params["steps"] for trial in study.trials()] == [1, 2, 3]


def test_two_workers_at_once_share_the_points(bed: Any) -> None:
    bed.kind.seconds = 0.03
    plan = bed.plan(space={"steps": "range(1,11)"})
    processes = [_in_fork(plan), _in_fork(plan)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    with bed.study(plan) as (_, study):
        assert study.counts().complete == 10 == len(study.trials())
    assert len(bed.ran()) == 10 == len(set(bed.ran()))


def test_results_are_written_whole(bed: Any) -> None:
    import xarray as xr

    plan = bed.plan(space={"steps": "1,2", "objective.prompts": "choice(4,8)"}, seeds=2)
    with bed.study(plan) as (bench, study):
        claim = study.claim()
        write_results(study, {"config": bench.composer.base}, bed.directory)
        partial = xr.open_dataset(bed.directory / "results.nc", engine="h5netcdf").load()
        assert np.isnan(partial["value"]).all() and partial.attrs["complete"] == 0
        claim.release()
        work_on(bench, study)
        write_results(study, {"config": bench.composer.base}, bed.directory)
    whole = xr.open_dataset(bed.directory / "results.nc", engine="h5netcdf").load()
    assert whole.attrs["complete"] == 1 and not np.isnan(whole["value"]).any()
    assert json.loads(whole.attrs["config"])["optimizer"]["name"] == "adamw"
    table = (bed.directory / "results.csv").read_text().splitlines()
    assert table[0] == "trial,point,steps,objective.prompts,seed,state,seconds,value,error"
    assert len(table) == 1 + 8 + 1  # a row for each seed, and one for the trial that was left


def test_sqlite_holds_no_more_than_it_should(bed: Any, tmp_path: Path) -> None:
    """Nothing of the URL is written into the study itself."""
    path = tmp_path / "study.db"
    plan = bed.plan(space={"steps": "1"}, storage=f"sqlite:///{path}?timeout=59")
    work(plan)
    dump = "\n".join(sqlite3.connect(path).iterdump())
    assert "timeout=59" not in dump
    with set_up(plan) as bench:
        assert "storage" not in identity(bench)
    assert "timeout=59" not in repr(plan)
