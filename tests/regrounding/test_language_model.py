"""Re-grounding of the built-in language model: the reward check, resuming, averaging, what a jump costs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.kill_resume import kill_resume
from experiments.kill_resume.kill_resume import Process, differences
from lab.composition import compose
from lab.draw import Draw
from lab.errors import BadInput
from lab.module import LabModule
from lab.objectives.held_out import held_out_problems
from lab.objectives.language_model import LanguageModelObjective
from lab.regrounding import build_regrounding_settings
from lab.regrounding.callback import build_callback
from lab.regrounding.regrounder import CheckScores, Regrounder
from lab.regrounding.reward_check import RewardCheck, check_problems, outputs_are_finite
from lab.regrounding.settings import BlockSettings, CheckSettings
from lab.training import build_objective, build_train_settings
from lab.trajectory.store import group, open_store

SMALL = (
    "name=a",
    "steps=9",
    "recorder.every=3",
    "recorder.save_every=3",
    "recorder.update_coordinates=4",
    "recorder.projections=0",
    "evaluation.problems=6",
    "evaluation.rollouts=1",
    "probes.prompts=2",
    "probes.responses=1",
    "logger=none",
    "objective.prompts=4",
    "objective.rollouts=4",
)
RUN = Path("runs", "train", "a")
FIXED = ("regrounding=fixed", "regrounding.block_steps=4", "regrounding.jump_steps=3")
ADAPTIVE = (
    "regrounding=adaptive",
    "regrounding.block_steps=2",
    "regrounding.jump_steps=2",
    "regrounding.reward_check.problems=5",
    "regrounding.reward_check.rollouts=2",
    "regrounding.least_skill=-10",
)
NESTEROV = ("regrounding=outer_nesterov", "regrounding.block_steps=4")
AVERAGE = ("regrounding=checkpoint_average", "regrounding.every=2", "regrounding.count=3")


def built(*words: str) -> tuple[LanguageModelObjective, LabModule]:
    """The objective and module of a small run, without a trainer."""
    config: Any = compose("train", [*SMALL, *words])
    from omegaconf import OmegaConf

    settings = build_train_settings(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    objective = build_objective(settings)
    assert isinstance(objective, LanguageModelObjective)
    return objective, LabModule(objective, settings.optimizer, Draw(0), settings.steps)


def test_the_check_uses_problems_of_neither_training_nor_test() -> None:
    objective, _ = built()
    check = check_problems(objective, CheckSettings(problems=40, rollouts=2, tolerance=1.0), Draw(0))
    keys = {problem.key for problem in check}
    assert len(keys) == 40
    assert {objective.task.split_of(key) for key in keys} == {"held_out"}
    tested = {problem.key for problem in held_out_problems(objective.task, objective.evaluation, Draw(0))}
    assert not keys & tested
    with pytest.raises(BadInput, match=r"regrounding\.reward_check\.problems: 100000 asked for"):
        check_problems(objective, CheckSettings(problems=100_000, rollouts=2, tolerance=1.0), Draw(0))


def test_the_check_scores_with_common_random_numbers_and_counts_what_it_sampled() -> None:
    objective, module = built()
    check = RewardCheck(objective, CheckSettings(problems=30, rollouts=4, tolerance=1.0), Draw(0))
    first, again, later = check(5), check(5), check(6)
    np.testing.assert_array_equal(first.scores, again.scores)
    assert not np.array_equal(first.scores, later.scores)
    assert first.rollouts == 120 and 120 <= first.tokens <= 120 * 5
    assert 0 < first.scores.mean() < 1 and set(np.unique(first.scores * 4)) <= {0, 1, 2, 3, 4}
    assert outputs_are_finite(objective)
    with torch.no_grad():
        next(iter(module.trained_parameters.values())).fill_(float("nan"))
    assert not outputs_are_finite(objective)


class Model(torch.nn.Module):
    """Two tensors under Adam, pulled to one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3))
        self.second = torch.nn.Parameter(torch.full((4,), 3.0))
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)

    def step(self, number: int) -> None:
        for parameter in self.parameters():
            parameter.grad = parameter.detach() - 1 + 0.3 * np.sin(number)
        self.optimizer.step()


def adaptive(**changes: Any) -> BlockSettings:
    """m = 2, n = 4, two checks a block."""
    check = {"problems": 4, "rollouts": 1, "tolerance": 0.0}
    keys = {
        "block_steps": 2,
        "optimizer_state": "reset",
        "until_step": None,
        "jump_steps": 4.0,
        "damping": 1.0,
    }
    bounds = {"norm_cap": None, "grow": 2.0, "shrink": 0.5, "smallest_jump": 1.0, "largest_jump": 16.0}
    skill = {"skill_blocks": 1, "least_skill": -100.0}
    node = {"name": "adaptive", **keys, **bounds, **skill, "reward_check": check, **changes}
    settings = build_regrounding_settings(node)
    assert isinstance(settings, BlockSettings)
    return settings


