"""metrics.csv: appended as a run goes, cut back when it resumes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lab.trajectory.metrics_file import MetricsFile


def rows(*steps: int, **scalars: float) -> list[dict[str, float]]:
    """One row for each step."""
    return [{"step": step, "loss": step / 3, **scalars} for step in steps]


def read(path: Path) -> list[dict[str, str]]:
    """What is in the file."""
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A table of four steps."""
    table = MetricsFile(tmp_path / "metrics.csv", 0)
    table.append(rows(1, 2))
    table.append(rows(3, 4))
    return tmp_path / "metrics.csv"


def test_rows_are_appended_and_read_back_exactly(path: Path) -> None:
    assert [(int(row["step"]), float(row["loss"])) for row in read(path)] == [
        (s, s / 3) for s in (1, 2, 3, 4)
    ]


def test_no_rows_leave_no_file(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "metrics.csv", 0).append([])
    assert list(tmp_path.iterdir()) == []


def test_resuming_drops_the_steps_that_come_again(path: Path) -> None:
    table = MetricsFile(path, last_step=2)
    assert [row["step"] for row in read(path)] == ["1", "2"]
    table.append(rows(3))
    assert [row["step"] for row in read(path)] == ["1", "2", "3"]


def test_starting_anew_drops_all(path: Path) -> None:
    MetricsFile(path, last_step=0)
    assert not path.exists()


@pytest.mark.parametrize("half", ["5", "5,", "5,0.1,", "\0\0\0"])
def test_a_line_that_a_kill_left_incomplete_is_dropped(path: Path, half: str) -> None:
    with path.open("a") as stream:
        stream.write(half)
    table = MetricsFile(path, last_step=4)
    table.append(rows(5))
    assert [int(row["step"]) for row in read(path)] == [1, 2, 3, 4, 5]


def test_a_new_scalar_widens_the_table(path: Path) -> None:
    table = MetricsFile(path, last_step=4)
    table.append(rows(5, reward=0.5))
    table.append(rows(6))
    found = read(path)
    assert [row["reward"] for row in found] == ["", "", "", "", "0.5", ""]
    assert [row["loss"] for row in found] == [str(step / 3) for step in range(1, 7)]


def test_the_step_is_the_first_column(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "metrics.csv", 0).append([{"loss": 1.0, "step": 1}])
    assert (tmp_path / "metrics.csv").read_text() == "step,loss\n1,1.0\n"
