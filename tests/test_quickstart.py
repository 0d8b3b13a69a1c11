"""The main job, end to end on tiny sizes: what it writes, and how it goes on after a kill."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from lab import cli
from lab.figures.style import _RC
from lab.runs import list_runs
from lab.trajectory.store import open_store

WORDS = (
    "quickstart",
    "steps=8",
    "objective.prompts=4",
    "objective.rollouts=4",
    "contrast.examples=8",
    "optimizer.learning_rate=1e-3",
    "recorder.every=1",
    "recorder.save_every=4",
    "evaluation.problems=8",
    "evaluation.rollouts=2",
    "probes.prompts=4",
    "probes.responses=2",
    "flips=99",
    "logger=none",
)
CHILDREN = ("rl", "sft", "twin")
PROMISED = (
    "r2_median",
    "r2_share_above_0_7",
    "null_r2_median",
    "null_p_value",
    "skill",
    "skill_damped",
    "damping",
    "nulls",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of runs that holds one finished quickstart."""
    directory = tmp_path_factory.mktemp("quickstart") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_RC, "savefig.dpi", 60)  # as many figures, drawn faster
        assert cli.main([*WORDS, f"runs_dir={directory}"]) == 0
    return directory


@pytest.fixture(scope="module")
def run(runs: Path) -> Path:
    """That quickstart."""
    return runs / "quickstart" / "001"


@pytest.fixture(scope="module")
def summary(run: Path) -> dict[str, Any]:
    """Its summary."""
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


@pytest.fixture(scope="module")
def stores(run: Path) -> dict[str, xr.DataTree]:
    """The stores of its three runs."""
    return {label: open_store(run / label) for label in CHILDREN}


# --- the summary -------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", CHILDREN)
@pytest.mark.parametrize("kind", ["weights", "logprobs"])
def test_every_promised_number_is_there(summary: dict[str, Any], label: str, kind: str) -> None:
    numbers = summary[label][kind]
    assert set(PROMISED) <= set(numbers)
    assert all(numbers[name] is None or isinstance(numbers[name], float) for name in PROMISED[:-1])
    assert isinstance(numbers["nulls"], dict) and {"walk", "sign_flip"} <= set(numbers["nulls"])


@pytest.mark.parametrize("label", CHILDREN)
def test_straightness_and_its_null_are_shares(summary: dict[str, Any], label: str) -> None:
    for kind in ("weights", "logprobs"):
        numbers = summary[label][kind]
        assert 0 <= numbers["r2_median"] <= 1 and 0 <= numbers["null_r2_median"] <= 1
        assert 0 <= numbers["r2_share_above_0_7"] <= 1 and 0.01 <= numbers["null_p_value"] <= 1


@pytest.mark.parametrize("label", CHILDREN)
def test_the_pass_rate_is_that_of_the_stored_verdicts(
    stores: dict[str, xr.DataTree], summary: dict[str, Any], label: str
) -> None:
    correct = stores[label]["evaluation"]["correct"].values
    assert set(summary[label]["pass_rate"]) == {"start", "end"}
    assert summary[label]["pass_rate"]["start"] == pytest.approx(correct[0].mean())
    assert summary[label]["pass_rate"]["end"] == pytest.approx(correct[-1].mean())


def test_the_rest_of_the_summary(summary: dict[str, Any]) -> None:
    assert set(summary) == {
        *CHILDREN,
        "wall_clock_s",
        "peak_rss_mb",
        "verdict",
        "result",
        "schema_version",
    }
    assert summary["schema_version"] == 1 and summary["wall_clock_s"] > 0 and summary["peak_rss_mb"] > 50
    assert summary["verdict"].startswith("this run: ") and summary["verdict"] in summary["result"]


def test_the_twin_is_a_null_of_the_rl_run(summary: dict[str, Any]) -> None:
    for kind in ("weights", "logprobs"):
        twin = summary["rl"][kind]["nulls"]["twin"]
        assert twin["n_runs"] == 1 and twin["r2_median"] == summary["twin"][kind]["r2_median"]


def test_undefined_numbers_are_null(run: Path) -> None:
    def refuse(token: str) -> float:
        raise AssertionError(f"{token} is no JSON")

    files = list(run.rglob("*.json"))
    assert len(files) == 4
    for file in files:
        json.loads(file.read_text(), parse_constant=refuse)


# --- what else is there ------------------------------------------------------------------------------


