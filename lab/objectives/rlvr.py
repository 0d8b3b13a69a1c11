"""RL with verifiable rewards: GRPO and its near relatives.

Surrogate loss of a token with probability ratio r and advantage A: -min(r A, clip(r, 1 - low, 1 + high) A)
(Schulman et al. 2017; group-relative advantages Shao et al. 2024; separate clip bounds Yu et al. 2025). No KL
and no entropy term, so completions of zero advantage have exactly zero gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab.draw import Draw
from lab.objectives.advantages import group_advantages, permute_within_groups
from lab.objectives.held_out import verify_completions
from lab.objectives.language_model import LanguageModelObjective, token_weights
from lab.objectives.objective import Batch
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

    def collect(self, step: int, draw: Draw) -> RolloutBatch:
        settings = self.settings
        problems = self.task.draw("train", settings.prompts, draw.generator("problem", step))
        prompts = self.policy.encode([problem.prompt for problem in problems])
        shape = (settings.prompts, settings.rollouts, self.generation.max_new_tokens)
        uniforms = draw.uniform("rollout", step, shape).reshape(-1, shape[-1])
        sampled = self.sample(prompts, uniforms)
        texts = self.policy.decode(sampled.tokens, sampled.mask)
        verified = verify_completions(self.task, problems, texts)
        rewards = settings.flips.apply(verified, [problem.key for problem in problems], draw, step)
        advantages = group_advantages(rewards, settings.advantage_scale, settings.advantage_epsilon)
        if settings.permute_advantages:
            advantages = permute_within_groups(advantages, draw.uniform("twin", step, advantages.shape))
        return RolloutBatch(
            prompts=prompts,
            rollouts=sampled,
            advantages=torch.from_numpy(advantages).float().flatten().to(self.policy.device),
            metrics=_metrics(verified, rewards, sampled, prompts),
        )

    def losses(self, batch: RolloutBatch, update: int) -> Iterator[Tensor]:
        settings = self.settings
        group = settings.rollouts
        prompts_each = settings.prompts // settings.updates_per_step
        first_prompt = update * prompts_each
        rows = torch.arange(first_prompt * group, (first_prompt + prompts_each) * group)
        weights = torch.zeros_like(batch.rollouts.log_probs)
        weights[rows] = token_weights(batch.rollouts.mask[rows], settings.aggregation)
        chunk = settings.micro_batch_prompts or prompts_each
        clipped = 0.0
        for start in range(first_prompt, first_prompt + prompts_each, chunk):
            stop = min(start + chunk, first_prompt + prompts_each)
            chosen = torch.arange(start * group, stop * group, device=batch.advantages.device)
            if settings.skip_zero_signal:
                chosen = chosen[batch.advantages[chosen] != 0]
            if len(chosen) == 0:
                continue
            loss, clipped_tokens = self._loss(batch, chosen, weights[chosen], on_policy=update == 0)
            clipped += clipped_tokens
            yield loss
        batch.metrics["clip_ratio/region_mean"] = clipped / float(batch.rollouts.mask[rows].sum())

    def _loss(
        self, batch: RolloutBatch, rows: Tensor, weights: Tensor, on_policy: bool
    ) -> tuple[Tensor, float]:
        sampled = batch.rollouts
        used = torch.unique(rows // self.settings.rollouts)
        owner = torch.searchsorted(used, rows // self.settings.rollouts)
        width = int(sampled.mask[rows].any(0).sum())
        mask = sampled.mask[rows, :width]
        log_probs = self.policy.completion_log_probs(
            EncodedPrompts(batch.prompts.ids[used], batch.prompts.mask[used]),
            owner,
            sampled.tokens[rows, :width],
            mask,
            self.generation.temperature,
        )
        # The first update is on-policy by construction: its ratio is exactly one, whatever the rounding
        # between the decoding and the training forward pass.
        old = log_probs.detach() if on_policy else sampled.log_probs[rows, :width]
        ratio = (log_probs - old).exp()
        advantages = batch.advantages[rows, None]
        bounded = ratio.clamp(1 - self.settings.clip_low, 1 + self.settings.clip_high)
        surrogate = torch.minimum(ratio * advantages, bounded * advantages)
        loss = -(surrogate * weights[:, :width]).sum()
        return loss, float(((bounded * advantages < ratio * advantages) & mask).sum())


def _metrics(
    verified: np.ndarray, rewards: np.ndarray, sampled: Rollouts, prompts: EncodedPrompts
) -> dict[str, float]:
    judged = ~np.isnan(rewards)
    filled = np.where(judged, rewards, 0.0)
    count = np.maximum(judged.sum(1), 1)
    spread = np.sqrt(np.maximum((filled**2).sum(1) / count - (filled.sum(1) / count) ** 2, 0.0))
    tokens = sampled.mask.sum()
    lengths = sampled.lengths.float()
    return {
        "reward": float(filled.sum() / max(judged.sum(), 1)),
        "reward_std": float(spread.mean()),
        "reward_verified": float(np.nansum(verified) / max((~np.isnan(verified)).sum(), 1)),
        "frac_reward_zero_std": float((spread < 1e-9).mean()),
        "frac_unjudged": float(1.0 - judged.mean()),
        "entropy": float(sampled.entropies.sum() / tokens),
        "completions/mean_length": float(lengths.mean()),
        "completions/clipped_ratio": float((~sampled.finished).float().mean()),
        "num_tokens": float(tokens + prompts.mask.sum() * (len(lengths) // len(prompts.ids))),
    }
