"""`lab extrapolate`: what it writes loads and is what the formula says; what it refuses leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lab.extrapolation import write_model
from lab.extrapolation.shards import ShardWriter
from lab.linearity import choose_damping

Make = Callable[..., Path]
Lab = Callable[..., Any]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def at(source: Path, step: int) -> dict[str, torch.Tensor]:
    return weights(source / f"checkpoint-{step}")


def left_behind(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "source" not in path.parts)


# ---- what is written ---------------------------------------------------------------------------------


def test_two_points_are_the_published_arithmetic(lab: Lab, make: Make, tmp_path: Path) -> None:
    source = make()
    outcome = lab("extrapolate", f"checkpoints={source}", "target=900")
    assert outcome.code == 0, outcome.err
    assert outcome.last_line == "runs/extrapolate/001/model: two_point from step 400 to 900"
    first, last, found = at(source, 0), at(source, 400), weights(tmp_path / "runs/extrapolate/001/model")
    assert found.keys() == last.keys()
    for name, value in found.items():
        wanted = last[name] if "norm" in name else first[name] + 2.25 * (last[name] - first[name])
        assert torch.equal(value, wanted), name
    summary = json.loads((tmp_path / "runs/extrapolate/001/summary.json").read_text(encoding="utf-8"))
    assert summary["weights"]["n"] == sum(value.numel() for value in last.values())
    assert summary["steps_used"] == [0, 400] and summary["copied_tensors"] == 5
    assert summary["bytes_read"] == 2 * summary["bytes_written"] == 8 * summary["weights"]["n"]
    assert (tmp_path / "runs/extrapolate/001/DONE").exists()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shards", ["5GB", "900B"])
def test_transformers_loads_it_and_computes_with_it(
    lab: Lab, make: Make, tmp_path: Path, tied: bool, shards: str
) -> None:
    from transformers import AutoModelForCausalLM

    source = make(steps=(0, 100), tied=tied)
    outcome = lab("extrapolate", f"checkpoints={source}", "target=150", f"shard_size={shards}", "output=out")
    assert outcome.code == 0, outcome.err
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    ours = weights(tmp_path / "out")
    head = ours["model.embed_tokens.weight" if tied else "lm_head.weight"]
    assert ("lm_head.weight" in ours) is not tied
    assert torch.equal(model.lm_head.weight, head)
    assert torch.equal(
        model.model.layers[1].mlp.down_proj.weight, ours["model.layers.1.mlp.down_proj.weight"]
    )
    assert torch.isfinite(model(torch.arange(5)[None]).logits).all()
    assert (len(list((tmp_path / "out").glob("*.safetensors"))) > 3) is (shards == "900B")


def test_a_head_that_is_a_copy_but_not_tied_keeps_its_name(lab: Lab, make: Make, tmp_path: Path) -> None:
    def same_head(step: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}

    source = make(steps=(0, 100), tied=False, change=same_head)
    outcome = lab("extrapolate", f"checkpoints={source}", "target=150", "output=out")
    assert outcome.code == 0, outcome.err
    found = weights(tmp_path / "out")
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    summary = json.loads((tmp_path / "runs/extrapolate/001/summary.json").read_text(encoding="utf-8"))
    assert (
        summary["weights"]["n"]
        == sum(value.numel() for value in found.values()) - found["lm_head.weight"].numel()
    )


def test_rounding_to_bfloat16_comes_once_at_the_end(lab: Lab, make: Make, tmp_path: Path) -> None:
    source = make(steps=(0, 100), dtype=torch.bfloat16)
    assert lab("extrapolate", f"checkpoints={source}", "target=250", "output=out").code == 0
    first, last, found = at(source, 0), at(source, 100), weights(tmp_path / "out")
    for name, value in found.items():
        one, two = first[name].float(), last[name].float()
        wanted = two if "norm" in name else one + 2.5 * (two - one)
        assert value.dtype == torch.bfloat16 and torch.equal(value, wanted.to(torch.bfloat16)), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_stored_type_is_chosen_and_said(lab: Lab, make: Make, tmp_path: Path, dtype: str) -> None:
    source = make(steps=(0, 100))
    assert lab("extrapolate", f"checkpoints={source}", "target=250", "output=out", f"dtype={dtype}").code == 0
    assert {str(value.dtype) for value in weights(tmp_path / "out").values()} == {f"torch.{dtype}"}
    assert json.loads((tmp_path / "out/config.json").read_text(encoding="utf-8"))["torch_dtype"] == dtype


def test_a_pooled_method_and_its_skill(lab: Lab, make: Make, tmp_path: Path) -> None:
    source = make(steps=(0, 100, 200, 300, 400, 500))
    outcome = lab(
        "extrapolate", f"checkpoints={source}", "target=700", "method=damped", "output=out", "compare=true"
    )
    assert outcome.code == 0, outcome.err
    steps = (0, 100, 200, 300, 400, 500)
    moved = [name for name in at(source, 0) if "norm" not in name]
    values = np.stack(
        [np.concatenate([at(source, s)[name].numpy().ravel() for name in moved]) for s in steps]
    )
    damping = choose_damping(values, np.array(steps))
    record = json.loads((tmp_path / "out/extrapolation.json").read_text(encoding="utf-8"))
    assert record["details"]["damping"] == pytest.approx(damping, rel=1e-4) and 0 < damping < 1
    (combination,) = record["combination"].values()
    assert combination[0] == pytest.approx(-0.4 * damping, rel=1e-4)
    assert sum(combination) == pytest.approx(1)
    summary = json.loads((tmp_path / "runs/extrapolate/001/summary.json").read_text(encoding="utf-8"))
    assert set(summary["comparison"]["methods"]) >= {"persistence", "damped", "low_rank"}
    assert summary["skill"] == summary["comparison"]["methods"]["damped"]["skill"]
    name = "model.layers.0.mlp.up_proj.weight"
    series = torch.stack([at(source, step)[name].double() for step in steps])
    wanted = torch.einsum("k,kij->ij", torch.tensor(combination, dtype=torch.float64), series)
    torch.testing.assert_close(weights(tmp_path / "out")[name].double(), wanted, atol=1e-5, rtol=0)


def test_a_method_with_a_combination_for_each_tensor(lab: Lab, make: Make, tmp_path: Path) -> None:
    source = make()
    outcome = lab("extrapolate", f"checkpoints={source}", "target=700", "method=rank_1", "output=out")
    assert outcome.code == 0, outcome.err
    record = json.loads((tmp_path / "out/extrapolation.json").read_text(encoding="utf-8"))
    name = "model.layers.1.self_attn.o_proj.weight"
    path = np.stack(
        [at(source, step)[name].numpy().ravel().astype(np.float64) for step in range(0, 500, 100)]
    )
    left, singular, right = np.linalg.svd(path - path[0], full_matrices=False)
    ahead = np.polyval(np.polyfit(np.arange(0, 500, 100), singular[0] * left[:, 0], 1), 700)
    found = weights(tmp_path / "out")[name].numpy().ravel()
    np.testing.assert_allclose(found, path[0] + ahead * right[0], atol=2e-5)
    assert len(record["combination"]) == len([each for each in at(source, 0) if "norm" not in each])
    assert record["details"][name]["share_1"] == pytest.approx(
        singular[0] ** 2 / np.sum(singular**2), rel=1e-4
    )


def test_the_window_hides_what_comes_after(lab: Lab, make: Make, tmp_path: Path) -> None:
    source = make()
    words = (f"checkpoints={source}", "first=100", "last=200", "target=400", "output=out")
    assert lab("extrapolate", *words).code == 0
    first, last = at(source, 100), at(source, 200)
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(weights(tmp_path / "out")[name], first[name] + 3.0 * (last[name] - first[name]))
    assert torch.equal(weights(tmp_path / "out")["model.norm.weight"], last["model.norm.weight"])


def test_base_is_step_zero_and_expo_needs_no_target(lab: Lab, make: Make, tmp_path: Path) -> None:
    base, source = make(steps=(0,), name="source-base"), make(steps=(50,))
    words = (
        f"checkpoints={source}",
        f"base={base}/checkpoint-0",
        "method=expo",
        "method.alpha=0.5",
        "output=out",
    )
    outcome = lab("extrapolate", *words)
    assert outcome.code == 0, outcome.err
    assert "expo from step 50 to 75" in outcome.last_line
    first, last = weights(base / "checkpoint-0"), at(source, 50)
    name = "model.embed_tokens.weight"
    torch.testing.assert_close(weights(tmp_path / "out")[name], last[name] + 0.5 * (last[name] - first[name]))


def test_files_beside_the_weights(lab: Lab, make: Make, tmp_path: Path) -> None:
    source = make()
    assert lab("extrapolate", f"checkpoints={source}", "target=900", "output=out").code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    wanted = {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "extrapolation.json",
    }
    assert names == wanted  # the tokenizer from the only checkpoint that has one, no optimiser
    record = json.loads((tmp_path / "out/extrapolation.json").read_text(encoding="utf-8"))
    assert record["target_step"] == 900 and record["method"] == {"name": "two_point"}
    assert "beta" in record["formula"] and record["steps_used"] == [0, 400]
    hashes = [record["sources"][row]["files"][0]["sha256"] for row in (0, 1)]
    assert hashes[0] != hashes[1] and "blocks" in record["sources"][0]["files"][0]["sha256_of"]
    assert record["copied_tensors"]["from_step"] == 400


def test_whole_files_are_hashed_when_asked(lab: Lab, make: Make, tmp_path: Path) -> None:
    import hashlib

    source = make(steps=(0, 100))
    assert lab("extrapolate", f"checkpoints={source}", "target=900", "output=out", "hash=whole").code == 0
    record = json.loads((tmp_path / "out/extrapolation.json").read_text(encoding="utf-8"))
    file = source / "checkpoint-100/model.safetensors"
    assert record["sources"][1]["files"][0]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_tensors_that_are_no_weights_are_taken_over(lab: Lab, make: Make, tmp_path: Path) -> None:
    def buffers(step: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            **tensors,
            "counter": torch.tensor([step]),
            "rotary_emb.inv_freq": torch.tensor([0.5, step + 0.25]),
        }

    source = make(steps=(0, 100), change=buffers)
    assert lab("extrapolate", f"checkpoints={source}", "target=900", "output=out", "dtype=bfloat16").code == 0
    found = weights(tmp_path / "out")
    assert torch.equal(found["counter"], torch.tensor([100]))
    assert torch.equal(found["rotary_emb.inv_freq"], torch.tensor([0.5, 100.25]))


def test_workers_and_slices_do_not_change_a_bit(
    lab: Lab, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make()
    words = (f"checkpoints={source}", "target=900", "method=least_squares", "dtype=bfloat16")
    assert lab("extrapolate", *words, "output=one", "workers=1").code == 0
    monkeypatch.setattr(write_model, "SLICE_BYTES", 5 * 4 * 7)
    monkeypatch.setattr(write_model, "BLOCK", 3)
    assert lab("extrapolate", *words, "output=two", "workers=3").code == 0
    assert (tmp_path / "one/model.safetensors").read_bytes() == (
        tmp_path / "two/model.safetensors"
    ).read_bytes()


def test_memory_does_not_grow_with_the_tensors(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.extrapolation import JumpRules, build_extrapolator, default_method
    from lab.extrapolation.write_model import plan_model, write_weights
    from lab.trajectory.readers import open_series

    source = make(steps=(0, 100))
    series: Any = open_series(source)
    monkeypatch.setattr(write_model, "SLICE_BYTES", 2 * 4 * 10)
    longest = []
    read_into = series.read_into
    series.read_into = lambda name, start, stop, out: (
        longest.append(out.nbytes),
        read_into(name, start, stop, out),
    )
    extrapolator = build_extrapolator(default_method("two_point"), JumpRules((), None, "pooled"))
    state = extrapolator.finish(extrapolator.begin(series.steps))
    plan = plan_model(series, extrapolator, state, 200.0, "same", 10**9, {})
    (source / "out").mkdir()
    write_weights(series, plan, 200.0, source / "out")
    assert max(longest) == 2 * 4 * 10
    assert sum(longest) == 2 * 4 * sum(info.size for info in series.tensors.values())


def test_a_write_that_failed_in_between_is_not_forgotten(
    lab: Lab, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system reports a failed write once: waiting again at the end would succeed."""
    failures = [OSError(errno.EIO, "Input/output error")]

    def flush(self: object) -> None:
        if failures:
            raise failures.pop()

    source = make()
    monkeypatch.setattr(write_model, "FLUSH_BYTES", 1)
    monkeypatch.setattr(ShardWriter, "flush", flush)
    outcome = lab("extrapolate", f"checkpoints={source}", "target=900", "output=out")
    assert outcome.code == 3 and "Input/output error" in outcome.err
    assert not failures and not (tmp_path / "out").exists()