def run_model(settings: BlockSettings | None, check: Any = None, steps: int = 8) -> tuple[Model, list[Any]]:
    """Train the model above, with or without re-grounding; return it and the outcomes."""
    model, outcomes = Model(), []
    regrounder = (
        None if settings is None else Regrounder(settings, dict(model.named_parameters()), check=check)
    )
    if regrounder is not None:
        regrounder.begin(0)
    for step in range(1, steps + 1):
        model.step(step)
        if regrounder is not None:
            outcomes.append(regrounder.after_step(step, model.optimizer))
    return model, [outcome for outcome in outcomes if outcome is not None]


def test_a_refused_jump_leaves_weights_and_optimiser_as_they_were_to_the_bit() -> None:
    falls = iter([1.0, 0.0] * 4)
    refused, outcomes = run_model(adaptive(), lambda step: CheckScores(np.full(4, next(falls)), 4, 9))
    plain, _ = run_model(None)
    for left, right in zip(refused.parameters(), plain.parameters(), strict=True):
        assert torch.equal(left, right)
        states = refused.optimizer.state[left], plain.optimizer.state[right]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert [outcome.steps for outcome in outcomes] == [0] * 4
    for outcome in outcomes:
        assert outcome.metrics["regrounding/accepted"] == 0
        assert outcome.metrics["regrounding/check_rollouts"] == 8
        assert outcome.metrics["regrounding/check_tokens"] == 18


def test_the_skill_is_that_of_the_jumps_own_forecast() -> None:
    settings = adaptive(damping=0.7, optimizer_state="keep", jump_steps=1.0, grow=1.0)
    moved, (first, second, *_) = run_model(settings, lambda step: CheckScores(np.ones(4)), steps=4)
    model = Model()

    def flat() -> np.ndarray:
        return torch.cat([value.detach().double().flatten() for value in model.parameters()]).numpy()

    ends, starts = [], [flat()]
    for step in range(1, 5):
        model.step(step)
        if step % 2 == 0:
            ends.append(flat())
            with torch.no_grad():
                jump = torch.from_numpy(0.7 / 2 * (ends[-1] - starts[-1])).float()
                model.first.add_(jump[:6].reshape(2, 3))
                model.second.add_(jump[6:])
            starts.append(flat())
    blocks = [ends[0] - starts[0], ends[1] - starts[1]]
    expected = 1 - ((blocks[1] - 0.7 * blocks[0]) ** 2).sum() / (blocks[1] ** 2).sum()
    assert "regrounding/skill" not in first.metrics
    assert second.metrics["regrounding/skill"] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(moved.second.detach(), model.second.detach(), rtol=1e-5)


def test_no_jump_where_skill_is_gone() -> None:
    _, outcomes = run_model(adaptive(least_skill=0.9, damping=0.5), lambda step: CheckScores(np.ones(4)))
    assert outcomes[0].steps == 4  # nothing is known of its skill
    assert all("regrounding/accepted" not in outcome.metrics for outcome in outcomes[1:])


def test_a_long_jump_is_shortened_to_the_cap() -> None:
    base = {
        "name": "fixed",
        "block_steps": 3,
        "optimizer_state": "keep",
        "until_step": 3,
        "jump_steps": 600.0,
    }
    settings = build_regrounding_settings({**base, "damping": 1.0, "norm_cap": 0.25})
    assert isinstance(settings, BlockSettings)
    moved, (outcome,) = run_model(settings, steps=3)
    plain, _ = run_model(None, steps=3)
    pairs = list(zip(moved.parameters(), plain.parameters(), strict=True))
    jump = sum(float((left - right).detach().square().sum()) for left, right in pairs) ** 0.5
    weights = sum(float(right.detach().square().sum()) for _, right in pairs) ** 0.5
    assert jump == pytest.approx(0.25 * weights, rel=1e-5)
    displacement = [
        right - start for right, start in zip(plain.parameters(), Model().parameters(), strict=True)
    ]
    whole = 200 * sum(float(part.detach().square().sum()) for part in displacement) ** 0.5
    assert outcome.steps == pytest.approx(600 * jump / whole, rel=1e-4)


def test_weights_in_which_a_jump_would_be_rounded_away_are_refused() -> None:
    model = Model().bfloat16()
    with pytest.raises(BadInput, match="first is bfloat16"):
        Regrounder(adaptive(), dict(model.named_parameters()), check=lambda step: CheckScores(np.ones(4)))
    with pytest.raises(BadInput, match="needs a reward check"):
        Regrounder(adaptive(), dict(Model().named_parameters()))


