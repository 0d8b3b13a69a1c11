"""Supervised fine-tuning on the tasks' own answers, with optional token sign noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lab.draw import Draw
from lab.errors import BadInput
from lab.objectives.language_model import LanguageModelObjective, token_weights
from lab.objectives.objective import Batch
from lab.objectives.settings import EvaluationSettings, GenerationSettings, ProbeSettings, SFTSettings
from lab.policies.policy import EncodedPrompts, Policy
from lab.tasks import Problem, Task


@dataclass
class ExampleBatch(Batch):
    """Prompts with their right answers; rows and prompts are the same."""

    prompts: EncodedPrompts
    tokens: Tensor
    """int64 [row, position]."""
    mask: Tensor
    """bool [row, position]."""
    weights: Tensor
    """float32 [row, position], 0 where masked: aggregation times sign noise."""
    all_tokens: int
    """Answer tokens of the step, those of other processes included."""


class SFT(LanguageModelObjective):
    """Cross-entropy of the right answer (end token included) given the prompt.

    Args:
        settings: see `SFTSettings`.
        policy: the model trained.
        task: draws the problems.
        generation: how completions are sampled for probes and evaluation.
        evaluation: the held-out evaluation.
        probes: the fixed responses.
    """

    def __init__(
        self,
        settings: SFTSettings,
        policy: Policy,
        task: Task,
        generation: GenerationSettings,
        evaluation: EvaluationSettings,
        probes: ProbeSettings,
    ) -> None:
        super().__init__(policy, task, generation, evaluation, probes)
        self.settings = settings

    def check(self, draw: Draw) -> None:
        """See `LanguageModelObjective.check`; the answers have to fit as well."""
        super().check(draw)
        self.collect(0, draw)

    def examples(self, step: int, draw: Draw) -> tuple[list[Problem], list[str]]:
        """Return the problems of a step and the completion that each is trained on, those of all processes."""
        problems = self.task.draw("train", self.settings.examples, draw.generator("problem", step))
        return problems, [problem.answer for problem in problems]

    def collect(self, step: int, draw: Draw) -> ExampleBatch:
        problems, completions = self.examples(step, draw)
        own = self.shard.own(len(problems))
        prompts = self.policy.encode([problems[index].prompt for index in own])
        tokens, mask = self.policy.encode_completions(completions)
        self._check_context(prompts, tokens)
        noise = self.settings.sign_noise.weights(tuple(tokens.shape), draw, step)
        weights = token_weights(mask, self.settings.aggregation, len(mask), int(mask.sum()))
        (prompt_tokens,) = self.shard.sum(float(prompts.mask.sum()))
        return ExampleBatch(
            prompts=prompts,
            tokens=tokens[own],
            mask=mask[own],
            weights=(weights * torch.from_numpy(noise).to(weights))[own],
            all_tokens=int(mask.sum()),
            metrics={
                "completions/mean_length": float(mask.sum(-1).float().mean()),
                "num_tokens": float(mask.sum()) + prompt_tokens,
            },
        )

    def _check_context(self, prompts: EncodedPrompts, tokens: Tensor) -> None:
        context, longest = self.policy.context, prompts.ids.shape[1] + tokens.shape[1]
        if context is not None and longest > context:
            raise BadInput(
                f"task: prompts and answers of up to {longest} tokens exceed the model's context of "
                f"{context}; shorten task.prompt or the numbers"
            )

    def losses(self, batch: ExampleBatch, update: int) -> Iterator[Tensor]:
        count = len(batch.tokens)
        chunk = self.settings.micro_batch_prompts or count
        correct = 0.0
        for start in range(0, count, chunk):
            rows = slice(start, start + chunk)
            log_probs = self.policy.completion_log_probs(
                EncodedPrompts(batch.prompts.ids[rows], batch.prompts.mask[rows]),
                torch.arange(len(batch.tokens[rows]), device=batch.tokens.device),
                batch.tokens[rows],
                batch.mask[rows],
            )
            correct += float(log_probs.detach().sum())
            yield -(log_probs * batch.weights[rows]).sum()
        (correct,) = self.shard.sum(correct)
        batch.metrics["cross_entropy"] = -correct / batch.all_tokens
