"""A run that is killed at any moment and resumed equals the uninterrupted one bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from experiments.kill_resume import kill_resume
from experiments.kill_resume.kill_resume import Process, differences
from lab.trajectory.store import open_store

SMALL = (
    "name=a",
    "steps=7",
    "recorder.every=3",
    "recorder.save_every=2",
    "recorder.checkpoint_every=4",
    "recorder.keep_last=1",
    "evaluation.problems=8",
    "evaluation.rollouts=1",
    "probes.prompts=4",
    "probes.responses=2",
    "logger=none",
)
RLVR = (*SMALL, *kill_resume.KINDS["rlvr_adamw"])
SFT = (*SMALL, *kill_resume.KINDS["sft_sgd"])
RUN = Path("runs", "train", "a")


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Path]:
    """An uninterrupted run of each kind; the first one of all imports everything in this process."""
    kill_resume.warm_up(tmp_path_factory.mktemp("warm_up"))
    found = {}
    for words in (RLVR, SFT):
        directory = tmp_path_factory.mktemp("reference")
        assert Process(words, directory).wait() == 0
        found[words] = directory / RUN
    return found


def kill_at_write(words: tuple[str, ...], directory: Path, count: int, when: str) -> None:
    """Run in another process that kills itself right before or after the `count`-th file takes its name."""
    original = os.replace
    seen = 0

    def replace(*arguments: str) -> None:
        nonlocal seen
        seen += 1
        if seen == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        original(*arguments)
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace  # type: ignore[assignment]  # inherited by the forked process
    try:
        process = Process(words, directory)
    finally:
        os.replace = original
    assert process.wait() == -signal.SIGKILL, process.log.read_text()


def resume(words: tuple[str, ...], directory: Path) -> Path:
    """Give the same command again and return the finished run."""
    process = Process(words, directory)
    assert process.wait() == 0, process.log.read_text()
    return directory / RUN


@pytest.mark.parametrize(
    ("words", "file"),
    [(RLVR, "records/step_00000003.npz"), (SFT, "resume.ckpt"), (RLVR, "trajectory.nc")],
)
def test_a_run_killed_when_a_file_appears_resumes_to_the_same(
    references: dict[tuple[str, ...], Path], tmp_path: Path, words: tuple[str, ...], file: str
) -> None:
    process = Process(words, tmp_path, (RUN / file, signal.SIGKILL))
    assert process.wait() == -signal.SIGKILL, process.log.read_text()
    assert differences(references[words], resume(words, tmp_path)) == []


# In the order of writing: configuration, static arrays, step 0, checkpoint-0, the checkpoint to resume from, ...
@pytest.mark.parametrize(
    ("words", "kills"),
    [
        (RLVR, [(3, "before"), (5, "after"), (5, "before"), (2, "after"), (6, "before")]),
        (SFT, [(4, "after"), (7, "before"), (3, "before"), (4, "after")]),
    ],
)
def test_a_run_killed_again_and_again_around_its_writes_resumes_to_the_same(
    references: dict[tuple[str, ...], Path],
    tmp_path: Path,
    words: tuple[str, ...],
    kills: list[tuple[int, str]],
) -> None:
    for count, when in kills:
        kill_at_write(words, tmp_path, count, when)
    assert differences(references[words], resume(words, tmp_path)) == []


def test_sigterm_saves_the_step_and_exits_with_130(
    references: dict[tuple[str, ...], Path], tmp_path: Path
) -> None:
    process = Process(RLVR, tmp_path, (RUN / "records" / "step_00000003.npz", signal.SIGTERM))
    assert process.wait() == 130, process.log.read_text()
    saved = torch.load(tmp_path / RUN / "resume.ckpt", weights_only=True)
    assert f"stopped after step {saved['lab_counters']['step']};" in (tmp_path / "log.txt").read_text()
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
    assert differences(references[RLVR], resume(RLVR, tmp_path)) == []


def test_what_a_kill_leaves_half_written_is_harmless_and_is_removed(
    references: dict[tuple[str, ...], Path], tmp_path: Path
) -> None:
    kill_at_write(RLVR, tmp_path, 7, "before")
    run = tmp_path / RUN
    (run / "resume.unfinished").write_bytes(b"PK half")
    (run / "records" / ".step_00000003.npz.0123456789ab.partial").write_bytes(b"half")
    (run / ".checkpoint-4.0123456789ab.partial").mkdir()
    (run / ".trajectory.nc.partial").write_bytes(b"half")
    with (run / "metrics.csv").open("a") as stream:
        stream.write("4,0.12")
    assert differences(references[RLVR], resume(RLVR, tmp_path)) == []
    assert list(run.rglob("*.partial")) == [] and list(run.rglob("*.unfinished")) == []
    store = open_store(run)
    assert store["weights"]["step"].values.tolist() == [0, 3, 6, 7]
    assert store["metrics"]["step"].values.tolist() == list(range(1, 8))
    assert store["probe"]["update"].values.tolist() == list(range(1, 8))


def test_the_comparison_sees_one_bit(references: dict[tuple[str, ...], Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(references[SFT], tmp_path / "a"))
    saved = torch.load(run / "resume.ckpt", weights_only=True)
    weight = next(iter(saved["state_dict"].values())).view(-1)
    weight[0] = torch.nextafter(weight[0], torch.tensor(1e9))
    torch.save(saved, run / "resume.ckpt")
    assert {line.split(":")[0] for line in differences(references[SFT], run)} == {"resume.ckpt"}
