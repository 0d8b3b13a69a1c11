"""Sampling a policy on held-out problems and verifying what it writes."""

from __future__ import annotations

import numpy as np
import torch

from lab.draw import Draw
from lab.objectives.settings import EvaluationSettings, GenerationSettings
from lab.policies.policy import Policy
from lab.tasks import Problem, Task

SHOWN_SAMPLES = 8


def held_out_problems(task: Task, evaluation: EvaluationSettings, draw: Draw) -> list[Problem]:
    """Return the run's held-out problems; they depend on the task and the root seed alone."""
    return task.draw_distinct("held_out", evaluation.problems, draw.generator("evaluation_problem"))


def evaluate_policy(
    policy: Policy,
    task: Task,
    problems: list[Problem],
    generation: GenerationSettings,
    evaluation: EvaluationSettings,
    draw: Draw,
) -> dict[str, np.ndarray]:
    """Sample completions of held-out problems and verify them.

    The uniforms depend on the root seed alone: two evaluations under one seed differ only by the policy
    (common random numbers).

    Returns:
        `correct`, float64 [problem, rollout] in {0, 1}, NaN where a completion was not judged; for people to
        read, `sample_prompt` and `sample_completion` [sample], the first completion of the first problems.

    Raises:
        BadInput: a prompt and its completion could be longer than the model's context.
    """
    prompts = policy.encode([problem.prompt for problem in problems])
    shape = (len(problems), evaluation.rollouts, generation.max_new_tokens)
    uniforms = draw.uniform("evaluation_rollout", 0, shape).reshape(-1, shape[-1])
    sampled = policy.sample(prompts, torch.from_numpy(uniforms), evaluation.temperature)
    texts = policy.decode(sampled.tokens, sampled.mask)
    shown = problems[:SHOWN_SAMPLES]
    return {
        "correct": verify_completions(task, problems, texts),
        "sample_prompt": np.array([problem.prompt for problem in shown]),
        "sample_completion": np.array(texts[:: evaluation.rollouts][: len(shown)]),
    }


def verify_completions(task: Task, problems: list[Problem], texts: list[str]) -> np.ndarray:
    """Return the verified rewards, float64 [prompt, rollout]; NaN where a completion was not judged.

    Args:
        task: verifies.
        problems: one for each prompt.
        texts: completions, prompt-major, equally many for each prompt.
    """
    per_problem = len(texts) // len(problems)
    verdicts = [task.verify(text, problems[index // per_problem]) for index, text in enumerate(texts)]
    values = [np.nan if verdict is None else float(verdict) for verdict in verdicts]
    return np.array(values).reshape(len(problems), per_problem)
