"""`lab bench`: operation counts, intervals, phases, the conversation with workers, a missing peer. Nothing is timed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.bench import grpo_step, peers
from lab.bench.flops import (
    Architecture,
    StepShape,
    decode_bytes,
    forward_flops,
    step_flops,
    step_flops_unshared,
)
from lab.bench.intervals import median_interval
from lab.bench.pace import Pace
from lab.bench.phases import PhaseTimer
from lab.bench.settings import BenchSettings
from lab.bench.worker import Worker
from lab.errors import BadInput, RunFailed
from lab.training import build_train_settings

ONE_LAYER = Architecture(
    layers=1, width=4, heads=2, key_value_heads=1, head_size=2, mlp_width=6, vocabulary=10
)
SETTINGS = BenchSettings(
    what="grpo_step",
    peers=".peers",
    install_peers=False,
    policy="tiny",
    trainer="cpu",
    micro_batch_prompts=None,
    recorded=True,
    blocks=2,
    steps_per_block=3,
    warmup=1,
    profile_steps=1,
    prompts=2,
    rollouts=2,
    max_new_tokens=5,
    learning_rate=1e-4,
)

FAKE_WORKER = """
import sys

sys.path.append(sys.argv[1])
from pace import Pace, claim_stdout

channel = claim_stdout()
print("libraries like to talk")
steps = 0


def end(mode, count):
    return {"mode": mode, "reward": 0.25, "length": 4.0, "all_steps": steps}


pace = Pace(channel, 2, {"versions": {"fake": "1"}}, lambda mode: None, end)
while True:
    steps += 1
    if steps > int(sys.argv[2]):
        print("cannot go on: the fake is tired", file=sys.stderr)
        sys.exit(7)
    pace.step_done()
