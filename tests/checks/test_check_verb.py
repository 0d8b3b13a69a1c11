"""`lab check`: tables, page and exit codes; resumed after a failure; the same numbers with any number of processes."""

from __future__ import annotations

import csv
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from lab.checks import execute, report
from lab.errors import Interrupted
from theory import PREDICTIONS

QUICK = ("check", "prediction=finite_group", "effort=0.01", "nulls=false")
LAWS = [law.name for law in PREDICTIONS["finite_group"].laws]
POINTS = sum(len(law.points) for law in PREDICTIONS["finite_group"].laws)


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and page are looked at once; they take longer than the simulations here."""
    monkeypatch.setattr(report, "write_check_report", lambda *words: None)


def summary_of(path: Path) -> Any:
    return json.loads((path / "summary.json").read_text())


def test_what_a_check_leaves(lab: Callable[..., Any], tmp_path: Path) -> None:
    outcome = lab(*QUICK)
    held = tmp_path / "runs/check/001"
    assert outcome.code == 0, outcome.err
    assert outcome.last_line == f"runs/check/001/report.html: all {POINTS} points of 1 prediction agree"
    summary = summary_of(held)
    numbers = summary["predictions"]["finite_group"]
    assert (numbers["n_points"], numbers["n_failed"], summary["failed"]) == (POINTS, 0, [])
    assert 0 < numbers["worst_z"] < 5
    assert [name.split(".")[1] for name in summary["laws"]] == LAWS
    assert all(0 < law["smallest_planted_error"] < 1 for law in summary["laws"].values())
    rows = list(csv.DictReader((held / "checks.csv").open()))
    assert len(rows) == POINTS and json.loads(rows[0]["parameters"]) == {"pass_rate": 0.5, "rollouts": 2}
    with xr.open_datatree(held / "checks.nc", engine="h5netcdf") as tree:
        stored = tree["prediction"].to_dataset()
        assert stored.sizes == {"check": POINTS}
        assert stored["z"].values.tolist() == pytest.approx([float(row["z"]) for row in rows])
        assert abs(stored["z"]).max() == pytest.approx(numbers["worst_z"])
    page = (held / "report.html").read_text()
    assert all(law in page for law in LAWS) and "data:image/png;base64" in page
    assert (held / "figures/finite_group.csv").exists() and (held / "DONE").exists()


def test_a_planted_error_exits_with_one_and_keeps_the_results(
    lab: Callable[..., Any], tmp_path: Path, no_page: None
) -> None:
    outcome = lab(*QUICK, "planted_error=0.5")
    assert outcome.code == 1
    line = f"planted error 0.5: {len(LAWS)} of {len(LAWS)} laws rejected"
    assert outcome.last_line.endswith(line) and line in outcome.err
    summary = summary_of(tmp_path / "runs/check/001")
    assert summary["laws_not_rejected"] == [] and summary["n_failed"] == len(summary["failed"]) > len(LAWS)
    assert (tmp_path / "runs/check/001/DONE").exists()


def test_a_failed_run_goes_on_where_it_was(
    lab: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_page: None
) -> None:
    done: list[str] = []
    check_law = execute.check_law

    def stumble(prediction: str, law: str, *rest: Any) -> Any:
        if len(done) == 3:
            raise ZeroDivisionError("a slip")
        done.append(law)
        return check_law(prediction, law, *rest)

    monkeypatch.setattr(execute, "check_law", stumble)
    outcome = lab(*QUICK)
    assert outcome.code == 3 and f"finite_group.{LAWS[3]}: ZeroDivisionError: a slip" in outcome.err
    assert not (tmp_path / "runs/check/001/summary.json").exists()
    monkeypatch.setattr(execute, "check_law", lambda *words: (done.append(words[1]), check_law(*words))[1])
    assert lab(*QUICK).code == 0
    assert done == LAWS  # none twice
    assert sorted(path.name for path in (tmp_path / "runs/check").iterdir()) == ["001"]


def test_two_processes_find_the_same(lab: Callable[..., Any], tmp_path: Path, no_page: None) -> None:
    assert lab(*QUICK).code == 0
    assert lab(*QUICK, "workers=2", "name=two").code == 0
    first, second = (tmp_path / "runs/check" / name / "checks.csv" for name in ("001", "two"))
    assert first.read_text() == second.read_text()


def test_nothing_goes_on_after_a_stop(tmp_path: Path) -> None:
    """A run that is stopped at its first result ends its processes; what had come in stays."""
    before = set(multiprocessing.active_children())

    def stop(name: str) -> None:
        raise Interrupted(f"stopped at {name}")

    pieces = [execute.Piece("grpo_drift", law) for law in ("slope_gap_constant", "split_batch_error")]
    with pytest.raises(Interrupted):
        execute.carry_out(pieces, tmp_path, 0, 30.0, None, 2, stop)
    assert set(multiprocessing.active_children()) <= before
    assert [path.name for path in (tmp_path / "laws").iterdir()] == ["grpo_drift.slope_gap_constant.json"]


def test_dry_run_computes_nothing(lab: Callable[..., Any], tmp_path: Path) -> None:
    outcome = lab("check", "prediction=2", "dry_run=true")
    assert outcome.code == 0 and outcome.last_line == "dry run: nothing was computed"
    assert str(POINTS) in outcome.out and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("prediction=grpo_drif", "prediction: unknown 'grpo_drif'; did you mean 'grpo_drift'?"),
        ("prediction=13", "prediction: expected a number from 1 to 12, got 13"),
        ("prediction=[]", "prediction: an empty list"),
        ("effort=0", "effort: must be positive, got 0"),
        ("planted_error=-1", "planted_error: must exceed -1"),
        ("workers=0", "workers: must be at least 1, got 0"),
        ("quick=yes please", "quick: expected true or false"),
        ("seed=-1", "seed: expected a whole number of at least 0"),
    ],
)
def test_bad_input(lab: Callable[..., Any], tmp_path: Path, word: str, message: str) -> None:
    outcome = lab("check", word)
    assert outcome.code == 2 and message in outcome.err
    assert not (tmp_path / "runs").exists()
