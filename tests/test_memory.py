"""Out of memory: told from other errors, its message names what to lower, and what was saved is kept."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lab.memory import is_out_of_memory
from lab.objectives.rlvr import RLVR
from lab.trajectory.store import open_store


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ValueError("memory"), False),
    ],
)
def test_what_is_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_an_error_that_hides_want_of_memory_is_told() -> None:
    def capture() -> None:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        except torch.OutOfMemoryError:
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904

    with pytest.raises(RuntimeError) as hiding:
        capture()
    assert is_out_of_memory(hiding.value)


def test_memory_that_torch_really_refuses_is_told() -> None:
    with pytest.raises(RuntimeError) as refusal:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refusal.value)


def test_the_message_names_settings_and_nothing_is_lost(
    lab: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_run: tuple[str, ...]
) -> None:
    sampled = RLVR.collect

    def collect(self: RLVR, step: int, draw: Any) -> Any:
        if step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return sampled(self, step, draw)

    monkeypatch.setattr(RLVR, "collect", collect)
    outcome = lab(*small_run)
    assert outcome.code == 3 and len(outcome.err.strip().splitlines()) == 1
    for part in ("objective.micro_batch_prompts lower (all at once)", "objective.rollouts (4)", "2.00 GiB"):
        assert part in outcome.err
    assert "generation.max_new_tokens (5)" in outcome.err and "is kept" in outcome.err
    run = tmp_path / "runs" / "train" / "a"
    saved = torch.load(run / "resume.ckpt", weights_only=True)
    assert saved["lab_counters"]["step"] == 2 and not (run / "DONE").exists()
    monkeypatch.setattr(RLVR, "collect", sampled)
    assert lab(*small_run).code == 0
    assert open_store(run)["metrics"]["step"].values.tolist() == [1, 2, 3, 4]


def test_a_synthetic_run_lowers_its_replicates(
    lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("lab.training.build_objective", build)
    words = ("objective=quadratic", "objective.replicates=7", "steps=2", "logger=none")
    outcome = lab("train", *words)
    assert outcome.code == 3 and "lower objective.replicates (7)" in outcome.err