"""


def start_fake(folder: Path, name: str = "fake", lives: int = 10**6) -> Worker:
    script = folder / "fake_worker.py"
    script.write_text(FAKE_WORKER, encoding="utf-8")
    here = str(Path(grpo_step.__file__).parent)
    command = [sys.executable, "-I", str(script), here, str(lives)]
    return Worker(name, command, {}, folder / f"{name}.log")


# ---- operation counts --------------------------------------------------------------------------------


def test_forward_pass_of_one_layer_by_hand() -> None:
    # Per token: q and o 4x4 each, k and v 4x2 each: 16 + 16 + 8 + 8 = 48 products; gate, up, down 3 x 24 = 72;
    # so 2 x 120 = 240. A pair: scores 2 heads x 2, values the same: 8 products, 16 operations. Head: 2 x 4 x 10.
    assert forward_flops(ONE_LAYER, tokens=3, pairs=6, logits=1) == 3 * 240 + 6 * 16 + 80


def test_forward_pass_agrees_with_the_counter_of_torch() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=10,
        hidden_size=4,
        intermediate_size=6,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=2,
    )
    model = LlamaForCausalLM._from_config(config, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(2, 3, dtype=torch.int64))
    # An eager forward pass computes all nine pairs of three tokens, those that may not be seen as well.
    assert counter.get_total_flops() == forward_flops(Architecture.of(config), tokens=6, pairs=18, logits=6)


def test_step_by_hand() -> None:
    shape = StepShape(prompts=2, prompt_tokens=3, sampled=[4, 3, 1], trained_prompts=1, trained=[2, 1, 0])
    found = step_flops(ONE_LAYER, shape)
    assert found["prefill"] == 6 * 240 + 12 * 16 + 2 * 80
    # Three rows read their first token after 3 + 1 keys, one its second after 3 + 2.
    assert found["decode"] == 4 * 240 + (3 * 4 + 1 * 5) * 16 + 4 * 80
    assert found["forward"] == (3 * 240 + 6 * 16 + 80) + (1 * 240 + 4 * 16 + 80)
    assert found["backward"] == 2 * found["forward"]


def test_what_decoding_reads_by_hand() -> None:
    # Weights of a layer 48 + 72, of the head 40; keys and values of a position 2 x 2. Two tokens are decoded after the
    # first: three rows read 3 + 1 positions, then one row 3 + 2.
    shape = StepShape(prompts=2, prompt_tokens=3, sampled=[4, 3, 1], trained_prompts=1, trained=[2, 1, 0])
    assert decode_bytes(ONE_LAYER, shape, bytes_each=2) == 2 * (2 * 160 + (3 * 4 + 1 * 5) * 4)


def test_without_sharing_every_completion_reads_its_prompt() -> None:
    shape = StepShape(prompts=2, prompt_tokens=3, sampled=[4, 3, 1], trained_prompts=1, trained=[2, 1, 0])
    shared, unshared = step_flops(ONE_LAYER, shape), step_flops_unshared(ONE_LAYER, shape)
    assert unshared["prefill"] == 2 * shared["prefill"]
    assert unshared["decode"] == shared["decode"]
    assert unshared["forward"] == unshared["prefill"] + unshared["decode"]


# ---- intervals ---------------------------------------------------------------------------------------


def test_interval_of_ten_values_is_the_second_and_the_ninth() -> None:
    found = median_interval([10, 1, 9, 2, 8, 3, 7, 4, 6, 5])
    assert (found.median, found.low, found.high) == (5.5, 2, 9)
    assert found.coverage == pytest.approx(1 - 22 / 1024)


def test_five_values_have_no_interval_of_95_percent() -> None:
    found = median_interval([3.0, 1.0, 2.0, 5.0, 4.0])
    assert found.median == 3.0 and found.low is None and found.high is None and found.coverage is None
    assert median_interval([3.0, 1.0, 2.0, 5.0, 4.0], level=0.9).low == 1.0


def test_one_value() -> None:
    assert median_interval([2.0]).median == 2.0


# ---- phases ------------------------------------------------------------------------------------------


class Nested:
    def outer(self) -> int:
        return self.inner() + sum(self.items())

    def inner(self) -> int:
        return sum(i * i for i in range(200_000))

    def items(self) -> Any:
        yield 1
        yield self.inner()


def test_phases_leave_out_what_is_inside_and_put_everything_back() -> None:
    nested, timer = Nested(), PhaseTimer()
    expected = nested.outer()
    for name in ("outer", "inner", "items"):
        timer.watch(nested, name, name)
    assert nested.outer() == expected
    assert set(timer.seconds) == {"outer", "inner", "items"}
    assert timer.seconds["inner"] > timer.seconds["outer"] + timer.seconds["items"]
    timer.release()
    assert vars(nested) == {}


# ---- the conversation with a worker ------------------------------------------------------------------


def test_pace_counts_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = io.StringIO()
    begun: list[str] = []
    monkeypatch.setattr(sys, "stdin", io.StringIO("go 3\nphases 1\n"))
    settled: list[int] = []
    pace = Pace(
        channel, 2, {"a": 1}, begun.append, lambda mode, steps: {"mode": mode}, lambda: settled.append(1)
    )
    for _ in range(5):
        pace.step_done()
    with pytest.raises(SystemExit):
        pace.step_done()
    words = [line.split(" ", 1) for line in channel.getvalue().splitlines()]
    assert [word for word, _ in words] == ["READY", "DONE", "DONE"]
    answers = [json.loads(text) for _, text in words]
    assert answers[0] == {"a": 1}
    assert [(each["mode"], each["steps"]) for each in answers[1:]] == [("go", 3), ("phases", 1)]
    assert begun == ["go", "phases"]
    assert len(settled) == 5  # at both ends of both blocks, and at the end of the warm-up


def test_worker_does_the_steps_it_is_asked_for(tmp_path: Path) -> None:
    with start_fake(tmp_path) as worker:
        assert worker.wait_ready() == {"versions": {"fake": "1"}}
        answers = [worker.ask("go", 4), worker.ask("phases", 2)]
    assert [(each["steps"], each["mode"], each["all_steps"]) for each in answers] == [
        (4, "go", 6),
        (2, "phases", 8),
    ]
    assert all(each["wall"] >= 0 and each["cpu"] >= 0 for each in answers)
    assert "libraries like to talk" in (tmp_path / "fake.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("lives", [1, 4])
def test_worker_that_dies_is_named_with_its_last_words(tmp_path: Path, lives: int) -> None:
    message = r"the fake worker died \(exit code 7\)(.|\n)*the fake is tired"
    with pytest.raises(RunFailed, match=message), start_fake(tmp_path, lives=lives) as worker:
        worker.wait_ready()
        worker.ask("go", 5)


def test_worker_that_talks_out_of_turn(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", "print('hello'); input()"]
    message = "the odd worker said 'hello' where READY was due"
    with pytest.raises(RunFailed, match=message), Worker("odd", command, {}, tmp_path / "odd.log") as worker:
        worker.wait_ready()


# ---- the benchmark -----------------------------------------------------------------------------------


def test_every_round_starts_with_the_next_worker() -> None:
    rounds = [grpo_step.turns(["a", "b", "c"], block) for block in range(4)]
    assert rounds == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_both_sides_are_given_the_same_problems_and_optimiser() -> None:
    from lab.draw import Draw

    train = build_train_settings(grpo_step.training_config(SETTINGS, seed=3))
    spec = grpo_step.peer_spec(train, SETTINGS)
    assert spec["steps"] == train.steps == SETTINGS.measured_steps + 2 * SETTINGS.profile_steps + 1
    assert len(spec["problems"]) == spec["steps"] * SETTINGS.prompts
    second = train.task.draw("train", SETTINGS.prompts, Draw(3).generator("problem", 1))
    assert spec["problems"][2:4] == [[each.prompt, each.answer] for each in second]
    assert spec["optimizer"]["learning_rate"] == 1e-4 and spec["optimizer"]["clip_norm"] == 1.0


def test_phases_of_a_device_wait_for_it() -> None:
    """A device that works on after the call has returned: only whoever waits sees it."""
    owed = [0.0]

    class Device:
        def launch(self) -> None:
            owed[0] += 0.02

    def settle() -> None:
        time.sleep(owed[0])
        owed[0] = 0.0

    device, timer = Device(), PhaseTimer(settle)
    timer.watch(device, "launch", "kernel")
    device.launch()
    assert timer.seconds["kernel"] >= 0.02


def test_ratios_are_taken_within_a_round() -> None:
    def block(seconds: float) -> dict[str, Any]:
        return {
            "steps": 2,
            "wall": seconds,
            "cpu": seconds / 2,
            "peak_mb": 10.0,
            "reward": 0.5,
            "length": 4.0,
        }

    drift = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    answers = {
        "lab": [block(each) for each in drift],
        "trl": [block(4 * each) for each in drift],
        "lab_recorded": [block(2 * each) for each in drift],
    }
    found = grpo_step.compare(answers, completions=8)
    assert found["ratio"] == {"median": 0.25, "low": 0.25, "high": 0.25, "coverage": 1 - 2 / 64}
    assert found["ratio_recorded"]["median"] == 0.5 and found["ratio_cpu"]["median"] == 0.25
    assert found["seconds_per_step"]["lab"] == 1.75
    assert found["same_work"]["trl"]["completion_tokens_per_step"] == 32


def profile_answer() -> dict[str, Any]:
    shape = StepShape(prompts=2, prompt_tokens=3, sampled=[4, 3], trained_prompts=1, trained=[2, 1])
    return {
        "flops": step_flops(ONE_LAYER, shape),
        "flops_unshared": step_flops_unshared(ONE_LAYER, shape),
        "shape": {"prompts": 2},
        "matrix_flops_per_second": 1e9,
        "matrix_flops_per_second_model_shapes": 5e8,
        "phases": {"rollout": 0.001},
        "operators": [],
        "decode_bytes": 4e6,
        "memory_bytes_per_second": 1e10,
    }


class FakeBench:
    """Every worker is the fake one, which adds what only the profile modes say."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, lives: int = 10**6) -> None:
        script = folder / "fake_worker.py"
        script.write_text(FAKE_WORKER, encoding="utf-8")
        here = str(Path(grpo_step.__file__).parent)
        command = [sys.executable, "-I", str(script), here, str(lives)]

        def prepare(*_: Any) -> dict[str, Any]:
            return {name: (command, {}) for name in ("lab", "trl", "lab_recorded")}

        ask = Worker.ask
        monkeypatch.setattr(grpo_step, "prepare", prepare)
        monkeypatch.setattr(peers, "_usable", lambda python: True)
        monkeypatch.setattr(
            Worker,
            "ask",
            lambda worker, mode, steps: ask(worker, mode, steps) | (profile_answer() if mode != "go" else {}),
        )


