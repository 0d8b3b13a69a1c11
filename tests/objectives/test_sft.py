"""Supervised fine-tuning against torch's cross-entropy, and its token sign noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lab.draw import Draw
from lab.errors import BadInput
from lab.objectives import SFTSettings, build_objective_settings
from lab.objectives.settings import EvaluationSettings, GenerationSettings, ProbeSettings
from lab.objectives.sft import SFT, ExampleBatch
from lab.policies import build_policy_settings, load_policy
from lab.policies.policy import Policy
from lab.tasks import build_task

NODE: dict[str, Any] = {
    "name": "sft",
    "examples": 6,
    "aggregation": "token_mean",
    "micro_batch_prompts": None,
    "sign_noise": {
        "signal_amplitude": 1.0,
        "noise_amplitude": 0.0,
        "snr_db": None,
        "normalisation": "fixed_signal",
    },
}
TASK = {
    "name": "mixture",
    "prompt": "{expression}=",
    "held_out_share": 0.1,
    "digits": 1,
    "terms": 2,
    "parts": ["addition", "multiplication", "maximum"],
    "max_digits": 2,
}
AGGREGATIONS = ["token_mean", "sequence_mean", "sequence_sum"]


@pytest.fixture(scope="module")
def policy() -> Policy:
    """A random Llama in double precision, far from uniform."""
    node = {"name": "scratch", "layers": 2, "width": 16, "heads": 2, "mlp_width": 24, "context": 40}
    made = load_policy(build_policy_settings(node), seed=0)
    made.model.double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made


def make(policy: Policy, **changes: Any) -> SFT:
    """SFT on one- and two-digit arithmetic: prompts and answers of unequal length."""
    settings = build_objective_settings({**NODE, **changes})
    assert isinstance(settings, SFTSettings)
    return SFT(
        settings,
        policy,
        build_task(TASK),
        GenerationSettings(6, 1.0),
        EvaluationSettings(1, 1, 1.0),
        ProbeSettings(1, 1),
    )


def noise(a: float, b: float) -> dict[str, Any]:
    """Settings of the sign noise."""
    return {
        "signal_amplitude": a,
        "noise_amplitude": b,
        "snr_db": None,
        "normalisation": "fixed_signal",
    }


def loss_of(objective: SFT, batch: ExampleBatch) -> Tensor:
    """The sum of the micro-batch losses."""
    return torch.stack(list(objective.losses(batch, 0))).sum()


def gradient(policy: Policy, loss: Tensor) -> Tensor:
    """All gradients in one vector."""
    gradients = torch.autograd.grad(loss, list(policy.model.parameters()))
    return torch.cat([part.flatten() for part in gradients])


def relative(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference as a share of the norm."""
    return float((actual - expected).norm() / expected.norm())


def token_losses(policy: Policy, objective: SFT, step: int) -> list[Tensor]:
    """Cross-entropy of every answer token, row by row, from unpadded text and torch alone."""
    problems = objective.task.draw("train", objective.settings.examples, Draw(0).generator("problem", step))
    rows = []
    for problem in problems:
        prompt = policy.tokenizer(problem.prompt)["input_ids"]
        answer = [*policy.tokenizer(problem.answer)["input_ids"], policy.tokenizer.eos_token_id]
        logits = policy.model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0]
        rows.append(cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(answer), reduction="none"))
    return rows


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_loss_is_torchs_cross_entropy(policy: Policy, aggregation: str) -> None:
    objective = make(policy, aggregation=aggregation)
    actual = loss_of(objective, batch := objective.collect(3, Draw(0)))
    rows = token_losses(policy, objective, 3)
    assert len({len(row) for row in rows}) > 1 and bool((batch.prompts.mask == 0).any())
    expected = {
        "token_mean": torch.cat(rows).mean(),
        "sequence_mean": torch.stack([row.mean() for row in rows]).mean(),
        "sequence_sum": torch.stack([row.sum() for row in rows]).mean(),
    }[aggregation]
    assert actual.item() == pytest.approx(expected.item(), rel=1e-6)
    assert relative(gradient(policy, actual), gradient(policy, expected)) < 1e-6


def test_the_reported_cross_entropy_is_that_of_a_token_whatever_the_aggregation(policy: Policy) -> None:
    objective = make(policy, aggregation="sequence_sum", sign_noise=noise(0.0, 1.0))
    batch = objective.collect(3, Draw(0))
    loss_of(objective, batch)
    rows = token_losses(policy, objective, 3)
    assert batch.metrics["cross_entropy"] == pytest.approx(torch.cat(rows).mean().item(), rel=1e-6)
    assert batch.metrics["completions/mean_length"] == pytest.approx(np.mean([len(row) for row in rows]))