def test_dry_run_writes_nothing(lab: Lab, make: Make, tmp_path: Path) -> None:
    source = make()
    outcome = lab("extrapolate", f"checkpoints={source}", "target=900", "dry_run=true")
    assert outcome.code == 0 and outcome.last_line == "dry run: nothing was computed"
    assert left_behind(tmp_path) == []


# ---- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["target=400"], "target: step 400 is not after the last checkpoint used, step 400"),
        (["target=-1"], "target: step -1 is not after"),
        ([], "target: give the step to extrapolate to"),
        (["target=soon"], "target: expected a step, got 'soon'"),
        (["target=.nan"], "target: expected a step"),
        (["target=900", "method=two_pont"], "did you mean 'two_point'"),
        (["target=900", "method=expo"], "target: method=expo goes as far as method.alpha says"),
        (["method=expo", "method.alpha=1e300"], "lower target or alpha"),
        (["method=expo", "method.alpha=-1"], "method.alpha: must be positive"),
        (["target=900", "first=150"], "first: no checkpoint of step 150; there are 0, 100, 200, 300, 400"),
        (["target=900", "first=300", "last=100"], "first: step 300 is after last, step 100"),
        (["target=900", "first=400"], "needs at least 2, got 1"),
        (["target=900", "method=damped", "last=200"], "method=damped needs at least 4, got 3"),
        (["target=900", "dtype=int8"], "dtype: unknown 'int8'"),
        (["target=900", "shard_size=huge"], "shard_size: expected a size such as 5GB"),
        (["target=900", "norm_cap=0"], "norm_cap: must be positive or null"),
        (["target=900", "copy=['']"], "copy: an empty word"),
        (["target=900", "workers=0"], "workers: must be at least 1"),
        (["target=900", "compare=maybe"], "compare: expected true or false"),
        (["target=900", "betta=2"], "betta"),
        (["target=900", "output=source/checkpoint-0"], "is, or holds, the checkpoint"),
        (["target=900", "output=source"], "is, or holds, the checkpoint"),
        (["target=900", "output=mine"], "mine exists and was not written by lab extrapolate"),
        (["target=900", "output=mine", "clean=true"], "mine exists and was not written by lab extrapolate"),
        (["target=900", "output=mine/file/model"], "mine/file is not a directory"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(
    lab: Lab, make: Make, tmp_path: Path, words: list[str], message: str
) -> None:
    source = make()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("precious", encoding="utf-8")
    outcome = lab("extrapolate", f"checkpoints={source}", *words)
    assert outcome.code == 2, outcome.err
    assert message in outcome.err
    assert [name for name in left_behind(tmp_path) if not name.startswith("runs")] == ["mine", "mine/file"]
    assert not list(tmp_path.glob("runs/extrapolate/*"))


def test_one_checkpoint_only(lab: Lab, make: Make) -> None:
    outcome = lab("extrapolate", f"checkpoints={make(steps=(100,))}", "target=900")
    assert outcome.code == 2 and "needs at least 2, got 1 (step 100); base=DIRECTORY" in outcome.err


def test_no_checkpoints_named(lab: Lab) -> None:
    outcome = lab("extrapolate", "target=900")
    assert outcome.code == 2 and "checkpoints: name the checkpoints" in outcome.err


def spoil(name: str, step: int, value: float) -> Callable[..., dict[str, torch.Tensor]]:
    def change(at_step: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if at_step == step:
            tensors[name].view(-1)[3] = value
        return tensors

    return change


@pytest.mark.parametrize("method", ["two_point", "damped", "persistence"])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_weights_that_are_not_finite(lab: Lab, make: Make, tmp_path: Path, method: str, name: str) -> None:
    source = make(change=spoil(name, 400, float("nan")))
    outcome = lab("extrapolate", f"checkpoints={source}", "target=900", f"method={method}", "output=out")
    assert outcome.code == 2, outcome.err
    assert f"{name}: element 3 is nan at step 400 in " in outcome.err and "checkpoint-400" in outcome.err
    assert not list(tmp_path.glob("runs/extrapolate/*")) and not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*partial"))


def test_a_forecast_too_large_for_its_type(lab: Lab, make: Make, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    source = make(steps=(0, 100), change=spoil(name, 100, 60_000.0))
    words = ("extrapolate", f"checkpoints={source}", "target=200", "output=out")
    outcome = lab(*words, "dtype=float16")
    assert outcome.code == 2
    assert (
        f"{name}: the forecast for step 200 is" in outcome.err and "float16 ends at 6.55e+04" in outcome.err
    )
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*partial"))
    assert lab(*words, "dtype=bfloat16").code == 0


def test_an_output_that_exists_is_kept_until_asked(lab: Lab, make: Make, tmp_path: Path) -> None:
    source = make()
    words = ("extrapolate", f"checkpoints={source}", "output=out")
    assert lab(*words, "target=900").code == 0
    before = (tmp_path / "out/model.safetensors").read_bytes()
    refused = lab(*words, "target=800")
    assert refused.code == 2 and "output: out exists" in refused.err
    assert (tmp_path / "out/model.safetensors").read_bytes() == before
    assert lab(*words, "target=800", "clean=true").code == 0
    assert (tmp_path / "out/model.safetensors").read_bytes() != before


def test_no_room_on_the_disk(lab: Lab, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    outcome = lab("extrapolate", f"checkpoints={make()}", "target=900", "output=out")
    assert outcome.code == 2 and "the extrapolated model needs" in outcome.err
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*partial"))


def test_a_disk_that_fills_up_meanwhile(
    lab: Lab, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def fail(shard: ShardWriter, name: str, offset: int, data: Any) -> None:
        written.append(name)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "write", fail)
    outcome = lab("extrapolate", f"checkpoints={make()}", "target=900", "output=out", "workers=1")
    assert outcome.code == 3 and "the disk is full" in outcome.err
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*partial"))


def test_sampled_weights_are_no_model(lab: Lab, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import lab.trajectory.readers as readers

    monkeypatch.setattr(readers, "open_series", lambda source, base: object())
    outcome = lab("extrapolate", "checkpoints=run", "target=900")
    assert outcome.code == 2 and "recorder.checkpoint_every" in outcome.err


# ---- killed ------------------------------------------------------------------------------------------

SLOW = r"""
import os, sys, time
from lab.extrapolation.shards import ShardWriter
write = ShardWriter.write
def slow(shard, name, offset, data):
    write(shard, name, offset, data)
    os.write(1, b"wrote\n")
    time.sleep(0.2)
ShardWriter.write = slow
from lab.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_kill_leaves_nothing_under_the_final_name_and_the_same_command_ends_well(
    lab: Lab, make: Make, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    words = ["extrapolate", f"checkpoints={make()}", "target=900", "output=out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(write_model.__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *words], cwd=tmp_path, stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"wrote\n"
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    assert not (tmp_path / "out").exists()
    if number == signal.SIGTERM:
        assert not list(tmp_path.glob(".*partial"))
    assert lab(*words).code == 0
    assert (tmp_path / "out/model.safetensors").exists()
    assert not list(tmp_path.glob(".*partial"))
