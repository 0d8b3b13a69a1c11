"""RL with verifiable rewards: GRPO and its near relatives.

Surrogate loss of a token with probability ratio r and advantage A: -min(r A, clip(r, 1 - low, 1 + high) A)
(Schulman et al. 2017; group-relative advantages Shao et al. 2024; separate clip bounds Yu et al. 2025). Without a
KL term completions of zero advantage have exactly zero gradient. The KL divergence from the starting policy, where
asked for, is estimated for each token by exp(d) - d - 1 with d = log pi_start - log pi (Schulman 2020, "Approximating
KL divergence": unbiased and never negative).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab.draw import Draw
from lab.errors import RunFailed
from lab.objectives.advantages import group_advantages, permute_within_groups
from lab.objectives.held_out import verify_completions
from lab.objectives.language_model import LanguageModelObjective, token_weights
from lab.objectives.objective import LOWER_THE_RATE, Batch
from lab.objectives.settings import EvaluationSettings, GenerationSettings, ProbeSettings, RLVRSettings
from lab.policies.policy import EncodedPrompts, Policy
from lab.policies.rollout import Rollouts
from lab.tasks import Task


@dataclass
class RolloutBatch(Batch):
    """Rollouts of one step with their advantages; rows are prompt-major."""

    prompts: EncodedPrompts
    rollouts: Rollouts
    advantages: Tensor
    """float32 [row]."""
    lengths: np.ndarray
    """int64 [update, row of all processes]: tokens of each completion of the step."""


class RLVR(LanguageModelObjective):
    """Group-relative policy gradient on a verifiable task.

    Args:
        settings: see `RLVRSettings`.
        policy: the model trained; it also samples, on-policy.
        task: draws the problems and verifies the completions.
        generation: how completions are sampled.
        evaluation: the held-out evaluation.
        probes: the fixed responses.
    """

    def __init__(
        self,
        settings: RLVRSettings,
        policy: Policy,
        task: Task,
        generation: GenerationSettings,
        evaluation: EvaluationSettings,
        probes: ProbeSettings,
    ) -> None:
        super().__init__(policy, task, generation, evaluation, probes)
        self.settings = settings
        self.updates_per_step = settings.updates_per_step
        # In a list, so that the frozen copy is no submodule: it is neither trained nor saved.
        self._start = [copy.deepcopy(policy).requires_grad_(False)] if settings.kl_coefficient > 0 else []

    def collect(self, step: int, draw: Draw) -> RolloutBatch:
        settings = self.settings
        problems = self.task.draw("train", settings.prompts, draw.generator("problem", step))
        own = self.shard.own(settings.prompts, settings.updates_per_step)
        mine = [problems[index] for index in own]
        prompts = self.policy.encode([problem.prompt for problem in mine])
        shape = (settings.prompts, settings.rollouts, self.generation.max_new_tokens)
        uniforms = draw.uniform("rollout", step, shape)[own].reshape(-1, shape[-1])
        sampled = self.sample(prompts, uniforms)
        if bool(sampled.log_probs.isnan().any()):
            raise RunFailed(f"step {step}: the policy's probabilities are not finite; {LOWER_THE_RATE}")
        texts = self.policy.decode(sampled.tokens, sampled.mask)
        before = self.task.judge_counts()
        verified = self._of_all(verify_completions(self.task, mine, texts))
        unjudged = self._counted_since(before)
        rewards = settings.flips.apply(verified, [problem.key for problem in problems], draw, step)
        advantages = group_advantages(rewards, settings.advantage_scale, settings.advantage_epsilon)
        if settings.permute_advantages:
            advantages = permute_within_groups(advantages, draw.uniform("twin", step, advantages.shape))
        tokens = self._of_all(_token_statistics(sampled, prompts, settings.rollouts))
        return RolloutBatch(
            prompts=prompts,
            rollouts=sampled,
            advantages=torch.from_numpy(advantages[own]).float().flatten().to(self.policy.device),
            lengths=tokens["length"].reshape(settings.updates_per_step, -1),
            metrics={**_metrics(verified, rewards, tokens), **unjudged},
        )

    def _of_all(self, values: np.ndarray) -> np.ndarray:
        """Return the rows [prompt, ...] of all processes, given this one's."""
        return self.shard.gather(values, self.settings.updates_per_step)

    def _counted_since(self, before: dict[str, int]) -> dict[str, float]:
        """Return what the task's judge has counted since `before`, in all processes."""
        counts = {
            f"judge/{reason}": count - before[reason] for reason, count in self.task.judge_counts().items()
        }
        return dict(zip(counts, self.shard.sum(*map(float, counts.values())), strict=True)) if counts else {}

    def losses(self, batch: RolloutBatch, update: int) -> Iterator[Tensor]:
        settings = self.settings
        group = settings.rollouts
        prompts_each = len(batch.prompts.ids) // settings.updates_per_step
        first_prompt = update * prompts_each
        lengths = batch.lengths[update]
        weights = token_weights(batch.rollouts.mask, settings.aggregation, len(lengths), int(lengths.sum()))
        chunk = settings.micro_batch_prompts or prompts_each
        skip = settings.skip_zero_signal and settings.kl_coefficient == 0
        clipped = divergence = 0.0
        for start in range(first_prompt, first_prompt + prompts_each, chunk):
            stop = min(start + chunk, first_prompt + prompts_each)
            chosen = torch.arange(start * group, stop * group, device=batch.advantages.device)
            if skip:
                chosen = chosen[batch.advantages[chosen] != 0]
            if len(chosen) == 0:
                if not self.policy.is_sharded:
                    continue
                # Every process has to take part in as many passes: one whose loss is exactly zero.
                chosen = torch.tensor([start * group], device=batch.advantages.device)
            loss, clipped_tokens, kl = self._loss(batch, chosen, weights[chosen], on_policy=update == 0)
            clipped, divergence = clipped + clipped_tokens, divergence + kl
            yield loss
        clipped, divergence = self.shard.sum(clipped, divergence)
        batch.metrics["clip_ratio/region_mean"] = clipped / float(lengths.sum())
        if settings.kl_coefficient > 0:
            batch.metrics["kl"] = divergence / float(lengths.sum())

    def _loss(
        self, batch: RolloutBatch, rows: Tensor, weights: Tensor, on_policy: bool
    ) -> tuple[Tensor, float, float]:
        """Return the loss of some rows, and sums over their tokens: how many were clipped, and the KL."""
        sampled = batch.rollouts
        used = torch.unique(rows // self.settings.rollouts)
        owner = torch.searchsorted(used, rows // self.settings.rollouts)
        width = int(sampled.mask[rows].any(0).sum())
        mask = sampled.mask[rows, :width]
        completions = (
            EncodedPrompts(batch.prompts.ids[used], batch.prompts.mask[used]),
            owner,
            sampled.tokens[rows, :width],
            mask,
            self.generation.temperature,
        )
        log_probs = self.policy.completion_log_probs(*completions)
        # The first update is on-policy by construction: its ratio is exactly one, whatever the rounding
        # between the decoding and the training forward pass.
        old = log_probs.detach() if on_policy else sampled.log_probs[rows, :width]
        ratio = (log_probs - old).exp()
        advantages = batch.advantages[rows, None]
        bounded = ratio.clamp(1 - self.settings.clip_low, 1 + self.settings.clip_high)
        surrogate = torch.minimum(ratio * advantages, bounded * advantages)
        loss = -(surrogate * weights[:, :width]).sum()
        divergence = 0.0
        if self._start:
            start = self._start[0].to(self.policy.device)
            with torch.no_grad():
                gap = start.completion_log_probs(*completions)
            gap = gap - log_probs
            estimate = gap.exp() - gap - 1
            loss = loss + self.settings.kl_coefficient * (estimate * weights[:, :width]).sum()
            divergence = float((estimate.detach() * mask).sum())
        clipped = float(((bounded * advantages < ratio * advantages) & mask).sum())
        return loss, clipped, divergence


def _token_statistics(sampled: Rollouts, prompts: EncodedPrompts, group: int) -> np.ndarray:
    """Return length, summed entropy, whether finished, and prompt length of each rollout, [prompt, rollout]."""
    columns = np.zeros(
        (len(prompts.ids), group),
        dtype=[("length", np.int64), ("entropy", np.float64), ("finished", np.bool_), ("prompt", np.int64)],
    )
    shape = columns.shape
    columns["length"] = sampled.lengths.cpu().numpy().reshape(shape)
    columns["entropy"] = sampled.entropies.double().sum(-1).cpu().numpy().reshape(shape)
    columns["finished"] = sampled.finished.cpu().numpy().reshape(shape)
    columns["prompt"] = prompts.lengths.cpu().numpy()[:, None]
    return columns


def _metrics(verified: np.ndarray, rewards: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
    judged = ~np.isnan(rewards)
    filled = np.where(judged, rewards, 0.0)
    count = np.maximum(judged.sum(1), 1)
    spread = np.sqrt(np.maximum((filled**2).sum(1) / count - (filled.sum(1) / count) ** 2, 0.0))
    return {
        "reward": float(filled.sum() / max(judged.sum(), 1)),
        "reward_std": float(spread.mean()),
        "reward_verified": float(np.nansum(verified) / max((~np.isnan(verified)).sum(), 1)),
        "frac_reward_zero_std": float((spread < 1e-9).mean()),
        "frac_unjudged": float(1.0 - judged.mean()),
        "entropy": float(tokens["entropy"].sum() / tokens["length"].sum()),
        "completions/mean_length": float(tokens["length"].mean()),
        "completions/clipped_ratio": float(1.0 - tokens["finished"].mean()),
        "num_tokens": float(tokens["length"].sum() + tokens["prompt"].sum()),
    }
