"""The RLVR loss against a second implementation: plain forward passes, no cache, one token at a time."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lab.draw import Draw
from lab.errors import BadInput
from lab.noise import RewardFlips
from lab.objectives import build_objective_settings
from lab.objectives.rlvr import RLVR, RolloutBatch
from lab.objectives.settings import EvaluationSettings, GenerationSettings, ProbeSettings, RLVRSettings
from lab.policies import build_policy_settings, load_policy
from lab.policies.policy import Policy
from lab.tasks import Problem
from lab.tasks.mixture import Mixture, MixtureSettings

NODE: dict[str, Any] = {
    "name": "rlvr",
    "prompts": 4,
    "rollouts": 4,
    "updates_per_step": 2,
    "advantage_scale": "std",
    "advantage_epsilon": 1e-4,
    "clip_low": 0.2,
    "clip_high": 0.28,
    "aggregation": "sequence_mean",
    "micro_batch_prompts": None,
    "skip_zero_signal": True,
    "kl_coefficient": 0.0,
    "permute_advantages": False,
    "flips": {"false_positive": 0.0, "false_negative": 0.0, "per": "rollout"},
}
TEMPERATURE, NEW_TOKENS = 0.8, 6
AGGREGATIONS = ["token_mean", "sequence_mean", "sequence_sum"]


class Parity(Mixture):
    """Prompts of unequal length; random text is right half the time, and sometimes not judged."""

    given_up = 0

    def verify(self, completion: str, problem: Problem) -> int | None:
        if "q" in completion:
            self.given_up += 1
            return None
        if problem.key.startswith("+"):
            return 0  # groups without signal
        return sum(map(ord, completion)) % 2

    def judge_counts(self) -> dict[str, int]:
        return {"timeouts": self.given_up}


def make_policy() -> Policy:
    """A random Llama in double precision, far from uniform; one token in five or so ends a completion."""
    node = {"name": "scratch", "layers": 2, "width": 16, "heads": 2, "mlp_width": 24, "context": 40}
    policy = load_policy(build_policy_settings(node), seed=0)
    perturb(policy, 0.3, seed=5)
    return policy


def perturb(policy: Policy, size: float, seed: int) -> None:
    """Add noise to every weight."""
    generator = torch.Generator().manual_seed(seed)
    policy.model.double()
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="module")
def start() -> Policy:
    """The policy that samples; tests that move it take a copy."""
    return make_policy()


def make(policy: Policy, **changes: Any) -> RLVR:
    """RLVR on the parity task."""
    settings = build_objective_settings({**NODE, **changes})
    assert isinstance(settings, RLVRSettings)
    parts = ("addition", "subtraction", "maximum")
    return RLVR(
        settings,
        policy,
        Parity(MixtureSettings("mixture", "{expression}=", 0.1, 1, 2, parts, 3)),
        GenerationSettings(NEW_TOKENS, TEMPERATURE),
        EvaluationSettings(1, 1, 1.0),
        ProbeSettings(1, 1),
    )


@pytest.fixture(scope="module")
def batch(start: Policy) -> RolloutBatch:
    """Rollouts with prompts and completions of unequal length, groups with and without signal."""
    for step in range(200):
        collected = make(start).collect(step, Draw(0))
        groups = collected.advantages.view(4, 4)
        signal = (groups != 0).any(1)
        halves = signal[:2].any() and signal[2:].any() and not signal.all()
        lengths = collected.rollouts.lengths.tolist()
        unjudged = collected.metrics["frac_unjudged"] > 0
        if halves and unjudged and len(set(lengths)) > 2 and bool((collected.prompts.mask == 0).any()):
            return collected
    raise AssertionError("no step of the random policy has all the cases")


def plain(
    policy: Policy, settings: RLVRSettings, batch: RolloutBatch, update: int
) -> tuple[Tensor, int, int, int]:
    """The loss of one update in loops: (loss, tokens clipped above, tokens clipped below, all tokens)."""
    group = settings.rollouts
    share = settings.prompts // settings.updates_per_step
    rows = range(update * share * group, (update + 1) * share * group)
    lengths = {row: int(batch.rollouts.mask[row].sum()) for row in rows}
    all_tokens = sum(lengths.values())
    loss, above, below = torch.zeros((), dtype=torch.float64), 0, 0
    for row in rows:
        prompt = batch.prompts.ids[row // group][batch.prompts.mask[row // group] == 1].tolist()
        completion = batch.rollouts.tokens[row, : lengths[row]].tolist()
        logits = policy.model(input_ids=torch.tensor([prompt + completion]), use_cache=False).logits[0]
        advantage = float(batch.advantages[row])
        for position, token in enumerate(completion):
            scaled = logits[len(prompt) + position - 1] / TEMPERATURE
            log_prob = scaled[token] - torch.logsumexp(scaled, -1)
            old = float(log_prob.detach()) if update == 0 else float(batch.rollouts.log_probs[row, position])
            ratio = torch.exp(log_prob - old)
            if advantage > 0 and float(ratio.detach()) > 1 + settings.clip_high:
                value, above = torch.tensor((1 + settings.clip_high) * advantage), above + 1
            elif advantage < 0 and float(ratio.detach()) < 1 - settings.clip_low:
                value, below = torch.tensor((1 - settings.clip_low) * advantage), below + 1
            else:
                value = ratio * advantage
            weight = {
                "token_mean": 1 / all_tokens,
                "sequence_mean": 1 / (len(rows) * lengths[row]),
                "sequence_sum": 1 / len(rows),
            }[settings.aggregation]
            loss = loss - weight * value
    return loss, above, below, all_tokens


def gradient(policy: Policy, loss: Tensor) -> Tensor:
    """All gradients in one vector."""
    gradients = torch.autograd.grad(loss, list(policy.model.parameters()))
    return torch.cat([part.flatten() for part in gradients])


def lab_loss(objective: RLVR, batch: RolloutBatch, update: int) -> Tensor:
    """The sum of the micro-batch losses."""
    return torch.stack(list(objective.losses(batch, update))).sum()


def relative(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference as a share of the norm."""
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_first_update_is_the_plain_policy_gradient(
    start: Policy, batch: RolloutBatch, aggregation: str
) -> None:
    objective = make(start, aggregation=aggregation)
    actual = lab_loss(objective, batch, 0)
    expected, above, below, _ = plain(start, objective.settings, batch, 0)
    assert above == below == 0
    assert actual.item() == pytest.approx(expected.item(), abs=1e-6)
    assert relative(gradient(start, actual), gradient(start, expected)) < 1e-6
    assert batch.metrics["clip_ratio/region_mean"] == 0


