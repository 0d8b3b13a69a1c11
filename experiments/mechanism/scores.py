"""Mean scores of a language model's rollouts: given right, given wrong, and weighted by GRPO's advantages.

The score of a rollout is the gradient that it contributes: of its log-probability, tokens weighted as the objective
weights them. One batch gives one estimate of each mean; squares and cosines take two independent ones
(`experiments.mechanism.estimates`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lab.draw import Draw
from lab.objectives.advantages import group_advantages
from lab.objectives.held_out import verify_completions
from lab.objectives.language_model import token_weights
from lab.objectives.settings import GenerationSettings, RLVRSettings
from lab.policies.policy import EncodedPrompts, Policy
from lab.tasks import Task

_ROLLOUTS_AT_A_TIME = 1024


@dataclass(frozen=True)
class MeanScores:
    """Estimates from one batch; vectors are float64 [parameter], all trained parameters in the model's order."""

    pass_rate: float
    right: np.ndarray
    """Mean score of the right rollouts; NaN without one."""
    wrong: np.ndarray
    """Mean score of the wrong ones."""
    drift: np.ndarray
    """Mean of advantage times score: the direction of GRPO's update, minus its gradient."""

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """By name: `right`, `wrong`, their `gap`, the `mean` score, and the `drift`."""
        mean = self.pass_rate * self.right + (1 - self.pass_rate) * self.wrong
        gap = self.right - self.wrong
        return {"right": self.right, "wrong": self.wrong, "gap": gap, "mean": mean, "drift": self.drift}


@dataclass(frozen=True)
class Source:
    """Where batches come from: all but the policy's weights and the randomness."""

    task: Task
    objective: RLVRSettings
    generation: GenerationSettings
    rollouts: int
    """Rollouts of a batch; the objective's group divides it."""


def mean_scores(policy: Policy, source: Source, draw: Draw, step: int, role: str = "") -> MeanScores:
    """Draw prompts and rollouts and return their mean scores.

    Args:
        policy: as it is; its parameters are left as they are, their gradients cleared.
        source: task, group, weights of tokens, size.
        draw: root of the randomness.
        step: batches of different steps are independent,
        role: and so are those of different roles.
    """
    group = source.objective.rollouts
    count = source.rollouts // group
    problems = source.task.draw("train", count, draw.generator(f"{role}problem", step))
    prompts = policy.encode([problem.prompt for problem in problems])
    shape = (count, group, source.generation.max_new_tokens)
    uniforms = torch.from_numpy(draw.uniform(f"{role}rollout", step, shape).reshape(-1, shape[-1]))
    sampled = policy.sample(prompts, uniforms, source.generation.temperature)
    texts = policy.decode(sampled.tokens, sampled.mask)
    right = verify_completions(source.task, problems, texts)
    settings = source.objective
    advantages = group_advantages(right, settings.advantage_scale, settings.advantage_epsilon)
    rows = right.size
    weights = token_weights(sampled.mask, settings.aggregation, rows, int(sampled.mask.sum()))
    parameters = [value for value in policy.model.parameters() if value.requires_grad]
    totals = torch.zeros(3, sum(value.numel() for value in parameters), dtype=torch.float64)
    kinds = np.stack([right.ravel(), 1 - right.ravel(), advantages.ravel()])
    chunk = max(_ROLLOUTS_AT_A_TIME // group, 1)
    for first in range(0, count, chunk):
        last = min(first + chunk, count)
        chosen = slice(first * group, last * group)
        mask = sampled.mask[chosen]
        log_probs = policy.completion_log_probs(
            EncodedPrompts(prompts.ids[first:last], prompts.mask[first:last]),
            torch.arange(last - first).repeat_interleave(group).to(mask.device),
            sampled.tokens[chosen],
            mask,
            source.generation.temperature,
        )
        scored = (log_probs * weights[chosen]).sum(-1)
        for index, kind in enumerate(kinds):
            factor = torch.from_numpy(kind[chosen]).to(scored)
            gradient = torch.autograd.grad((factor * scored).sum(), parameters, retain_graph=True)
            totals[index] += torch.cat([part.double().flatten().cpu() for part in gradient])
    sums = totals.numpy()
    rate = float(right.mean())
    with np.errstate(invalid="ignore", divide="ignore"):
        return MeanScores(rate, sums[0] / rate, sums[1] / (1 - rate), sums[2])
