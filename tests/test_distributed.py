"""Several processes on one run: shares of a step, and the trajectory of two processes against that of one."""

from __future__ import annotations

import copy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

import lab
from experiments.kill_resume.kill_resume import differences
from lab.cli import main
from lab.distributed import Shard
from lab.policies import build_policy_settings, load_policy
from lab.trajectory.store import group

SMALL = [
    "steps=3",
    "logger=none",
    "generation.max_new_tokens=4",
    "evaluation.problems=6",
    "evaluation.rollouts=1",
    "probes.prompts=3",
    "probes.responses=2",
    "recorder.every=2",
    "recorder.save_every=2",
    "recorder.checkpoint_every=2",
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


def in_processes(strategy: str, *words: str, stop_at: Path | None = None) -> None:
    """Run `lab train WORDS` in two processes; the first sends itself SIGTERM once `stop_at` has taken its name."""
    two = ["train", "trainer.devices=2", f"trainer.strategy={strategy}", *words]
    program = "from lab.cli import entry_point; entry_point()"
    if stop_at is not None:
        sends = f"send_itself(Path({str(stop_at)!r}), {signal.SIGTERM:d})"
        imports = "from pathlib import Path; from experiments.kill_resume.kill_resume import send_itself"
        program = f"{imports}; {sends}; {program}"
    done = subprocess.run([sys.executable, "-c", program, *two], capture_output=True, text=True, timeout=200)
    assert done.returncode == (130 if stop_at else 0), done.stderr
    assert stop_at is None, done.stderr


def assert_same_up_to_rounding(first_run: Path, second_run: Path) -> None:
    """Compare the paths of two finished runs, and their metrics but for the clock."""
    one, other = lab.open(first_run), lab.open(second_run)
    for name, variable in (("weights", "weight"), ("logprobs", "log_prob"), ("probe", "gradient")):
        first, second = (group(tree, name)[variable].values for tree in (one, other))
        np.testing.assert_allclose(second, first, rtol=2e-4, atol=2e-6)
        assert np.abs(first[-1] - first[0]).max() > 0
    metrics = [group(tree, "metrics") for tree in (one, other)]
    for name in metrics[0].data_vars:
        if name != "step_time":
            np.testing.assert_allclose(metrics[1][name], metrics[0][name], rtol=2e-3, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    directory = tmp_path_factory.mktemp("one")
    assert main(["train", "name=one", f"runs_dir={directory}", *SMALL, *RLVR]) == 0
    return directory / "train" / "one"


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_trajectory_of_one_up_to_rounding(
    one_process: Path, strategy: str, tmp_path: Path
) -> None:
    in_processes(strategy, "name=two", f"runs_dir={tmp_path}", *SMALL, *RLVR)
    two = tmp_path / "train" / "two"
    assert_same_up_to_rounding(one_process, two)
    models = [load_file(run / "checkpoint-2" / "model.safetensors") for run in (one_process, two)]
    assert models[0].keys() == models[1].keys()  # a tied head is stored once by both
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, rtol=2e-4, atol=2e-6)


def test_weights_cut_up_for_one_process_train_as_whole_ones(tmp_path: Path) -> None:
    """A head of its own, no momentum, a KL term, one prompt at a time, activations computed again."""
    tiny = load_policy(build_policy_settings({"name": "tiny"}), seed=0)
    config = copy.deepcopy(tiny.model.config)
    config.tie_word_embeddings = False
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tiny.tokenizer.save_pretrained(tmp_path / "model")
    words = [
        *("policy=hf", f"policy.path={tmp_path / 'model'}", "policy.gradient_checkpointing=true"),
        *("optimizer=sgd", "objective.kl_coefficient=0.1", "objective.micro_batch_prompts=1"),
        f"runs_dir={tmp_path}",
    ]
    assert main(["train", "name=whole", *SMALL, *RLVR, *words]) == 0
    assert main(["train", "name=cut", "trainer.strategy=fsdp", *SMALL, *RLVR, *words]) == 0
    assert_same_up_to_rounding(tmp_path / "train" / "whole", tmp_path / "train" / "cut")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_processes_that_are_told_to_stop_save_and_go_on_to_the_same(strategy: str, tmp_path: Path) -> None:
    words = (f"runs_dir={tmp_path}", *SMALL, *RLVR)
    in_processes(strategy, "name=whole", *words)
    stopped, whole = tmp_path / "train" / "stopped", tmp_path / "train" / "whole"
    at = stopped / "records" / "step_00000000.npz"
    with pytest.raises(AssertionError, match="stopped after step 1;"):
        in_processes(strategy, "name=stopped", *words, stop_at=at)
    in_processes(strategy, "name=stopped", *words)
    assert differences(whole, stopped) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.devices=2"], "trainer.strategy"),
        (["trainer.devices=3", "trainer.strategy=ddp"], "objective.prompts"),
        (["trainer.strategy=fsdp", "regrounding=fixed"], "regrounding=fixed"),
        (["trainer.strategy=fsdp", "objective=quadratic", "policy=none", "task=none"], "trainer.strategy"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    overrides: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", f"runs_dir={tmp_path}", *overrides]) == 2
    assert message in capsys.readouterr().err
