"""What all objectives over a causal language model share: probes, evaluation, saving, token losses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lab.draw import Draw
from lab.objectives.held_out import evaluate_policy, held_out_problems
from lab.objectives.objective import Objective
from lab.objectives.settings import Aggregation, EvaluationSettings, GenerationSettings, ProbeSettings
from lab.policies.policy import EncodedPrompts, Policy
from lab.policies.rollout import Rollouts
from lab.sharded_weights import whole_state
from lab.tasks import Problem, Task


class LanguageModelObjective(Objective):
    """Common part of the objectives that train a policy on a task."""

    def __init__(
        self,
        policy: Policy,
        task: Task,
        generation: GenerationSettings,
        evaluation: EvaluationSettings,
        probes: ProbeSettings,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.task = task
        self.generation = generation
        self.evaluation = evaluation
        self.probes = probes
        self._held_out: list[Problem] | None = None

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.policy.model.named_parameters() if value.requires_grad}

    def shard_weights(self) -> None:
        self.policy.shard_weights()

    def whole_state(self) -> Mapping[str, Tensor] | None:
        return whole_state(self.policy.model) if self.policy.is_sharded else None

    def check(self, draw: Draw) -> None:
        """Look at prompts of both splits: characters without a token, room for completions."""
        generator = draw.generator("check")
        problems = [*self.task.draw("train", 32, generator), *self.task.draw("held_out", 32, generator)]
        prompts = self.policy.encode([problem.prompt for problem in problems])
        self.policy.check_context(prompts, self.generation.max_new_tokens)

    def sample(self, prompts: EncodedPrompts, uniforms: np.ndarray) -> Rollouts:
        """Sample completions at the training temperature; `uniforms` is float64 [row, token]."""
        return self.policy.sample(prompts, torch.from_numpy(uniforms), self.generation.temperature)

    def prepare_probes(self, draw: Draw) -> dict[str, np.ndarray]:
        """Sample the fixed responses from the policy as it is now.

        Returns:
            `prompt_text`, `prompt_key` [prompt]; `response_text` [prompt, rollout]; `tokens` int64 and
            `mask` bool [row, position], rows prompt-major.
        """
        problems = self.task.draw_distinct("held_out", self.probes.prompts, draw.generator("probe_problem"))
        prompts = self.policy.encode([problem.prompt for problem in problems])
        shape = (len(problems), self.probes.responses, self.generation.max_new_tokens)
        uniforms = draw.uniform("probe_response", 0, shape).reshape(-1, shape[-1])
        sampled = self.sample(prompts, uniforms)
        texts = self.policy.decode(sampled.tokens, sampled.mask)
        return {
            "prompt_text": np.array([problem.prompt for problem in problems]),
            "prompt_key": np.array([problem.key for problem in problems]),
            "response_text": np.array(texts).reshape(len(problems), -1),
            "tokens": sampled.tokens.cpu().numpy(),
            "mask": sampled.mask.cpu().numpy(),
        }

    @torch.no_grad()
    def observe(self, probes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return `log_prob`, float32 [token]: teacher-forced, at temperature 1, rows in order."""
        prompts = self.policy.encode([str(text) for text in probes["prompt_text"]])
        tokens = torch.from_numpy(probes["tokens"]).to(self.policy.device)
        mask = torch.from_numpy(probes["mask"]).to(self.policy.device)
        owner = torch.arange(len(prompts.ids)).repeat_interleave(len(tokens) // len(prompts.ids))
        log_probs = self.policy.completion_log_probs(prompts, owner.to(tokens.device), tokens, mask)
        return {"log_prob": log_probs[mask].float().cpu().numpy()}

    def evaluate(self, draw: Draw) -> dict[str, np.ndarray]:
        """See `lab.objectives.held_out.evaluate_policy`."""
        if self._held_out is None:
            self._held_out = held_out_problems(self.task, self.evaluation, draw)
        return evaluate_policy(self.policy, self.task, self._held_out, self.generation, self.evaluation, draw)

    def save_pretrained(self, directory: Any, state: Mapping[str, Tensor] | None = None) -> None:
        self.policy.save(Path(directory), state)


def token_weights(mask: Tensor, aggregation: Aggregation, rows: int, tokens: int) -> Tensor:
    """Return the weight of each token in a loss, so that the loss is the weighted sum over all tokens.

    Args:
        mask: bool [row, position]: some or all completions of the update.
        aggregation: `token_mean` 1 / all tokens; `sequence_mean` 1 / (rows x tokens of the row);
            `sequence_sum` 1 / rows.
        rows: completions of the whole update, those without signal and those of other processes included.
        tokens: tokens of the whole update, likewise.

    Returns:
        float32 [row, position], 0 where masked.
    """
    kept = mask.float()
    if aggregation == "token_mean":
        return kept / max(tokens, 1)
    if aggregation == "sequence_mean":
        return kept / kept.sum(-1, keepdim=True).clamp_min(1) / rows
    return kept / rows
