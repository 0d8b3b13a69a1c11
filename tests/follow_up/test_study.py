"""A small study on the built-in model: against the verbs it is made of, against the formula, stopped and resumed."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.kill_resume.kill_resume import Process, differences
from lab import cli
from lab.measurement import measure

STUDY = (
    "name=a",
    "follow_up=study",
    "steps=8",
    "objective.prompts=4",
    "objective.rollouts=4",
    "recorder.every=2",
    "recorder.save_every=3",
    "recorder.checkpoint_every=1",
    "evaluation.problems=8",
    "evaluation.rollouts=1",
    "probes.prompts=4",
    "probes.responses=2",
    "logger=none",
    "follow_up.form=a small form",
    "follow_up.measurement.flips=19",
    "follow_up.extrapolation.methods=[persistence,two_point,damped]",
    "follow_up.extrapolation.targets=[0.75,1.5]",
    "follow_up.extrapolation.evaluation.problems=24",
    "follow_up.extrapolation.evaluation.rollouts=2",
)
"""Fitted on steps 0 to 4; to 6, where the run has a checkpoint, and to 12, where it has none."""
PIECES = ["checkpoint_4", "checkpoint_6", "damped_12", "damped_6", "measurement", "training", "two_point_12"]
PIECES += ["two_point_6"]
RUN = Path("runs", "train", "a")
TIMES = ("wall_clock_s", "peak_rss_mb", "follow_up_s")


def numbers(run: Path) -> dict[str, Any]:
    """What a finished run's summary says, but for what no two runs share."""
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return {key: value for key, value in summary.items() if key not in TIMES}


def finished_pieces(run: Path) -> dict[str, bytes]:
    """Content of the stored pieces by name."""
    return {path.stem: path.read_bytes() for path in sorted((run / "follow_up").glob("*.json"))}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, done in one go; not to be changed."""
    directory = tmp_path_factory.mktemp("study")
    assert cli.main(["train", *STUDY, f"runs_dir={directory / 'runs'}"]) == 0
    return directory / RUN


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write empty files for figures: drawing them takes longer than all else."""

    def save(figure: Any, data: Any, directory: Path, name: str) -> Path:
        directory.mkdir(exist_ok=True)
        (directory / f"{name}.png").write_bytes(bytes(24))
        return directory / f"{name}.png"

    for module in ("lab.measurement_report", "lab.follow_up.run", "lab.follow_up.extrapolation"):
        monkeypatch.setattr(f"{module}.save", save)


def evaluate(lab: Callable[..., Any], name: str, checkpoint: Path) -> tuple[float, float]:
    """Pass rate and half-width that `lab evaluate` gives a checkpoint on the study's problems."""
    words = ["evaluation.problems=24", "evaluation.rollouts=2", "k=[1]", f"checkpoint={checkpoint}"]
    assert lab("evaluate", f"name={name}", *words).code == 0
    found = json.loads(Path("runs", "evaluate", name, "summary.json").read_text())
    return found["avg@2"], found["interval_half_width"]


def test_checkpoints_are_scored_as_the_verb_scores_them(lab: Callable[..., Any], study: Path) -> None:
    found = numbers(study)["extrapolation"]
    assert found["persistence"]["step"] == 4 and found["fitted_steps"] == [0, 1, 2, 3, 4]
    near, far = found["targets"]
    assert (near["step"], far["step"]) == (6, 12) and far["actual"] is None
    assert "persistence" not in near["methods"]
    rates = [score["pass_rate"] for target in (near, far) for score in target["methods"].values()]
    assert min(rates) > 0 and len(set(rates)) > 1  # else the comparisons below would say nothing
    for step, score in ((4, found["persistence"]), (6, near["actual"])):
        expected = evaluate(lab, f"step{step}", study / f"checkpoint-{step}")
        assert (score["pass_rate"], score["interval_half_width"]) == pytest.approx(expected)


