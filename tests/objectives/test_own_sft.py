"""SFT on the policy's own correct completions: what is kept, who writes it, when there is nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lab.draw import Draw
from lab.errors import RunFailed
from lab.objectives.own_sft import OwnSFT
from lab.objectives.settings import (
    EvaluationSettings,
    GenerationSettings,
    ProbeSettings,
    build_objective_settings,
)
from lab.policies import build_policy_settings, load_policy
from lab.tasks import build_task

NODE: dict[str, Any] = {
    "name": "own_sft",
    "examples": 24,
    "aggregation": "token_mean",
    "micro_batch_prompts": None,
    "sign_noise": {
        "signal_amplitude": 1.0,
        "noise_amplitude": 0.0,
        "snr_db": None,
        "normalisation": "fixed_signal",
    },
    "source": "fresh",
    "rollouts": 3,
}
TASK = {"name": "addition", "prompt": "{expression}=", "held_out_share": 0.1, "digits": 2, "terms": 2}


def make(**changes: Any) -> OwnSFT:
    """On two-digit sums, of which the built-in policy gets a third right."""
    settings: Any = build_objective_settings({**NODE, **changes})
    return OwnSFT(
        settings,
        load_policy(build_policy_settings({"name": "tiny"}), seed=0),
        build_task(TASK),
        GenerationSettings(5, 1.0),
        EvaluationSettings(1, 1, 1.0),
        ProbeSettings(1, 1),
    )


@pytest.fixture(scope="module")
def fresh() -> OwnSFT:
    return make()


def test_every_example_is_right_and_solved_problems_keep_their_place(fresh: OwnSFT) -> None:
    drawn = fresh.task.draw("train", 24, Draw(0).generator("problem", 0))
    problems, completions = fresh.examples(0, Draw(0))
    assert len(problems) == len(completions) == 24
    assert all(
        fresh.task.verify(text, problem) == 1 for problem, text in zip(problems, completions, strict=True)
    )
    kept = [problem.key == before.key for problem, before in zip(problems, drawn, strict=True)]
    assert 0 < sum(kept) < 24
    solved = {problem.key for problem, stays in zip(problems, kept, strict=True) if stays}
    assert {problem.key for problem in problems} == solved, "an unsolved problem gives way to a solved one"


def test_a_step_is_a_function_of_seed_and_step(fresh: OwnSFT) -> None:
    def keys(step: int, seed: int) -> list[str]:
        return [problem.key for problem in fresh.examples(step, Draw(seed))[0]]

    assert keys(3, 0) == keys(3, 0)
    assert keys(3, 0) != keys(4, 0)
    assert keys(3, 0) != keys(3, 1)


@pytest.mark.parametrize("source", ["fresh", "frozen"])
def test_who_writes(source: str) -> None:
    objective = make(source=source)
    before = objective.examples(0, Draw(0))
    with torch.no_grad():  # what training might do, only worse
        for parameter in objective.trainable().values():
            parameter.zero_()
    if source == "frozen":
        assert objective.examples(0, Draw(0)) == before
    else:
        with pytest.raises(RunFailed, match="none of 72 completions was right"):
            objective.examples(0, Draw(0))


def test_the_frozen_writer_is_neither_trained_nor_saved() -> None:
    fresh, frozen = make(), make(source="frozen")
    assert frozen.trainable().keys() == fresh.trainable().keys()
    assert frozen.state_dict().keys() == fresh.state_dict().keys()


def test_the_loss_is_the_cross_entropy_of_the_examples(fresh: OwnSFT) -> None:
    batch = fresh.collect(0, Draw(0))
    loss = sum(float(part.detach()) for part in fresh.losses(batch, 0))
    problems, completions = fresh.examples(0, Draw(0))
    total = tokens = 0.0
    for problem, text in zip(problems, completions, strict=True):
        prompt, answer = (
            fresh.policy.encode([problem.prompt]).ids[0],
            fresh.policy.encode_completions([text])[0][0],
        )
        with torch.no_grad():
            logits = fresh.policy.model(input_ids=torch.cat([prompt, answer])[None]).logits[0]
        log_probs = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
        total -= float(log_probs.gather(-1, answer[:, None]).sum())
        tokens += len(answer)
    assert loss == pytest.approx(total / tokens, rel=1e-4)
