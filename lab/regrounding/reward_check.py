"""The held-out reward check of an adaptive schedule: problems that the run neither trains nor is tested on."""

from __future__ import annotations

import numpy as np
import torch

from lab.draw import Draw
from lab.errors import BadInput
from lab.linearity.checks import FloatArray
from lab.objectives.held_out import held_out_problems, verify_completions
from lab.objectives.language_model import LanguageModelObjective
from lab.regrounding.regrounder import CheckScores
from lab.regrounding.settings import CheckSettings
from lab.tasks import Problem


class RewardCheck:
    """Samples the policy on its own held-out problems, at the training temperature.

    Args:
        objective: holds policy and task.
        settings: how many problems and completions.
        draw: randomness of the run.

    Raises:
        BadInput: the task has too few held-out problems besides the test problems.
    """

    def __init__(self, objective: LanguageModelObjective, settings: CheckSettings, draw: Draw) -> None:
        self._objective = objective
        self._settings = settings
        self._draw = draw
        self.problems = check_problems(objective, settings, draw)

    @torch.no_grad()
    def __call__(self, step: int) -> CheckScores:
        """Score the policy as it is; two calls at one step have the same random numbers."""
        objective, count = self._objective, len(self.problems)
        prompts = objective.policy.encode([problem.prompt for problem in self.problems])
        shape = (count, self._settings.rollouts, objective.generation.max_new_tokens)
        uniforms = self._draw.uniform("regrounding_check", step, shape).reshape(-1, shape[-1])
        sampled = objective.sample(prompts, uniforms)
        texts = objective.policy.decode(sampled.tokens, sampled.mask)
        scores = _row_means(verify_completions(objective.task, self.problems, texts))
        if objective.shard.world > 1:  # rounding may differ between processes, and their verdicts must not
            scores = np.array(objective.shard.sum(*scores)) / objective.shard.world
        return CheckScores(scores, len(texts), int(sampled.mask.sum()))


def check_problems(objective: LanguageModelObjective, settings: CheckSettings, draw: Draw) -> list[Problem]:
    """Return held-out problems, different ones and none of the run's test problems.

    Raises:
        BadInput: the task has not enough of them.
    """
    task = objective.task
    tested = {problem.key for problem in held_out_problems(task, objective.evaluation, draw)}
    generator = draw.generator("regrounding_check_problem")
    candidates = task.draw_distinct("held_out", settings.problems + len(tested), generator)
    found = [problem for problem in candidates if problem.key not in tested][: settings.problems]
    if len(found) < settings.problems:
        raise BadInput(
            f"regrounding.reward_check.problems: {settings.problems} asked for, but beside the {len(tested)} test "
            f"problems the task has {len(found)} held-out ones; lower it or evaluation.problems, or raise "
            "task.held_out_share"
        )
    return found


@torch.no_grad()
def outputs_are_finite(objective: LanguageModelObjective) -> bool:
    """Return whether the policy still gives a probability to one token after one prompt: one short forward pass."""
    problem = objective.task.draw("train", 1, np.random.default_rng(0))[0]
    prompts = objective.policy.encode([problem.prompt])
    tokens = prompts.ids[:, -1:]
    owner = torch.zeros(1, dtype=torch.long, device=tokens.device)
    log_probs = objective.policy.completion_log_probs(
        prompts, owner, tokens, torch.ones_like(tokens, dtype=torch.bool)
    )
    return bool(torch.isfinite(log_probs).all())


def _row_means(correct: FloatArray) -> FloatArray:
    judged = np.isfinite(correct)
    counts = judged.sum(1)
    sums = np.where(judged, correct, 0.0).sum(1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