def test_extrapolated_models_are_those_of_the_formula(
    lab: Callable[..., Any], study: Path, tmp_path: Path
) -> None:
    """w(4) + (t - 4) / 4 (w(4) - w(0)), norms copied; damped: the same times the damping that it reports."""
    first, last = (load_file(study / f"checkpoint-{step}" / "model.safetensors") for step in (0, 4))
    for target in numbers(study)["extrapolation"]["targets"]:
        for method, score in target["methods"].items():
            stored = json.loads((study / "follow_up" / f"{method}_{target['step']}.json").read_text())
            factor = (target["step"] - 4) / 4 * stored["method_details"].get("damping", 1.0)
            directory = tmp_path / f"{method} {target['step']}"
            shutil.copytree(study / "checkpoint-4", directory)
            weights = {
                name: value if "norm" in name else value + np.float32(factor) * (value - first[name])
                for name, value in last.items()
            }
            save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
            rate, _ = evaluate(lab, f"{method}{target['step']}", directory)
            # A completion may turn at a tie of the last bit.
            assert score["pass_rate"] == pytest.approx(rate, abs=1 / 48 + 1e-9)
            assert score["pass_rate"] == pytest.approx(np.mean(stored["pass_rate_of_problem"]))
            over = score["over_persistence"]
            still = numbers(study)["extrapolation"]["persistence"]["pass_rate"]
            assert over["estimate"] == pytest.approx(score["pass_rate"] - still)
            assert over["low"] <= over["estimate"] <= over["high"]
            assert (score["over_actual"] is None) == (target["step"] == 12)


def test_the_measurement_is_that_of_the_run(study: Path) -> None:
    measured = measure(study, flips=19).numbers
    found = numbers(study)
    for kind in ("weights", "logprobs"):
        for name in ("r2_median", "null_r2_median", "null_p_value", "skill", "skill_damped"):
            assert found[kind][name] == pytest.approx(measured[kind][name])
    assert found["verdict"] in found["result"] and found["protocol"] == "unfiltered"


def test_what_is_left_is_small_and_says_what_it_is(study: Path) -> None:
    assert sorted(finished_pieces(study)) == sorted(PIECES)
    assert [path for path in (study / "follow_up").iterdir() if path.is_dir()] == []
    assert len(list(study.glob("checkpoint-*"))) == 9
    found = numbers(study)
    assert found["form"] == "a small form" and found["result"].endswith("[a small form]")
    assert found["pass_rate"].keys() == {"start", "end"} and found["schema_version"] == 1
    page = (study / "report.html").read_text()
    assert page.count("a small form") >= 2 and page.count("<img") == 8
    for words in (
        "standing still, step 4",
        "two_point to 12",
        "damped to 6",
        "trained on to 6",
        "sign-flip p",
    ):
        assert words in page
    assert "NaN" not in (study / "summary.json").read_text()


def test_killed_between_and_within_pieces_it_goes_on_where_it_was(
    study: Path, tmp_path: Path, no_figures: None
) -> None:
    pieces = tmp_path / RUN / "follow_up"
    process = Process(STUDY, tmp_path, (RUN / "follow_up" / "training.json", signal.SIGTERM))
    assert process.wait() == 130, process.log.read_text()
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
    assert "continues an unfinished run" in (tmp_path / "log.txt").read_text()
    process = Process(STUDY, tmp_path)
    assert process.wait(until=(pieces / "model" / "model.safetensors").exists) is None, (
        process.log.read_text()
    )
    process.kill()
    assert process.wait() == -signal.SIGKILL
    before = finished_pieces(tmp_path / RUN)
    assert {"training", "measurement", "checkpoint_4"} <= set(before) < set(PIECES)
    assert (pieces / "model").is_dir() and not (tmp_path / RUN / "summary.json").exists()
    process = Process(STUDY, tmp_path)
    assert process.wait() == 0, process.log.read_text()
    after = finished_pieces(tmp_path / RUN)
    assert {name: after[name] for name in before} == before  # seconds and all: not done again
    assert numbers(tmp_path / RUN) == numbers(study)
    assert differences(study, tmp_path / RUN) == []
    assert not (pieces / "model").exists()


