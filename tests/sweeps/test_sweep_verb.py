"""`lab sweep` from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

EXPERIMENT = """\
# @package _global_
sweep:
  verb: power
  space:
    signal: choice(0.0,3.0)
    effective_coordinates: range(2,5)
  condition: ["checkpoints=[7]", simulations=20, flips=31]
  metrics: {power: power.0, median: runs.0.r2_median}
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment in ./conf, of six points that take milliseconds each."""
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    file = folder / "cheap.yaml"
    file.write_text(EXPERIMENT)
    return file


def study(tmp_path: Path, name: str = "cheap") -> Path:
    return tmp_path / "runs" / "cheap" / name


def test_run_finish_and_run_again(lab: Any, experiment: Path, tmp_path: Path) -> None:
    first = lab("sweep", "experiment=cheap", "sweep.seeds=2")
    assert first.code == 0, first.err
    assert first.last_line == "runs/cheap/cheap: 6 of 6 points complete"
    found = xr.open_dataset(study(tmp_path) / "results.nc", engine="h5netcdf").load()
    assert dict(found["power"].sizes) == {"signal": 2, "effective_coordinates": 3, "seed": 2}
    assert float(found["power"].sel(signal=3.0).min()) > float(found["power"].sel(signal=0.0).max())
    summary = json.loads((study(tmp_path) / "summary.json").read_text())
    assert (summary["points"], summary["complete"], summary["seeds"]) == (6, 6, [0, 1])
    again = lab("sweep", "experiment=cheap", "sweep.seeds=2")
    assert again.code == 0 and "finished already; 6 of 6 points complete" in again.last_line
    listed = lab("list")
    assert "cheap/cheap" in listed.out and "finished" in listed.out


def test_the_same_seed_gives_the_same_numbers_in_another_study(
    lab: Any, experiment: Path, tmp_path: Path
) -> None:
    tables = []
    for name in ("a", "b"):
        assert lab("sweep", "experiment=cheap", f"name={name}").code == 0
        tables.append(xr.open_dataset(study(tmp_path, name) / "results.nc", engine="h5netcdf").load())
    assert np.array_equal(tables[0]["median"], tables[1]["median"])


def test_a_changed_space_is_refused_and_clean_starts_anew(lab: Any, experiment: Path, tmp_path: Path) -> None:
    assert lab("sweep", "experiment=cheap").code == 0
    changed = lab("sweep", "experiment=cheap", "sweep.space.signal='choice(0.0,2.0)'")
    assert changed.code == 2 and "another sweep" in changed.err and "signal" in changed.err
    assert (study(tmp_path) / "DONE").exists()
    anew = lab("sweep", "experiment=cheap", "sweep.space.signal='choice(0.0,2.0)'", "clean=true")
    assert anew.code == 0
    found = xr.open_dataset(study(tmp_path) / "results.nc", engine="h5netcdf")
    assert found["signal"].values.tolist() == [0.0, 2.0]


def test_a_space_of_dotted_keys_is_given_on_the_command_line(lab: Any, tmp_path: Path) -> None:
    words = ("sweep", "sweep.verb=train", "dry_run=true")
    one = lab(*words, "sweep.space={optimizer.learning_rate: 'choice(1e-3,1e-4)'}")
    assert one.code == 0, one.err
    assert re.search(r"points +│ 2 ", one.out) and "learning_rate: 0.001" in one.out
    wrong = lab(*words, "sweep.space={optimizer.learning_rat: 'choice(1e-3,1e-4)'}")
    assert wrong.code == 2 and "optimizer.learning_rat: no such key" in wrong.err
    assert "learning_rate" in wrong.err


def test_adding_trials_only_when_asked(lab: Any, experiment: Path, tmp_path: Path) -> None:
    words = ("sweep", "experiment=cheap", "sweep.sampler=random", "sweep.space.signal='interval(0,3)'")
    assert lab(*words, "sweep.trials=2").last_line == "runs/cheap/cheap: 2 of 2 points complete"
    assert "finished already" in lab(*words, "sweep.trials=2").last_line
    assert lab(*words, "sweep.trials=3").last_line == "runs/cheap/cheap: 3 of 3 points complete"
    more = lab(*words, "sweep.trials=3", "add_trials=2")
    assert more.last_line == "runs/cheap/cheap: 5 of 5 points complete"
    found = xr.open_dataset(study(tmp_path) / "results.nc", engine="h5netcdf")
    assert found["trial"].values.tolist() == [0, 1, 2, 3, 4]


def test_status_needs_no_lock_and_shows_what_is_there(lab: Any, experiment: Path, tmp_path: Path) -> None:
    missing = lab("sweep", "status", "experiment=cheap")
    assert missing.code == 2 and "no such study" in missing.err
    assert lab("sweep", "experiment=cheap").code == 0
    (study(tmp_path) / "results.nc").unlink()
    shown = lab("sweep", "status", "experiment=cheap")
    assert shown.code == 0 and shown.last_line == "runs/cheap/cheap: 6 of 6 points complete"
    assert "time left" in shown.out and (study(tmp_path) / "results.nc").exists()


def test_dry_run_computes_nothing(lab: Any, experiment: Path, tmp_path: Path) -> None:
    outcome = lab("sweep", "experiment=cheap", "sweep.seeds=3", "dry_run=true")
    assert outcome.code == 0 and not (tmp_path / "runs").exists()
    rows = {
        line.split("│")[1].strip(): line.split("│")[2].strip()
        for line in outcome.out.splitlines()
        if "│" in line
    }
    assert (rows["points"], rows["seeds of each"], rows["runs"]) == ("6", "3", "18")
    assert "effective_coordinates: 2" in outcome.out  # the resolved configuration of the first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep.space.sgnal='choice(1)'"], "sgnal: no such key; did you mean 'signal'"),
        (["sweep.space.signal='interval(2,1)'"], "sweep.space.signal: low 2 is above high 1"),
        (["sweep.space.signal='choice(-1.0)'"], "signal: expected at least 0, got -1"),
        (["seed=3"], "seed: a sweep has several; set sweep.seeds"),
        (["workers=0"], "workers: expected a whole number of at least 1"),
        (["add_trials=1"], "add_trials: the grid has 6 points"),
        (["launcher=slurm"], "launcher: unknown 'slurm'"),
        (["storage=nonsense"], "storage: not a database URL"),
        (
            ["storage='mysql+nodriver://me:hunter2@h/db'"],
            "storage: mysql+nodriver://me:***@h/db cannot be used",
        ),
        (["action=stop"], "action: unknown 'stop'"),
    ],
)
def test_refused_before_anything_is_made(
    lab: Any, experiment: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    outcome = lab("sweep", "experiment=cheap", *words)
    assert outcome.code == 2, outcome.out
    assert message in outcome.err and "hunter2" not in outcome.err
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*/*"))


def test_without_an_experiment_there_is_nothing_to_sweep(lab: Any) -> None:
    outcome = lab("sweep")
    assert outcome.code == 2 and "sweep.space: empty" in outcome.err


def test_a_database_password_is_stored_nowhere(lab: Any, experiment: Path, tmp_path: Path) -> None:
    """SQLite takes any query; what is in the URL stands for a password."""
    url = f"sqlite://:hunter2@/{tmp_path}/study.db"
    outcome = lab("sweep", "experiment=cheap", f"storage='{url}'")
    everything = outcome.out + outcome.err
    for file in tmp_path.rglob("*"):
        if file.is_file():
            everything += file.read_bytes().decode("latin-1")
    assert "hunter2" not in everything


def test_a_study_in_a_database(lab: Any, experiment: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    assert lab("sweep", "experiment=cheap", f"storage='{url}'").code == 0
    other = lab("sweep", "experiment=cheap", "runs_dir=other", "sweep.seeds=2", f"storage='{url}'")
    assert other.code == 2 and "is another sweep" in other.err and "sweep.seeds" in other.err
    assert not (tmp_path / "other" / "cheap").exists()
    joined = lab("sweep", "experiment=cheap", "runs_dir=other", f"storage='{url}'")
    assert joined.code == 0 and "6 of 6 points complete" in joined.last_line  # nothing was left to do


def test_when_every_point_fails_the_exit_code_says_so(lab: Any, experiment: Path, tmp_path: Path) -> None:
    experiment.write_text(EXPERIMENT.replace("simulations=20", "simulations=20, study=none, metric=power"))
    outcome = lab("sweep", "experiment=cheap")
    assert outcome.code == 2 and "not found" in outcome.err  # the first trial shows it
    assert not (study(tmp_path) / "DONE").exists()


def test_a_sweep_of_training_runs_end_to_end(lab: Any, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "two_steps.yaml").write_text(
        "# @package _global_\n"
        "steps: 3\n"
        "recorder: {every: 1, evaluate: false}\n"
        "evaluation: {problems: 8, rollouts: 1}\n"
        "probes: {prompts: 4, responses: 2}\n"
        "sweep:\n"
        "  space: {optimizer: 'choice(adamw,sgd)'}\n"
        "  groups: {batch: {small: [objective.prompts=2, objective.rollouts=4]}}\n"
        "  protocols: [unfiltered, paper]\n"
        "  flips: 19\n"
        "  metrics: [weights.r2_median, paper.weights.retained_share, weights.lag_cosine.cosine.0]\n"
    )
    outcome = lab("sweep", "experiment=two_steps")
    assert outcome.code == 0, outcome.err
    place = tmp_path / "runs" / "two_steps" / "two_steps"
    found = xr.open_dataset(place / "results.nc", engine="h5netcdf").load()
    assert found["weights_r2_median"].dims == ("optimizer", "batch", "seed")
    from lab.measurement import measure

    for point, optimizer in enumerate(("adamw", "sgd")):
        run = place / "points" / f"{point:05d}" / "seed_0"
        direct = measure(run, flips=19).numbers["weights"]["r2_median"]
        assert found["weights_r2_median"].sel(optimizer=optimizer).item() == direct
        assert (run / "DONE").exists() and not (run / "tensorboard").exists()