def test_the_first_update_takes_its_ratio_as_one_whatever_the_sampler_rounded(
    start: Policy, batch: RolloutBatch
) -> None:
    reference = gradient(start, lab_loss(make(start), batch, 0))
    rounded = copy.deepcopy(batch)
    rounded.rollouts.log_probs += 1e-3
    narrow = make(start, clip_low=1e-6, clip_high=1e-6)
    assert relative(gradient(start, lab_loss(narrow, rounded, 0)), reference) < 1e-6
    assert rounded.metrics["clip_ratio/region_mean"] == 0


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_later_update_clips_on_both_sides(start: Policy, batch: RolloutBatch, aggregation: str) -> None:
    moved = copy.deepcopy(start)
    perturb(moved, 0.05, seed=9)
    objective = make(moved, aggregation=aggregation)
    actual = lab_loss(objective, batch, 1)
    expected, above, below, tokens = plain(moved, objective.settings, batch, 1)
    assert above > 0 and below > 0 and above + below < tokens
    assert actual.item() == pytest.approx(expected.item(), abs=1e-6)
    assert relative(gradient(moved, actual), gradient(moved, expected)) < 1e-5
    assert batch.metrics["clip_ratio/region_mean"] == pytest.approx((above + below) / tokens, abs=1e-12)


def test_a_later_update_without_movement_is_on_policy_again(start: Policy, batch: RolloutBatch) -> None:
    """The decoding and the training pass agree, so every ratio is one and nothing is clipped."""
    objective = make(start)
    actual = gradient(start, lab_loss(objective, batch, 1))
    assert batch.metrics["clip_ratio/region_mean"] == 0
    assert relative(actual, gradient(start, plain(start, objective.settings, batch, 1)[0])) < 1e-5


@pytest.mark.parametrize("moved_by", [0.0, 0.05])
@pytest.mark.parametrize("skip", [True, False], ids=["skip", "keep"])
@pytest.mark.parametrize("micro", [1, 2, None])
@pytest.mark.parametrize("update", [0, 1])
def test_micro_batches_and_skipping_change_neither_gradient_nor_metrics(
    start: Policy, batch: RolloutBatch, update: int, micro: int | None, skip: bool, moved_by: float
) -> None:
    policy = copy.deepcopy(start)
    perturb(policy, moved_by, seed=9)
    reference = gradient(policy, lab_loss(make(policy, skip_zero_signal=False), batch, update))
    clipped = batch.metrics["clip_ratio/region_mean"]
    objective = make(policy, micro_batch_prompts=micro, skip_zero_signal=skip)
    assert relative(gradient(policy, lab_loss(objective, batch, update)), reference) < 1e-6
    assert batch.metrics["clip_ratio/region_mean"] == pytest.approx(clipped, abs=1e-12)


