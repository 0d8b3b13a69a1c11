"""Mean scores of a language model, against the objective's own gradient and against single rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf


@pytest.fixture(scope="module")
def settings() -> Any:
    from lab.composition import compose
    from lab.training import build_train_settings

    words = ["objective.prompts=4", "objective.rollouts=4", "logger=none"]
    config: Any = OmegaConf.to_container(compose("train", words), resolve=True)
    return build_train_settings(config)


def test_the_drift_is_minus_the_gradient_of_the_objective_on_the_same_rollouts(settings: Any) -> None:
    import torch

    from experiments.mechanism.scores import Source, mean_scores
    from lab.draw import Draw
    from lab.training import build_objective

    objective = build_objective(settings)
    draw = Draw(3)
    source = Source(settings.task, settings.objective, settings.generation, 16)
    found = mean_scores(objective.policy, source, draw, 5)
    batch = objective.collect(5, draw)
    sum(objective.losses(batch, 0)).backward()
    gradient = torch.cat([value.grad.flatten() for value in objective.trainable().values()]).numpy()
    assert np.abs(found.drift).max() > 0
    np.testing.assert_allclose(found.drift, -gradient, rtol=1e-4, atol=1e-6)
    assert found.pass_rate == batch.metrics["reward_verified"]


def test_means_given_right_and_wrong_are_those_of_single_rollouts(settings: Any) -> None:
    """Scores of a step, one backward pass a rollout, through the model's own forward pass."""
    import torch

    from experiments.mechanism.scores import Source, mean_scores
    from lab.draw import Draw
    from lab.objectives.held_out import verify_completions
    from lab.policies import load_policy

    policy = load_policy(settings.policy, 0)
    draw = Draw(3)
    found = mean_scores(policy, Source(settings.task, settings.objective, settings.generation, 16), draw, 1)
    problems = settings.task.draw("train", 4, draw.generator("problem", 1))
    prompts = policy.encode([problem.prompt for problem in problems])
    shape = (4, 4, settings.generation.max_new_tokens)
    sampled = policy.sample(prompts, torch.from_numpy(draw.uniform("rollout", 1, shape).reshape(16, -1)), 1.0)
    right = verify_completions(settings.task, problems, policy.decode(sampled.tokens, sampled.mask)).ravel()
    parameters = list(policy.model.parameters())
    scores = []
    for row in range(16):
        prompt = prompts.ids[row // 4][prompts.mask[row // 4] == 1]
        tokens = sampled.tokens[row][sampled.mask[row]]
        logits = policy.model(torch.cat([prompt, tokens])[None]).logits[0]
        chosen = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(-1, tokens[:, None])
        gradient = torch.autograd.grad(chosen.mean(), parameters)
        scores.append(torch.cat([part.flatten() for part in gradient]).double().numpy())
    table = np.array(scores)
    assert 0 < right.sum() < 16
    np.testing.assert_allclose(found.right, table[right == 1].mean(0), rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(found.wrong, table[right == 0].mean(0), rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(found.vectors["mean"], table.mean(0), rtol=1e-3, atol=2e-5)


def test_the_command_stores_a_run_once_and_refuses_one_without_checkpoints(tmp_path: Path, lab: Any) -> None:
    from experiments.mechanism import language_model
    from lab.errors import BadInput

    done = lab(
        "train", "steps=2", "recorder.checkpoint_every=1", "recorder.every=1", "logger=none", "name=seed_0",
        "objective.prompts=4", "objective.rollouts=4", "evaluation.problems=4", "probes.prompts=2",
    )  # fmt: skip
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "train" / "seed_0"
    steps = language_model.checkpoints_of(run, 1)
    assert steps == [0, 1, 2]
    with pytest.raises(BadInput, match="checkpoint_every"):
        language_model.checkpoints_of(run, 5)
    moments = language_model.along(run, steps, 64)
    assert moments == language_model.along(run, steps, 64)
    summary = language_model.summarise([moments, language_model.along(run, steps, 128)])
    assert summary["cosine_with_start"]["right uncorrected"][0]["mean"] == pytest.approx(1.0)
    assert summary["cosine"]["drift gap uncorrected"][0]["mean"] <= 1.0
