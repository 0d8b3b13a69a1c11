"""The precision that a run computes in: training, sampling and judging alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lab.policies.packed_llama import PackedLlama
from lab.policies.policy import Policy
from lab.process import gpu_use
from lab.trainer import TrainerSettings, arithmetic


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_what_is_judged_is_computed_as_what_is_trained(
    lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, small_run: tuple[str, ...], precision: str
) -> None:
    """Rollouts, probes' responses and held-out evaluations in the run's precision; recorded log-probs in float32."""
    decoded, sampled_in_training, teacher_forced = [], [], []
    step, sample, log_probs = PackedLlama.step, Policy.sample, Policy.completion_log_probs

    def stepping(packed: PackedLlama, *arguments: Any) -> torch.Tensor:
        decoded.append(packed.dtype)
        return step(packed, *arguments)

    def sampling(policy: Policy, *arguments: Any) -> Any:
        sampled_in_training.append(torch.is_autocast_enabled("cpu"))
        return sample(policy, *arguments)

    def forcing(policy: Policy, *arguments: Any, **named: Any) -> torch.Tensor:
        if not torch.is_grad_enabled():
            teacher_forced.append(torch.is_autocast_enabled("cpu"))
        return log_probs(policy, *arguments, **named)

    monkeypatch.setattr(PackedLlama, "step", stepping)
    monkeypatch.setattr(Policy, "sample", sampling)
    monkeypatch.setattr(Policy, "completion_log_probs", forcing)
    outcome = lab(*small_run, f"trainer.precision={precision}")
    assert outcome.code == 0, outcome.err
    mixed = precision == "bf16-mixed"
    assert set(decoded[2:]) == {torch.bfloat16 if mixed else torch.float32}  # the model is tried out before
    assert set(sampled_in_training) == {mixed}
    assert set(teacher_forced) == {False}


@pytest.mark.parametrize(("precision", "expected"), [("32-true", False), ("bf16-mixed", True)])
def test_arithmetic_of_a_run(precision: Any, expected: bool) -> None:
    settings = TrainerSettings("cpu", "cpu", 1, "auto", precision)
    with arithmetic(settings):
        assert torch.is_autocast_enabled("cpu") is expected
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said_to_be_used_where_there_is_none() -> None:
    assert gpu_use() == {"gpu": None, "peak_gpu_mb": None}
