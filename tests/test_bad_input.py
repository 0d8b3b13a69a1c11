"""What a person may get wrong: one clear message, the exit code, no traceback and nothing left behind."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lab import cli

REFUSED: list[tuple[list[str], list[str]]] = [
    (["trane"], ["unknown verb 'trane'", "did you mean 'train'?", "quickstart"]),
    (["train", "experiment=nope"], ["experiment: unknown 'nope'", "tiny_base"]),
    (["train", "task=nope"], ["task: unknown 'nope'", "addition", "mixture"]),
    (["train", "task.name=nope"], ["task.name: unknown 'nope'", "addition"]),
    (["train", "policy=nope"], ["policy: unknown 'nope'", "tiny", "scratch", "hf"]),
    (["train", "objective=nope"], ["objective: unknown 'nope'", "rlvr", "sft"]),
    (["train", "optimizer=nope"], ["optimizer: unknown 'nope'", "adamw", "sgd"]),
    (["train", "logger=nope"], ["logger: unknown 'nope'", "tensorboard", "none"]),
    (["train", "trainer=nope"], ["trainer: unknown 'nope'", "cpu", "gpu"]),
    (["train", "stepz=3"], ["stepz: no such key", "did you mean 'steps'?"]),
    (["train", "+stepz=3"], ["stepz: no code reads this key", "did you mean 'steps'?"]),
    (["train", "objective.prompt=3"], ["objective.prompt: no such key", "did you mean 'prompts'?"]),
    (
        ["train", "+objective.prompt=3"],
        ["objective.prompt: no code reads this key", "did you mean 'prompts'?"],
    ),
    (["train", "objective.rollouts=1"], ["objective.rollouts", "group of 1", "at least 2"]),
    (["train", "objective.prompts=0"], ["objective.prompts", "at least one prompt", "got 0"]),
    (["train", "objective.clip_low=0"], ["objective.clip_low", "(0, 1]", "got 0"]),
    (["train", "objective.aggregation=mean"], ["objective.aggregation: unknown 'mean'", "token_mean"]),
    (["train", "objective.flips.false_positive=2"], ["objective.flips.false_positive", "[0, 1]", "got 2"]),
    (["train", "objective.updates_per_step=3"], ["objective.updates_per_step", "must divide prompts=16"]),
    (["train", "twin=true", "objective.updates_per_step=2"], ["twin: needs objective.updates_per_step=1"]),
    (["train", "twin=1"], ["twin: expected true or false, got 1"]),
    (["train", "optimizer.learning_rate=-1"], ["optimizer.learning_rate", "negative", "-1"]),
    (["train", "optimizer.learning_rate=fast"], ["optimizer.learning_rate: expected a number", "'fast'"]),
    (["train", "optimizer.learning_rate=nan"], ["optimizer.learning_rate: expected a finite number"]),
    (["train", "optimizer.beta1=1"], ["optimizer.beta1", "[0, 1)", "got 1"]),
    (["train", "optimizer.schedule.name=step"], ["optimizer.schedule.name: unknown 'step'", "cosine"]),
    (["train", "steps=0"], ["steps", "at least 1", "got 0"]),
    (["train", "steps=many"], ["steps: expected a whole number", "'many'"]),
    (["train", "steps=true"], ["steps: expected a whole number", "True"]),
    (["train", "steps=1.5"], ["steps: expected a whole number", "1.5"]),
    (["train", "seed=-1"], ["seed", "at least 0", "got -1"]),
    (["evaluate", "seed=-1"], ["seed", "at least 0", "got -1"]),
    (["measure", "run=x", "seed=-1"], ["seed", "at least 0", "got -1"]),
    (["train", "threads=0"], ["threads", "at least 1", "got 0"]),
    (["train", "generation.temperature=0"], ["generation.temperature", "positive"]),
    (
        ["train", "policy=scratch", "generation.max_new_tokens=64"],
        ["generation.max_new_tokens", "context=64"],
    ),
    (["train", "policy=scratch", "policy.heads=7"], ["policy.heads", "7", "64"]),
    (["train", "evaluation.problems=0"], ["evaluation.problems", "at least 1", "got 0"]),
    (["train", "task.held_out_share=1"], ["task.held_out_share", "(0, 1)", "got 1"]),
    (["train", "task.prompt=hello"], ["task.prompt", "{expression}"]),
    (["train", "task.digits=7"], ["task.digits", "1 to 6", "got 7"]),
    (["train", "recorder.keep_last=2"], ["recorder.keep_last", "recorder.checkpoint_every"]),
    (["train", "recorder.sample_fraction=0"], ["recorder.sample_fraction", "(0, 1]", "got 0"]),
    (["train", "policy=hf"], ["policy.path", "policy.path=DIR"]),
    (["train", "resume=true", "name=a"], ["resume=true", "there is no run", "train/a"]),
    (["train", "resume=elsewhere"], ["elsewhere", "not a run"]),
    (["train", "name=a/b"], ["name: 'a/b'", "'/'"]),
    (["measure"], ["run:", "run=experiment/name"]),
    (["measure", "run=nope"], ["run 'nope': not found", "(none)"]),
    (["measure", "run=x", "protocol=nope"], ["protocol: unknown 'nope'", "paper", "unfiltered"]),
    (["measure", "run=x", "flips=3"], ["flips", "at least 19", "got 3"]),
    (["quickstart", "contrast=nope"], ["contrast: expected a group of keys, got 'nope'"]),
    (["quickstart", "objective@contrast=nope"], ["objective: unknown 'nope'", "rlvr", "sft"]),
    (["quickstart", "contrast.examples=0"], ["contrast.examples", "at least one", "got 0"]),
    (["evaluate", "k=[1,99]"], ["k:", "evaluation.rollouts=16", "99"]),
    (["compare", "x", "y"], ["run 'x': not found"]),
]


@pytest.mark.parametrize(("words", "parts"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_a_wrong_value_is_refused_by_name(
    lab: Callable[..., Any], words: list[str], parts: list[str], assert_refused: Callable[..., None]
) -> None:
    assert_refused(lab(*words), parts)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["train", "task.prompt='É{expression}='"], ["task.prompt", "no token", "É"]),
        (["train", "task.prompt='É{expression}='", "objective=sft"], ["task.prompt", "no token", "É"]),
        (["evaluate", "task.prompt='É{expression}='"], ["task.prompt", "no token", "É"]),
        (["train", "generation.max_new_tokens=1000"], ["generation.max_new_tokens", "1000", "context"]),
        (["evaluate", "generation.max_new_tokens=1000"], ["generation.max_new_tokens", "1000", "context"]),
        (["train", "policy=hf", "policy.path=./nowhere"], ["policy.path", "nowhere is not a directory"]),
        (["evaluate", "policy=hf", "policy.path=./nowhere"], ["policy.path", "nowhere is not a directory"]),
        (["train", "task.held_out_share=1e-9"], ["task.held_out_share", "addition", "no held_out problem"]),
    ],
)
def test_what_shows_only_when_the_policy_is_there_leaves_no_run(
    lab: Callable[..., Any], words: list[str], parts: list[str], assert_refused: Callable[..., None]
) -> None:
    assert_refused(lab(*words), parts)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_asked_for_where_there_is_none(
    lab: Callable[..., Any], assert_refused: Callable[..., None]
) -> None:
    assert_refused(lab("train", "trainer=gpu"), ["trainer.devices", "0 found", "trainer=cpu"])


def test_a_logger_that_is_not_installed(
    lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, assert_refused: Callable[..., None]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it raises ImportError
    assert_refused(lab("train", "logger=wandb"), ["logger=wandb: not installed", "pip install"])


def test_bad_input_of_a_part_leaves_no_quickstart_behind(
    lab: Callable[..., Any], assert_refused: Callable[..., None]
) -> None:
    assert_refused(lab("quickstart", "task.prompt='É{expression}='"), ["task.prompt", "no token"])


def test_too_little_disk(
    lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, assert_refused: Callable[..., None]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40 - 2**20, 2**20))
    assert_refused(lab("train"), ["needs", "of disk", "1.0 MiB are free", "runs_dir"])


def test_the_traceback_is_shown_on_request(
    lab: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_DEBUG", "1")
    outcome = lab("train", "steps=0")
    assert outcome.code == 2 and "Traceback (most recent call last)" in outcome.err
    assert outcome.err.strip().splitlines()[-1].startswith("lab train: steps")


# --- damaged runs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small_run: tuple[str, ...]) -> Path:
    """A directory that holds a finished run, runs/train/a."""
    folder = tmp_path_factory.mktemp("finished")
    assert cli.main([*small_run, f"runs_dir={folder / 'runs'}"]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it in the working directory."""
    shutil.copytree(finished / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "train" / "a"


def unfinish(run: Path) -> None:
    """Let the run be one that was killed right before it was merged."""
    for name in ("DONE", "summary.json", "trajectory.nc"):
        (run / name).unlink()


def halve(file: Path) -> None:
    """Cut a file in the middle."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def message_of(outcome: Any) -> str:
    """The one line of a refusal."""
    assert outcome.code == 2 and "Traceback" not in outcome.err, outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    return str(outcome.err)


def test_a_finished_name_is_refused(lab: Callable[..., Any], run: Path, small_run: tuple[str, ...]) -> None:
    message = message_of(lab(*small_run))
    assert "runs/train/a is finished" in message and "clean=true" in message
    assert (run / "DONE").exists()


def test_a_name_with_another_configuration_is_refused(
    lab: Callable[..., Any], run: Path, small_run: tuple[str, ...]
) -> None:
    unfinish(run)
    message = message_of(lab(*small_run, "seed=1"))
    assert "seed is 0 there and 1 here" in message


@pytest.mark.parametrize(
    "damage", [halve, lambda file: file.write_bytes(b""), lambda file: torch.save({}, file)]
)
def test_a_corrupt_checkpoint_is_named(
    lab: Callable[..., Any], run: Path, damage: Callable[[Path], Any], small_run: tuple[str, ...]
) -> None:
    unfinish(run)
    damage(run / "resume.ckpt")
    message = message_of(lab(*small_run))
    assert "runs/train/a/resume.ckpt" in message and "delete it" in message


@pytest.mark.parametrize("name", ["step_00000002.npz", "static.npz"])
def test_a_corrupt_record_is_named(
    lab: Callable[..., Any], run: Path, name: str, small_run: tuple[str, ...]
) -> None:
    unfinish(run)
    halve(run / "records" / name)
    message = message_of(lab(*small_run))
    assert f"runs/train/a/records/{name}" in message and "clean=true" in message


def test_a_corrupt_record_is_named_before_training_goes_on(
    lab: Callable[..., Any], run: Path, small_run: tuple[str, ...]
) -> None:
    unfinish(run)
    saved = torch.load(run / "resume.ckpt", weights_only=True)
    saved["lab_counters"]["step"] = 2
    torch.save(saved, run / "resume.ckpt")
    halve(run / "records" / "step_00000002.npz")
    assert "step_00000002.npz" in message_of(lab(*small_run))
    assert torch.load(run / "resume.ckpt", weights_only=True)["lab_counters"]["step"] == 2


def test_a_missing_record_is_noticed(lab: Callable[..., Any], run: Path, small_run: tuple[str, ...]) -> None:
    unfinish(run)
    (run / "records" / "step_00000002.npz").unlink()
    message = message_of(lab(*small_run))
    assert "runs/train/a/records" in message and "0, 4" in message


@pytest.mark.parametrize("damage", [halve, lambda file: file.write_bytes(b"CSV,of,course\n")])
def test_a_corrupt_store_is_named(lab: Callable[..., Any], run: Path, damage: Callable[[Path], Any]) -> None:
    damage(run / "trajectory.nc")
    message = message_of(lab("measure", "run=train/a"))
    assert "runs/train/a/trajectory.nc" in message
    assert not (run.parent.parent / "measure").exists()


def test_a_corrupt_configuration_is_named(lab: Callable[..., Any], run: Path) -> None:
    (run / "config.yaml").write_text("{")
    assert "runs/train/a/config.yaml" in message_of(lab("compare", "train/a", "train/a"))


def test_a_corrupt_summary_is_named(lab: Callable[..., Any], run: Path) -> None:
    halve(run / "summary.json")
    assert "runs/train/a/summary.json" in message_of(lab("compare", "train/a", "train/a"))


# --- numbers that are not finite ---------------------------------------------------------------------


@pytest.mark.parametrize("objective", [["objective=rlvr"], ["objective=sft", "objective.examples=8"]])
def test_a_run_that_explodes_says_where_and_keeps_its_last_good_checkpoint(
    lab: Callable[..., Any], tmp_path: Path, objective: list[str], small_run: tuple[str, ...]
) -> None:
    words = [word for word in small_run if not word.startswith("objective.")]
    outcome = lab(*words, *objective, "optimizer.learning_rate=1e30")
    assert outcome.code == 3 and "Traceback" not in outcome.err
    found = re.search(r"step (\d): .*(not finite|is nan).*optimizer\.learning_rate", outcome.err)
    assert found is not None, outcome.err
    run = tmp_path / "runs" / "train" / "a"
    assert not (run / "DONE").exists() and not (run / "summary.json").exists()
    saved = torch.load(run / "resume.ckpt", weights_only=True)
    assert saved["lab_counters"]["step"] < int(found[1])
    assert all(bool(value.isfinite().all()) for value in saved["state_dict"].values())


def test_nothing_goes_to_stderr_where_all_is_well(
    lab: Callable[..., Any], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.measurement_report.draw_measurements", lambda *_: [])
    outcome = lab("measure", "run=train/a", "flips=19")
    assert outcome.code == 0 and outcome.err == ""
    text = (run.parent.parent / "measure" / "001" / "summary.json").read_text()
    assert json.loads(text)["schema_version"] == 1 and "NaN" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "~policy"], "policy: missing"),
        (["train", "~seed"], "seed: missing"),
        (["train", "policy=null"], "Config group override"),
        (["train", "trainer.precision=foo"], "trainer.precision: unknown 'foo'"),
        (["train", "runs_dir="], "runs_dir"),
        (["evaluate", "k=3"], "k: expected a list"),
        (["evaluate", "k=[true]"], "k: each must be"),
        (
            ["quickstart", "steps=10", "recorder.every=10"],
            "recorder.every: 10 of 10 steps gives 2 recorded points",
        ),
        (["quickstart", "recorder.evaluate=false"], "recorder.evaluate"),
        (["quickstart", "objective=sft"], "objective.name: the quickstart needs rlvr here"),
        (["quickstart", "objective@contrast=rlvr"], "contrast.name: the quickstart needs sft here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_no_run_could_use_is_refused_before_it_starts(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_place_for_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").write_text("kept")
    assert cli.main(["train", "runs_dir=afile"]) == 2
    assert "runs_dir" in capsys.readouterr().err
    assert (tmp_path / "afile").read_text() == "kept"


def test_a_run_is_only_replaced_by_one_that_comes_to_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = [
        "steps=1",
        "objective.prompts=2",
        "objective.rollouts=2",
        "evaluation.problems=2",
        "evaluation.rollouts=1",
    ]
    small = ["train", "name=kept", "logger=none", "probes.prompts=2", "probes.responses=1", *sizes]
    assert cli.main(small) == 0
    before = (tmp_path / "runs/train/kept/summary.json").read_bytes()
    assert cli.main([*small, "clean=true", "policy=hf", "policy.path=./nowhere"]) == 2
    assert (tmp_path / "runs/train/kept/summary.json").read_bytes() == before
    assert [path.name for path in (tmp_path / "runs/train").iterdir()] == ["kept"]
    assert cli.main([*small, "clean=true", "seed=5"]) == 0
    assert (tmp_path / "runs/train/kept/summary.json").read_bytes() != before
    assert [path.name for path in (tmp_path / "runs/train").iterdir()] == ["kept"]
