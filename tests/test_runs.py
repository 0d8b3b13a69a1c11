"""Run directories: claiming, resuming, refusing, listing."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.errors import BadInput
from lab.runs import RunSettings, differing_keys, find_run, list_runs, open_run, read_config

CONFIG: dict[str, Any] = {"name": None, "seed": 0, "optimizer": {"lr": 1e-5, "betas": [0.9, 0.99]}}


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    return RunSettings(None, str(tmp_path / "runs, a=b"), "auto", False, "train")


def start(
    settings: RunSettings, config: dict[str, Any] = CONFIG, finish: bool = False, **change: Any
) -> Path:
    """Open a run, finish it where asked, close it, and return its path."""
    with open_run(dataclasses.replace(settings, **change), config) as run:
        if finish:
            run.write_summary({"result": "fine"})
            run.finish()
        return run.path


def test_a_new_run_is_numbered_and_keeps_its_configuration(settings: RunSettings) -> None:
    with open_run(settings, CONFIG) as run:
        assert run.path == Path(settings.runs_dir, "train", "001")
        assert not run.resumed and not run.finished
        assert yaml.safe_load((run.path / "config.yaml").read_text()) == CONFIG == read_config(run.path)
    assert start(settings, resume=False).name == "002"
    assert start(settings, experiment="sft").parts[-2:] == ("sft", "001")


def test_auto_continues_the_latest_unfinished_run_of_the_same_configuration(settings: RunSettings) -> None:
    first = start(settings)
    second = start(settings, resume=False)
    os.utime(first / "config.yaml", (1, 1))
    start(settings, {**CONFIG, "seed": 1})
    with open_run(
        settings, {**CONFIG, "name": "x", "threads": 7, "runs_dir": "y", "logger": {"a": 1}}
    ) as run:
        assert run.path == second and run.resumed
        run.finish()
    assert start(settings) == first
    start(settings, finish=True)
    assert start(settings).name == "004"


def test_resume_true_insists_and_false_never_does(settings: RunSettings) -> None:
    with pytest.raises(BadInput, match="no unfinished run with this configuration"):
        start(settings, resume=True)
    first = start(settings)
    assert start(settings, resume=True) == first
    assert start(settings, resume=False) != first
    with pytest.raises(BadInput, match="there is no run"):
        start(settings, resume=True, name="x")
    assert not (first.parent / "x").exists()


def test_resume_by_path(settings: RunSettings, tmp_path: Path) -> None:
    path = start(settings, name="one")
    with open_run(dataclasses.replace(settings, resume=str(path)), CONFIG) as run:
        assert run.path == path and run.resumed
    with pytest.raises(BadInput, match=r"seed is 0 there and 5 here"):
        start(settings, {**CONFIG, "seed": 5}, resume=str(path))
    with pytest.raises(BadInput, match="different runs"):
        start(settings, resume=str(path), name="two")
    with pytest.raises(BadInput, match="not a run"):
        start(settings, resume=str(tmp_path))
    start(settings, name="one", finish=True)
    with pytest.raises(BadInput, match="finished"):
        start(settings, resume=str(path))


def test_a_finished_name_is_refused_unless_clean(settings: RunSettings) -> None:
    path = start(settings, name="mine", finish=True)
    (path / "data").write_text("precious")
    with pytest.raises(BadInput, match="finished.*clean=true"):
        start(settings, name="mine")
    assert (path / "data").exists()
    with open_run(dataclasses.replace(settings, name="mine", clean=True), {**CONFIG, "seed": 9}) as run:
        assert not run.resumed and not run.finished
        assert not (path / "data").exists()
        assert read_config(path)["seed"] == 9
    assert [item.name for item in path.parent.iterdir()] == ["mine"]


def test_an_unfinished_name(settings: RunSettings) -> None:
    path = start(settings, name="mine")
    assert start(settings, name="mine") == path
    with pytest.raises(BadInput, match=r"optimizer\.lr is 1e-05 there and 0\.1 here"):
        start(settings, {**CONFIG, "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}}, name="mine")
    with pytest.raises(BadInput, match="resume=false"):
        start(settings, name="mine", resume=False)


def test_clean_without_a_name_starts_a_new_run_and_removes_nothing(settings: RunSettings) -> None:
    first = start(settings)
    assert start(settings, clean=True).name == "002"
    assert first.exists()
    with pytest.raises(BadInput, match="clean=true"):
        start(settings, clean=True, resume=True)


def test_clean_never_removes_what_is_not_a_run(settings: RunSettings) -> None:
    folder = Path(settings.runs_dir, "train", "thesis")
    folder.mkdir(parents=True)
    (folder / "chapter").write_text("1")
    for clean in (True, False):
        with pytest.raises(BadInput, match="not a run"):
            start(settings, name="thesis", clean=clean)
    assert (folder / "chapter").exists()


def test_a_directory_left_by_a_kill_before_its_configuration_is_adopted(settings: RunSettings) -> None:
    folder = Path(settings.runs_dir, "train", "mine")
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    (folder / ".config.yaml.00.partial").write_text("half")
    with open_run(dataclasses.replace(settings, name="mine"), CONFIG) as run:
        assert not run.resumed


@pytest.mark.parametrize("name", ["", " ", ".", "..", ".hidden", "a/b", "a\\b", "/abs", "x "])
def test_names_that_cannot_be_directories(settings: RunSettings, name: str) -> None:
    with pytest.raises(BadInput, match="cannot name a directory"):
        start(settings, name=name)
    with pytest.raises(BadInput, match="experiment"):
        start(settings, experiment=name)
    assert not Path(settings.runs_dir).exists()


def _hold(settings: RunSettings, ready: Any, leave: Any) -> None:
    with open_run(settings, CONFIG):
        ready.set()
        leave.wait(60)


def test_two_processes_never_share_a_run(settings: RunSettings) -> None:
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    named = dataclasses.replace(settings, name="busy")
    process = context.Process(target=_hold, args=(named, ready, leave))
    process.start()
    try:
        assert ready.wait(60)
        for change in (
            {},
            {"clean": True},
            {"name": None, "resume": str(Path(settings.runs_dir, "train/busy"))},
        ):
            with pytest.raises(BadInput, match="held by another process"):
                start(named, **change)
        assert start(settings).name == "001"
        assert {record.name: record.state for record in list_runs(settings.runs_dir)} == {
            "busy": "running",
            "001": "unfinished",
        }
    finally:
        process.kill()
        process.join()
    assert start(named).name == "busy"


def test_workers_may_share_a_run(settings: RunSettings) -> None:
    named = dataclasses.replace(settings, name="study")
    with open_run(named, CONFIG, shared=True) as one, open_run(named, CONFIG, shared=True) as two:
        assert one.path == two.path and two.resumed
        with pytest.raises(BadInput, match="held"):
            open_run(named, CONFIG)


def test_children_are_runs_and_finished_ones_can_be_skipped(settings: RunSettings) -> None:
    with open_run(settings, CONFIG) as parent:
        with parent.child("rl", {"seed": 3}) as child:
            assert child.path == parent.path / "rl" and not child.resumed
            child.write_summary({"result": "done"})
            child.finish()
        with parent.child("sft") as child:
            assert read_config(child.path) == CONFIG
    with open_run(settings, CONFIG) as parent:
        assert parent.resumed
        with parent.child("rl", {"seed": 3}) as child:
            assert child.finished and child.resumed
        with parent.child("sft") as child:
            assert not child.finished and child.resumed
        with pytest.raises(BadInput, match="seed is 3 there and 4 here"):
            parent.child("rl", {"seed": 4})
        with pytest.raises(BadInput, match="child"):
            parent.child("../x")
    assert [record.name for record in list_runs(settings.runs_dir)] == ["001"]


def test_the_summary_has_a_schema_version_and_null_for_undefined(settings: RunSettings) -> None:
    with open_run(settings, CONFIG) as run:
        run.write_summary({"skill": float("nan"), "steps": 3})
        text = (run.path / "summary.json").read_text()
        assert json.loads(text) == {"schema_version": 1, "skill": None, "steps": 3}
        run.finish()
        assert run.finished
    assert sorted(item.name for item in run.path.iterdir()) == ["DONE", "config.yaml", "summary.json"]


def test_damage_in_one_run_does_not_hide_the_others(settings: RunSettings) -> None:
    good = start(settings, finish=True)
    bad_config, bad_summary = start(settings, resume=False), start(settings, resume=False)
    (bad_config / "config.yaml").write_text("{a: [")
    (bad_summary / "summary.json").write_text("{")
    states = {record.path: record for record in list_runs(settings.runs_dir)}
    assert states[good].state == "finished" and states[good].result == "fine"
    assert states[bad_config].state == "corrupt" and "config.yaml" in states[bad_config].result
    assert states[bad_summary].state == "corrupt" and "summary.json" in states[bad_summary].result
    assert start(settings) == bad_summary
    with pytest.raises(BadInput, match="corrupt"):
        start(settings, name=bad_config.name)


def test_find_run(settings: RunSettings) -> None:
    runs_dir = settings.runs_dir
    one = start(settings, name="one")
    start(settings, name="two")
    start(settings, name="two", experiment="sft")
    with open_run(dataclasses.replace(settings, name="one"), CONFIG) as run:
        run.child("rl").close()
    assert find_run(runs_dir, "train/one") == find_run(runs_dir, "one") == find_run(runs_dir, str(one)) == one
    assert find_run(runs_dir, "train/one/rl") == one / "rl"
    with pytest.raises(BadInput, match="several.*sft/two, train/two"):
        find_run(runs_dir, "two")
    with pytest.raises(BadInput, match="not found.*train/one"):
        find_run(runs_dir, "three")
    assert list_runs(Path(runs_dir, "nowhere")) == []


def test_differing_keys() -> None:
    assert differing_keys({"a": {"b": 1, "c": 2}, "name": 1}, {"a": {"b": 1, "c": 3}, "d": None}) == [
        "a.c",
        "d",
    ]
    assert differing_keys({"a": float("nan")}, {"a": float("nan")}) == []
    assert differing_keys({"a": {}}, {"a": {}}) == []
    assert differing_keys({"a": {"name": 1}}, {"a": {"name": 2}}) == ["a.name"]