def test_a_micro_batch_larger_than_the_update_is_one_batch(start: Policy, batch: RolloutBatch) -> None:
    assert len(list(make(start, micro_batch_prompts=99).losses(batch, 0))) == 1
    assert len(list(make(start, micro_batch_prompts=1, skip_zero_signal=False).losses(batch, 0))) == 2


def test_a_step_without_any_signal_yields_no_loss(start: Policy, batch: RolloutBatch) -> None:
    silent = RolloutBatch(
        prompts=batch.prompts,
        rollouts=batch.rollouts,
        advantages=torch.zeros_like(batch.advantages),
        lengths=batch.lengths,
    )
    assert list(make(start).losses(silent, 0)) == []
    losses = list(make(start, skip_zero_signal=False).losses(silent, 0))
    assert float(gradient(start, torch.stack(losses).sum()).abs().max()) == 0


def test_unjudged_completions_and_those_of_silent_groups_have_no_advantage(
    start: Policy, batch: RolloutBatch
) -> None:
    texts = start.decode(batch.rollouts.tokens, batch.rollouts.mask)
    for text, advantage in zip(texts, batch.advantages.tolist(), strict=True):
        if "q" in text:
            assert advantage == 0
    groups = batch.advantages.double().view(4, 4)
    torch.testing.assert_close(groups.sum(1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-6)


def test_what_the_judge_counted_is_logged_step_by_step(start: Policy) -> None:
    objective = make(start)
    for step in range(6):
        collected = objective.collect(step, Draw(0))
        texts = start.decode(collected.rollouts.tokens, collected.rollouts.mask)
        assert collected.metrics["judge/timeouts"] == sum("q" in text for text in texts)


@pytest.fixture(scope="module")
def collected_step(start: Policy, batch: RolloutBatch) -> int:
    """The step at which `batch` was collected."""
    for step in range(200):
        again = make(start).collect(step, Draw(0))
        if torch.equal(again.prompts.ids, batch.prompts.ids):
            return step
    raise AssertionError("the batch cannot be collected again")


def test_a_step_collected_again_is_the_same(start: Policy, batch: RolloutBatch, collected_step: int) -> None:
    again = make(start).collect(collected_step, Draw(0))
    assert torch.equal(again.rollouts.tokens, batch.rollouts.tokens)
    assert torch.equal(again.rollouts.log_probs, batch.rollouts.log_probs)
    assert torch.equal(again.advantages, batch.advantages)


def test_the_twin_has_the_same_rollouts_and_shuffled_advantages(
    start: Policy, batch: RolloutBatch, collected_step: int
) -> None:
    twin = make(start, permute_advantages=True, updates_per_step=1).collect(collected_step, Draw(0))
    assert torch.equal(twin.rollouts.tokens, batch.rollouts.tokens)
    assert torch.equal(twin.advantages.view(4, 4).sort(1).values, batch.advantages.view(4, 4).sort(1).values)
    assert not torch.equal(twin.advantages, batch.advantages)
    assert twin.metrics["reward"] == batch.metrics["reward"]


def test_flips_change_the_reward_but_not_the_verified_one(
    start: Policy, batch: RolloutBatch, collected_step: int
) -> None:
    flips = {"false_positive": 1.0, "false_negative": 1.0, "per": "rollout"}
    noisy = make(start, flips=flips).collect(collected_step, Draw(0))
    assert noisy.metrics["reward"] == pytest.approx(1 - batch.metrics["reward"])
    assert noisy.metrics["reward_verified"] == batch.metrics["reward_verified"] == batch.metrics["reward"]
    torch.testing.assert_close(noisy.advantages, -batch.advantages)


def test_the_metrics_are_those_of_the_completions(start: Policy, batch: RolloutBatch) -> None:
    objective = make(start)
    texts = start.decode(batch.rollouts.tokens, batch.rollouts.mask)
    keys = [prompt for prompt in start.tokenizer.batch_decode(batch.prompts.ids, skip_special_tokens=True)]
    groups: list[list[float]] = [[], [], [], []]
    unjudged = 0
    for row, text in enumerate(texts):
        symbol = "+" if "+" in keys[row // 4] else "-"
        verdict = objective.task.verify(text, Problem("", "", symbol))
        unjudged += verdict is None
        groups[row // 4] += [] if verdict is None else [float(verdict)]
    flat = [reward for group in groups for reward in group]
    lengths = [int(mask.sum()) for mask in batch.rollouts.mask]
    ended = [start.eos_id in row.tolist() for row in batch.rollouts.tokens]
    prompt_tokens = int(batch.prompts.mask.sum())
    expected = {
        "reward": np.mean(flat),
        "reward_std": np.mean([np.std(group) for group in groups]),
        "frac_reward_zero_std": np.mean([len(set(group)) < 2 for group in groups]),
        "frac_unjudged": unjudged / 16,
        "entropy": float(batch.rollouts.entropies.sum()) / sum(lengths),
        "completions/mean_length": np.mean(lengths),
        "completions/clipped_ratio": 1 - np.mean(ended),
        "num_tokens": sum(lengths) + 4 * prompt_tokens,
    }
    for name, value in expected.items():
        assert batch.metrics[name] == pytest.approx(value, rel=1e-6), name
    assert unjudged > 0 and 0 < expected["completions/clipped_ratio"] < 1
    assert 0 < expected["entropy"] < math.log(len(start.tokenizer))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": 0}, r"objective\.prompts: a step needs"),
        ({"rollouts": 1}, r"objective\.rollouts: a group of 1"),
        ({"rollouts": 1, "advantage_scale": "none"}, r"objective\.rollouts: a group of 1"),
        ({"updates_per_step": 3}, r"objective\.updates_per_step: must divide prompts=4"),
        ({"advantage_scale": "sdt"}, r"objective\.advantage_scale: unknown 'sdt'; did you mean 'std'"),
        ({"advantage_epsilon": -1.0}, r"objective\.advantage_epsilon: must not be negative"),
        ({"clip_low": 0.0}, r"objective\.clip_low: must lie in"),
        ({"clip_high": 0.0}, r"objective\.clip_high: must be positive"),
        ({"micro_batch_prompts": 0}, r"objective\.micro_batch_prompts: must be at least 1"),
        ({"permute_advantages": True}, r"objective\.updates_per_step: a pure-noise twin takes one update"),
        ({"flips": {**NODE["flips"], "per": "token"}}, r"objective\.flips\.per: unknown 'token'"),
        ({"name": "grpo"}, r"objective\.name: unknown 'grpo'"),
    ],
)
def test_an_impossible_setting_is_refused_by_its_full_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        build_objective_settings({**NODE, **changes})


def test_the_flips_are_built_from_the_configuration() -> None:
    settings = build_objective_settings({**NODE, "flips": {**NODE["flips"], "false_positive": 0.25}})
    assert isinstance(settings, RLVRSettings) and settings.flips == RewardFlips(0.25, 0.0, "rollout")


def full_log_probs(policy: Policy, batch: RolloutBatch, row: int, group: int) -> Tensor:
    """Log-distributions [position, vocabulary] that one completion was, or would be, sampled from."""
    prompt = batch.prompts.ids[row // group][batch.prompts.mask[row // group] == 1].tolist()
    completion = batch.rollouts.tokens[row, : int(batch.rollouts.mask[row].sum())].tolist()
    logits = policy.model(input_ids=torch.tensor([prompt + completion]), use_cache=False).logits[0]
    return torch.log_softmax(logits[len(prompt) - 1 : -1] / TEMPERATURE, dim=-1)


def test_the_kl_term_is_the_nonnegative_estimate_over_every_completion(
    start: Policy, batch: RolloutBatch
) -> None:
    objective = make(copy.deepcopy(start), kl_coefficient=0.5)
    perturb(objective.policy, 0.02, seed=9)
    without = make(objective.policy)
    rows = range(8)
    expected = torch.zeros((), dtype=torch.float64)
    total = count = 0.0
    for row in rows:
        length = int(batch.rollouts.mask[row].sum())
        chosen = batch.rollouts.tokens[row, :length, None]
        now = full_log_probs(objective.policy, batch, row, 4).gather(-1, chosen)[:, 0]
        before = full_log_probs(start, batch, row, 4).gather(-1, chosen)[:, 0].detach()
        estimate = (before - now).exp() - (before - now) - 1
        expected = expected + 0.5 * estimate.mean() / len(rows)
        total, count = total + float(estimate.detach().sum()), count + length
    found = gradient(objective.policy, lab_loss(objective, batch, 0) - lab_loss(without, batch, 0))
    torch.testing.assert_close(found, gradient(objective.policy, expected), rtol=2e-4, atol=1e-7)
    assert batch.metrics["kl"] == pytest.approx(total / count, rel=1e-4)
    assert total > 0


def test_at_the_starting_policy_the_kl_term_and_its_gradient_vanish(
    start: Policy, batch: RolloutBatch
) -> None:
    policy = copy.deepcopy(start)
    difference = lab_loss(make(policy, kl_coefficient=1.0), batch, 0) - lab_loss(make(policy), batch, 0)
    assert float(difference.detach()) == pytest.approx(0.0, abs=1e-6)
    assert gradient(policy, difference).abs().max().item() < 1e-6


def test_the_starting_policy_is_neither_trained_nor_saved(start: Policy) -> None:
    plain_names = set(make(start).state_dict())
    assert set(make(start, kl_coefficient=1.0).state_dict()) == plain_names