def test_the_three_runs_start_from_the_same_weights(stores: dict[str, xr.DataTree]) -> None:
    starts = [stores[label]["weights"]["weight"].values[0] for label in CHILDREN]
    assert all((start == starts[0]).all() for start in starts)


def test_rl_and_its_twin_roll_out_the_same_first_step(stores: dict[str, xr.DataTree]) -> None:
    rewards = [stores[label]["metrics"]["reward_verified"].values[0] for label in ("rl", "twin")]
    assert rewards[0] == rewards[1]


def test_each_child_is_a_run_of_its_own(run: Path, stores: dict[str, xr.DataTree]) -> None:
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == ["figures", *CHILDREN]
    for label in CHILDREN:
        for name in ("config.yaml", "summary.json", "trajectory.nc", "metrics.csv", "resume.ckpt", "DONE"):
            assert (run / label / name).is_file()
        assert stores[label]["weights"]["step"].values.tolist() == list(range(9))


def test_the_end_is_marked_last(run: Path) -> None:
    done = (run / "DONE").stat().st_mtime_ns
    others = [path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != "DONE"]
    assert done >= max(others)
    assert not list(run.rglob("*.partial"))


def test_every_figure_has_its_vector_form_and_its_data(run: Path) -> None:
    names = {path.stem for path in (run / "figures").iterdir()}
    kinds = {f"{name}_{kind}" for name in ("r2", "paths", "skill") for kind in ("weights", "logprobs")}
    assert names == {"learning_curve", "phase_diagram", *kinds}
    for name in names:
        for ending in ("png", "pdf", "csv"):
            assert (run / "figures" / f"{name}.{ending}").stat().st_size > 0


def test_the_page_is_self_contained_and_states_the_verdict(run: Path, summary: dict[str, Any]) -> None:
    page = (run / "report.html").read_text()
    assert summary["verdict"].split(";")[0] in page
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == 8 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert re.search(r'(src|href)="?(https?:)?//|@import|<script|<link', page) is None
    for heading in ("Learning", "Straightness and forecasts: weights", "What the model writes", "git_commit"):
        assert heading in page


def test_the_list_shows_one_run(runs: Path, summary: dict[str, Any]) -> None:
    (record,) = list_runs(runs)
    assert (record.experiment, record.name, record.state) == ("quickstart", "001", "finished")
    assert record.result == summary["result"]


# --- again -------------------------------------------------------------------------------------------


@pytest.fixture
def copied(runs: Path, tmp_path: Path) -> Path:
    """A copy of the finished quickstart in the working directory."""
    shutil.copytree(runs, tmp_path / "runs")
    return tmp_path / "runs" / "quickstart"


def test_the_same_command_starts_another_run(
    lab: Callable[..., Any], copied: Path, monkeypatch: pytest.MonkeyPatch, summary: dict[str, Any]
) -> None:
    started = []

    def instead(plan: Any, held: Any) -> dict[str, Any]:
        started.append((held.path.name, held.resumed))
        return summary

    monkeypatch.setattr("lab.quickstart.quickstart", instead)
    outcome = lab(*WORDS)
    assert outcome.code == 0 and started == [("002", False)]
    assert outcome.last_line == f"runs/quickstart/002/report.html: {summary['result']}"


def test_a_finished_name_is_refused(lab: Callable[..., Any], copied: Path) -> None:
    outcome = lab(*WORDS, "name=001")
    assert outcome.code == 2 and "runs/quickstart/001 is finished" in outcome.err


def test_killed_between_its_parts_it_goes_on_with_the_next(
    lab: Callable[..., Any], copied: Path, monkeypatch: pytest.MonkeyPatch, summary: dict[str, Any]
) -> None:
    monkeypatch.setattr("lab.quickstart.draw_figures", lambda *_: [])  # slow, and tested above
    run = copied / "001"
    for name in ("DONE", "summary.json", "report.html"):
        (run / name).unlink()
    shutil.rmtree(run / "figures")
    shutil.rmtree(run / "twin")
    before = {label: (run / label / "DONE").stat().st_mtime_ns for label in ("rl", "sft")}
    assert lab(*WORDS).code == 0
    assert {label: (run / label / "DONE").stat().st_mtime_ns for label in before} == before
    again = json.loads((run / "summary.json").read_text())
    for name in (*CHILDREN, "verdict", "result"):
        assert again[name] == summary[name]
    assert [path.name for path in copied.iterdir()] == ["001"]
