"""Several processes on one run: shares of a step, and the trajectory of two processes against that of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import lab
from lab.cli import main
from lab.distributed import Shard
from lab.trajectory.store import group

SMALL = [
    "steps=3",
    "runs_dir=runs",
    "logger=none",
    "generation.max_new_tokens=4",
    "evaluation.problems=6",
    "evaluation.rollouts=1",
    "probes.prompts=3",
    "probes.responses=2",
    "recorder.every=2",
    "recorder.save_every=2",
]
RLVR = [
    "objective.prompts=8",
    "objective.rollouts=4",
    "objective.updates_per_step=2",
    "objective.advantage_scale=batch",
]


@pytest.mark.parametrize(("count", "updates", "world"), [(8, 1, 2), (8, 2, 2), (12, 3, 4), (5, 1, 1)])
def test_every_prompt_is_owned_once_and_every_update_is_shared_evenly(
    count: int, updates: int, world: int
) -> None:
    shares = [Shard(rank, world).own(count, updates) for rank in range(world)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(count))
    for share in shares:
        inside = share // (count // updates)
        assert np.bincount(inside, minlength=updates).tolist() == [count // updates // world] * updates


def test_gathered_rows_are_in_the_order_of_the_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(24.0).reshape(12, 2)
    parts = [values[Shard(rank, 2).own(12, 3)] for rank in range(2)]

    def gather(found: list[object], value: object) -> None:
        found[:] = parts

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    np.testing.assert_array_equal(Shard(0, 2).gather(parts[0], updates=3), values)


def test_two_processes_give_the_trajectory_of_one_up_to_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "name=one", *SMALL, *RLVR]) == 0
    two = ["train", "name=two", "trainer.devices=2", "trainer.strategy=ddp", *SMALL, *RLVR]
    done = subprocess.run([sys.executable, "-m", "lab", *two], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    one, other = (lab.open(tmp_path / "runs" / "train" / name) for name in ("one", "two"))
    for name, variable in (("weights", "weight"), ("logprobs", "log_prob"), ("probe", "gradient")):
        first, second = (group(tree, name)[variable].values for tree in (one, other))
        np.testing.assert_allclose(second, first, rtol=2e-4, atol=2e-6)
        assert np.abs(first[-1] - first[0]).max() > 0
    metrics = [group(tree, "metrics") for tree in (one, other)]
    for name in metrics[0].data_vars:
        if name != "step_time":
            np.testing.assert_allclose(metrics[1][name], metrics[0][name], rtol=2e-3, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.devices=2"], "trainer.strategy"),
        (["trainer.devices=3", "trainer.strategy=ddp"], "objective.prompts"),
        (["trainer.strategy=fsdp"], "trainer.strategy: fsdp cuts the weights up"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    overrides: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", f"runs_dir={tmp_path}", *overrides]) == 2
    assert message in capsys.readouterr().err