class Elements(TorchDispatchMode):
    """Counts the elements that operations return, and matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func)
        self.products += any(word in name for word in ("mm.", "bmm", "addmm", "attention"))
        if isinstance(out, torch.Tensor):
            self.elements += out.numel()
        return out


def test_a_jump_costs_less_than_a_training_step() -> None:
    objective, module = built(*FIXED)
    settings = build_regrounding_settings(
        {
            **{"name": "fixed", "block_steps": 1, "optimizer_state": "rescale", "until_step": None},
            **{"jump_steps": 3.0, "damping": 1.0, "norm_cap": None},
        }
    )
    assert isinstance(settings, BlockSettings)
    parameters = module.trained_parameters
    optimizer = module.optimizer_settings.build(list(parameters.values()))
    regrounder = Regrounder(settings, parameters)
    regrounder.begin(0)
    with Elements() as training:
        batch = objective.collect(0, Draw(0))
        for loss in objective.losses(batch, 0):
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with Elements() as jumping:
        assert regrounder.after_step(1, optimizer) is not None
    size = sum(parameter.numel() for parameter in parameters.values())
    assert jumping.products == 0 < training.products
    assert jumping.elements < 10 * size < training.elements


# ---- whole runs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    kill_resume.warm_up(tmp_path_factory.mktemp("warm_up"))


def finish(words: tuple[str, ...], directory: Path) -> Path:
    """Run, or run on, in another process."""
    process = Process(words, directory)
    assert process.wait() == 0, process.log.read_text()
    return directory / RUN


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (
            (*SMALL, *FIXED),
            "records/step_00000006.npz",
        ),  # the checkpoint at step 6 is in the middle of a block
        ((*SMALL, *ADAPTIVE), "records/step_00000006.npz"),
        ((*SMALL, *NESTEROV), "records/step_00000006.npz"),
        ((*SMALL, *AVERAGE), "records/step_00000003.npz"),
    ],
    ids=["fixed", "adaptive", "outer_nesterov", "checkpoint_average"],
)
@pytest.mark.usefixtures("_warm")
def test_a_run_killed_between_jumps_resumes_to_the_same(
    tmp_path: Path, words: tuple[str, ...], file: str
) -> None:
    # It saves at steps 3, 6 and 9: mostly in the middle of a block of 2 or 4 steps.
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = finish(words, tmp_path / "whole")
    process = Process(words, tmp_path / "broken", (RUN / file, signal.SIGKILL))
    assert process.wait() == -signal.SIGKILL, process.log.read_text()
    assert differences(whole, finish(words, tmp_path / "broken")) == []
    if "regrounding=fixed" in words:
        weights = group(open_store(whole), "weights")
        assert weights["effective_step"].values.tolist() == [0, 3, 9, 15]
    if "regrounding=adaptive" in words:
        metrics = group(open_store(whole), "metrics")
        tried = ~np.isnan(metrics["regrounding__accepted"].values)
        assert tried.nonzero()[0].tolist() == [1, 3, 5, 7]
        assert set(metrics["regrounding__check_rollouts"].values[tried]) == {20.0}
        assert np.isfinite(metrics["regrounding__skill"].values[[3, 5, 7]]).all()


def test_evaluation_is_of_the_average_and_the_weights_are_given_back() -> None:
    _, module = built()
    settings = build_regrounding_settings(
        {"name": "checkpoint_average", "every": 2, "kind": "last", "count": 3, "decay": None}
    )
    callback: Any = build_callback(settings, module)
    (name, *_) = module.trained_parameters
    parameter, seen = module.trained_parameters[name], []
    callback.on_train_start(None, module)
    for step in range(1, 10):
        module.step = step
        with torch.no_grad():
            parameter.add_(1.0)
        callback.on_train_batch_end(None, module, None, None, 0)
        before = parameter.detach().clone()
        with module.evaluation_weights():
            seen.append(float((parameter - before).mean()))
        assert torch.equal(parameter, before)
    # Kept at 0, 2, 4 ...: the mean of the last three, from the weights now.
    kept = [[0], [0, 2], [0, 2], [0, 2, 4], [0, 2, 4], [2, 4, 6], [2, 4, 6], [4, 6, 8], [4, 6, 8]]
    expected = [np.mean(steps) - step for step, steps in enumerate(kept, start=1)]
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_an_exponential_average() -> None:
    _, module = built()
    settings = build_regrounding_settings(
        {"name": "checkpoint_average", "every": 1, "kind": "exponential", "count": None, "decay": 0.6}
    )
    callback: Any = build_callback(settings, module)
    parameter = next(iter(module.trained_parameters.values()))
    start = parameter.detach().clone()
    callback.on_train_start(None, module)
    average = 0.0
    for step in range(1, 5):
        module.step = step
        with torch.no_grad():
            parameter.add_(1.0)
        callback.on_train_batch_end(None, module, None, None, 0)
        average = 0.6 * average + 0.4 * step
        with module.evaluation_weights():
            assert float((parameter - start).mean()) == pytest.approx(average, rel=1e-5)


def test_the_summary_tells_what_jumping_gained_and_cost(lab: Callable[..., Any], tmp_path: Path) -> None:
    import json

    done = lab("train", *SMALL, *ADAPTIVE, "regrounding.reward_check.tolerance=100")
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / RUN / "summary.json").read_text())["regrounding"]
    assert summary["blocks"] == summary["accepted"] == 4 and summary["taken_back"] == 0
    assert summary["effective_steps"] == pytest.approx(9 + 2 + 3 + 4.5 + 6.75)
    assert summary["check_rollouts"] == 4 * 2 * 5 * 2
    assert summary["check_tokens"] >= summary["check_rollouts"]
