"""Supervised fine-tuning on the policy's own correct completions: rejection-sampling fine-tuning.

It has RL's source of data and SFT's loss, so that it tells the two apart. Completions are sampled at each step from
the policy as it is (fresh) or from the policy at the start (frozen), verified, and of each problem the first right one
is kept (Yuan et al. 2023, arXiv 2308.01825). A problem without one leaves its place to another that has one, drawn with
replacement, so that every step trains on as many examples.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from lab.draw import Draw
from lab.errors import RunFailed
from lab.objectives.held_out import verify_completions
from lab.objectives.settings import EvaluationSettings, GenerationSettings, OwnSFTSettings, ProbeSettings
from lab.objectives.sft import SFT
from lab.policies.policy import Policy
from lab.tasks import Problem, Task


class OwnSFT(SFT):
    """SFT whose completions the policy wrote; arguments as `SFT`.

    Every process samples for all problems, so that all agree on which completions are right.
    """

    settings: OwnSFTSettings

    def __init__(
        self,
        settings: OwnSFTSettings,
        policy: Policy,
        task: Task,
        generation: GenerationSettings,
        evaluation: EvaluationSettings,
        probes: ProbeSettings,
    ) -> None:
        super().__init__(settings, policy, task, generation, evaluation, probes)
        # In a list, so that the frozen copy is no submodule: it is neither trained nor saved.
        self._writer = [
            copy.deepcopy(policy).requires_grad_(False) if settings.source == "frozen" else policy
        ]

    def examples(self, step: int, draw: Draw) -> tuple[list[Problem], list[str]]:
        """See `SFT.examples`.

        Raises:
            RunFailed: not one completion of the step was right.
        """
        problems = self.task.draw("train", self.settings.examples, draw.generator("problem", step))
        writer = self._writer[0]
        if writer is not self.policy:  # no submodule, so that it does not move along by itself
            writer.to(self.policy.device)
        shape = (len(problems), self.settings.rollouts, self.generation.max_new_tokens)
        uniforms = torch.from_numpy(draw.uniform("rollout", step, shape).reshape(-1, shape[-1]))
        prompts = writer.encode([problem.prompt for problem in problems])
        sampled = writer.sample(prompts, uniforms, self.generation.temperature)
        texts = writer.decode(sampled.tokens, sampled.mask)
        right = (
            verify_completions(self.task, problems, texts) == 1
        ) & sampled.finished.cpu().numpy().reshape(shape[:2])
        solved = np.flatnonzero(right.any(axis=1))
        if len(solved) == 0:
            raise RunFailed(
                f"step {step}: none of {len(texts)} completions was right, so there is nothing to train on; raise "
                "objective.rollouts, or take an easier task"
            )
        others = draw.generator("own_sft", step).choice(solved, size=len(problems))
        chosen = np.where(right.any(axis=1), np.arange(len(problems)), others)
        first = right.argmax(axis=1)
        return (
            [problems[index] for index in chosen],
            [texts[index * shape[1] + first[index]] for index in chosen],
        )