def test_the_verb_writes_a_summary(
    lab: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeBench(tmp_path, monkeypatch)
    outcome = lab("bench", "blocks=6", "steps_per_block=1", "warmup=2")
    assert outcome.code == 0, outcome.err
    assert outcome.last_line.startswith("runs/bench/001: GRPO step")
    summary = json.loads((tmp_path / "runs/bench/001/summary.json").read_text(encoding="utf-8"))
    assert summary["what"] == "grpo_step" and summary["versions"]["trl"] == {"fake": "1"}
    assert len(summary["seconds_per_step_of_each_block"]["trl"]) == 6
    assert summary["ratio"]["coverage"] == 1 - 2 / 64
    assert set(summary["phases_cpu_ms"]) == {"rollout", "Lightning and loader"}
    assert summary["decode"]["floor_seconds"] == 4e-4 and summary["decode"]["over_floor"] == 2.5
    assert str(tmp_path) not in json.dumps(summary)


def test_a_dead_worker_fails_the_run(
    lab: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeBench(tmp_path, monkeypatch, lives=3)
    outcome = lab("bench", "warmup=2", "steps_per_block=5")
    assert outcome.code == 3
    assert "the lab worker died (exit code 7)" in outcome.err and "the fake is tired" in outcome.err


# ---- peers -------------------------------------------------------------------------------------------


def test_missing_peers_are_bad_input_with_the_command(lab: Callable[..., Any], tmp_path: Path) -> None:
    outcome = lab("bench")
    assert outcome.code == 2
    assert "python -m venv .peers && .peers/bin/pip install torch==" in outcome.err
    assert "trl==1.16.0" in outcome.err and "install_peers=true" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_an_environment_without_trl_is_missing(tmp_path: Path) -> None:
    bin_folder = tmp_path / "half" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "python").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    (bin_folder / "python").chmod(0o755)
    with pytest.raises(BadInput, match="no environment with trl"):
        peers.peer_python(str(tmp_path / "half"), install=False)


def test_install_runs_the_commands_that_the_message_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def record(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    usable = iter([False, True])
    monkeypatch.setattr(peers, "_usable", lambda python: next(usable))
    monkeypatch.setattr(subprocess, "run", record)
    python = peers.peer_python(str(tmp_path / "p"), install=True)
    assert python == tmp_path / "p" / "bin" / "python"
    assert ran[0][1:] == ["-m", "venv", str(tmp_path / "p")]
    assert ran[1] == [str(tmp_path / "p" / "bin" / "pip"), "install", *peers.peer_requirements()]


def test_a_failed_install_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_usable", lambda python: False)
    monkeypatch.setattr(peers, "install_commands", lambda directory: [["python", "-c", "exit(5)"], []])
    with pytest.raises(RunFailed, match="exit code 5"):
        peers.peer_python(str(tmp_path / "p"), install=True)


# ---- configuration -----------------------------------------------------------------------------------


def test_unknown_benchmark_and_impossible_values(lab: Callable[..., Any]) -> None:
    unknown = lab("bench", "what=speed")
    assert unknown.code == 2 and "grpo_step" in unknown.err
    assert lab("bench", "blocks=0").code == 2
    assert lab("bench", "rollouts=1").code == 2


def test_dry_run_needs_no_peers(lab: Callable[..., Any], tmp_path: Path) -> None:
    outcome = lab("bench", "dry_run=true")
    assert outcome.code == 0 and outcome.last_line == "dry run: nothing was computed"
    assert list(tmp_path.iterdir()) == []


def test_settings_count_the_measured_steps() -> None:
    assert replace(SETTINGS, blocks=10, steps_per_block=10, warmup=5).measured_steps == 105