def test_however_short_the_time_it_gets_to_its_end_in_pieces(
    lab: Callable[..., Any], study: Path, tmp_path: Path, no_figures: None
) -> None:
    codes, messages = [], []
    while not codes or codes[-1] == 130:
        outcome = lab("train", *STUDY, "stop_after_minutes=1e-9")
        codes.append(outcome.code)
        messages.append(outcome.err)
        assert len(codes) < 30
    assert codes[-1] == 0, messages[-1]
    assert (
        len(codes) == 8 + len(PIECES) - 1
    )  # a step at a time, the last together with the store, then a piece
    assert "stopped after step 1;" in messages[0] and "stopped before measurement;" in messages[7]
    assert numbers(tmp_path / RUN) == numbers(study)


def test_a_forecast_that_no_model_can_hold_is_a_result(
    lab: Callable[..., Any], tmp_path: Path, no_figures: None
) -> None:
    words = [word for word in STUDY if "targets" not in word and "methods" not in word]
    words += ["follow_up.extrapolation.methods=[two_point]", "follow_up.extrapolation.targets=[1e39]"]
    outcome = lab("train", *words, "follow_up.measurement=null")
    assert outcome.code == 0, outcome.err
    found = numbers(tmp_path / RUN)
    (target,) = found["extrapolation"]["targets"]
    score = target["methods"]["two_point"]
    assert "float32" in score["refused"] and score["pass_rate"] is None and score["over_persistence"] is None
    assert "weights" not in found and "No model" in (tmp_path / RUN / "report.html").read_text()


@pytest.mark.parametrize("content", ["", '{"steps": 8}'])
def test_a_damaged_piece_is_named(lab: Callable[..., Any], study: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(study.parent.parent, tmp_path / "runs")
    (tmp_path / RUN / "DONE").unlink()
    (tmp_path / RUN / "follow_up" / "training.json").write_text(content)
    outcome = lab("train", *STUDY)
    assert outcome.code == 2 and "follow_up/training.json" in outcome.err and "delete it" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_the_form_for_a_gpu_runs_in_its_precision(
    lab: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_figures: None
) -> None:
    """The shipped study as a machine with a GPU composes it, shrunk and on the CPU: bfloat16 on float32 weights."""
    monkeypatch.setattr("lab.composition.has_gpu", lambda: True)
    words = [
        "policy=tiny",
        "task=addition",
        "trainer.accelerator=cpu",
        "steps=8",
        "generation.max_new_tokens=5",
    ]
    words += [
        "recorder.every=4",
        "recorder.checkpoint_every=1",
        "objective.prompts=8",
        "evaluation.problems=8",
    ]
    words += ["probes.prompts=4", "follow_up.extrapolation.evaluation.problems=8", "name=a"]
    outcome = lab("train", "experiment=smollm2_arithmetic", *words)
    assert outcome.code == 0, outcome.err
    run = tmp_path / "runs" / "smollm2_arithmetic" / "a"
    found = numbers(run)
    assert found["form"] is None and "precision: bf16-mixed" in (run / "config.yaml").read_text()
    assert {method for target in found["extrapolation"]["targets"] for method in target["methods"]} == {
        "two_point",
        "damped",
        "least_squares",
        "rank_1",
    }
    weights = load_file(run / "checkpoint-8" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {np.dtype(np.float32)}
    start = load_file(run / "checkpoint-0" / "model.safetensors")
    moved = [np.abs(value - start[name]).max() for name, value in weights.items()]
    # Norm weights lie near 1, where numbers of bfloat16 are .008 apart: only float32 masters can move by 1e-5 a step.
    assert max(moved) < 1e-3 and min(moved) > 0