@pytest.mark.parametrize("micro", [1, 2, 4, 99])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_micro_batches_do_not_change_the_gradient(policy: Policy, aggregation: str, micro: int) -> None:
    whole = make(policy, aggregation=aggregation, sign_noise=noise(0.6, 0.8))
    split = make(policy, aggregation=aggregation, sign_noise=noise(0.6, 0.8), micro_batch_prompts=micro)
    batch = whole.collect(1, Draw(0))
    assert len(list(split.losses(batch, 0))) == math.ceil(6 / micro)
    reference = gradient(policy, loss_of(whole, batch))
    assert relative(gradient(policy, loss_of(split, batch)), reference) < 1e-6


def test_sign_noise_weights_each_tokens_loss(policy: Policy) -> None:
    objective = make(policy, sign_noise=noise(0.6, 0.8))
    batch = objective.collect(3, Draw(0))
    rows = token_losses(policy, objective, 3)
    total = sum(len(row) for row in rows)
    expected, seen = 0.0, set()
    for index, row in enumerate(rows):
        for position, value in enumerate(row.tolist()):
            weight = float(batch.weights[index, position]) * total
            seen.add(round(weight, 5))
            expected += weight * value / total
    assert seen == {1.4, -0.2}
    assert loss_of(objective, batch).item() == pytest.approx(expected, rel=1e-6)


def test_padding_has_no_weight(policy: Policy) -> None:
    batch = make(policy, sign_noise=noise(0.0, 1.0)).collect(0, Draw(0))
    assert bool((batch.weights[~batch.mask] == 0).all()) and not bool(batch.mask.all())


def test_without_noise_sft_is_plain_and_amplitude_scales_it(policy: Policy) -> None:
    plain = gradient(policy, loss_of(obj := make(policy), obj.collect(2, Draw(0))))
    half = make(policy, sign_noise=noise(0.5, 0.0))
    assert relative(gradient(policy, loss_of(half, half.collect(2, Draw(0)))), plain / 2) < 1e-6


def test_opposite_signs_average_to_the_signal(policy: Policy) -> None:
    """The gradient is linear in the weights: opposite signs average to a times the plain one."""
    plain = gradient(policy, loss_of(obj := make(policy), base := obj.collect(2, Draw(0))))
    objective = make(policy, sign_noise=noise(0.3, 1.0))
    batch = objective.collect(2, Draw(0))
    noisy = gradient(policy, loss_of(objective, batch))
    batch.weights = 2 * 0.3 * base.weights - batch.weights
    opposite = gradient(policy, loss_of(objective, batch))
    assert relative((noisy + opposite) / 2, 0.3 * plain) < 1e-5
    assert relative(noisy, 0.3 * plain) > 0.5


def projections(policy: Policy, a: float, b: float, direction: Tensor, steps: int) -> np.ndarray:
    """The gradient of each of many steps along a fixed direction."""
    objective = make(policy, sign_noise=noise(a, b))
    values = [
        (gradient(policy, loss_of(objective, objective.collect(step, Draw(7)))) @ direction).item()
        for step in range(steps)
    ]
    return np.array(values)


def test_pure_sign_noise_has_no_mean_gradient(policy: Policy) -> None:
    clean = make(policy, examples=64)
    direction = gradient(policy, loss_of(clean, clean.collect(0, Draw(1))))
    direction = direction / direction.norm()
    steps = 60
    z = {}
    for a in (0.0, 1.0):
        values = projections(policy, a, 1.0, direction, steps)
        z[a] = values.mean() / (values.std(ddof=1) / math.sqrt(steps))
    assert abs(z[0.0]) < 4
    assert z[1.0] > 5, "the same test finds the signal where there is one"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"examples": 0}, r"objective\.examples: a step needs"),
        ({"micro_batch_prompts": 0}, r"objective\.micro_batch_prompts: must be at least 1"),
        ({"aggregation": "mean"}, r"objective\.aggregation: unknown 'mean'"),
        ({"sign_noise": noise(-1.0, 0.0)}, r"objective\.sign_noise\.signal_amplitude: .*negative"),
        ({"rollouts": 4}, r"objective\.rollouts: no code reads"),
    ],
)
def test_an_impossible_setting_is_refused_by_its_full_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        build_objective_settings({**NODE, **changes})
