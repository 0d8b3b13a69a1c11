"""The one LightningModule, on a quadratic bowl, against a plain torch loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lab.draw import Draw
from lab.errors import RunFailed
from lab.module import LabModule
from lab.objectives.objective import Batch, Objective
from lab.optimizers import OptimizerSettings, build_optimizer_settings
from lab.trainer import TrainerSettings, build_trainer

STEPS = 6


@dataclass
class Noise(Batch):
    """The gradient noise of one step."""

    first: Tensor
    second: Tensor
    step: int


class Bowl(Objective):
    """Half the squared distance of two parameters from ones, in noise, in two micro-batches an update."""

    def __init__(self, updates_per_step: int = 1) -> None:
        super().__init__()
        self.updates_per_step = updates_per_step
        self.first = nn.Parameter(torch.zeros(3, 2))
        self.second = nn.Parameter(torch.full((4,), 2.0))

    def trainable(self) -> dict[str, nn.Parameter]:
        return {"first": self.first, "second": self.second}

    def collect(self, step: int, draw: Draw) -> Noise:
        uniforms = torch.from_numpy(draw.uniform("gradient", step, (10,))).float()
        return Noise(uniforms[:6].reshape(3, 2) - 0.5, uniforms[6:] - 0.5, step, metrics={"extra": 7.0})

    def losses(self, batch: Noise, update: int) -> Iterator[Tensor]:
        yield ((self.first - 1) ** 2).sum() / 2 + (batch.first * self.first).sum()
        yield ((self.second - 1) ** 2).sum() / 2 + (1 + update) * (batch.second * self.second).sum()


class Watcher(pl.Callback):
    """Notes the gradients and weights at every update."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []
        self.before: list[Tensor] = []
        self.after: list[Tensor] = []

    def before_update(self, module: LabModule) -> None:
        parts = [parameter.grad for parameter in module.trained_parameters.values()]
        self.gradients.append(torch.cat([part.flatten().clone() for part in parts if part is not None]))
        self.before.append(flat(module))

    def after_update(self, module: LabModule) -> None:
        self.after.append(flat(module))


class StopAfter(pl.Callback):
    """Ends training after some steps, as a signal does."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        trainer.should_stop = isinstance(pl_module, LabModule) and pl_module.step >= self.steps


def flat(module: LabModule) -> Tensor:
    """All trained weights in one vector."""
    return torch.cat([value.detach().flatten().clone() for value in module.trained_parameters.values()])


def settings(name: str = "adamw", **changes: Any) -> OptimizerSettings:
    """AdamW or heavy-ball SGD, without clipping."""
    own: dict[str, Any] = (
        {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8} if name == "adamw" else {"heavy_ball": 0.9}
    )
    schedule = {"name": "constant", "warmup_updates": 0, "final_share": 0.0}
    common = {"learning_rate": 0.05, "weight_decay": 0.01, "clip_norm": None, "schedule": schedule}
    return build_optimizer_settings({"name": name, **common, **own, **changes})


def fit(module: LabModule, directory: Path, *callbacks: pl.Callback) -> pl.Trainer:
    """Train under a real trainer."""
    trainer = build_trainer(
        TrainerSettings("cpu", "cpu", 1, "auto", "32-true"), [], list(callbacks), directory
    )
    trainer.fit(module)
    return trainer


def trained(
    directory: Path, optimizer: OptimizerSettings, *callbacks: pl.Callback, objective: Objective | None = None
) -> LabModule:
    """A module after a whole run."""
    module = LabModule(objective or Bowl(), optimizer, Draw(0), STEPS)
    fit(module, directory, *callbacks)
    return module


def plain_loop(
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    updates_per_step: int,
    clip: float | None,
    rate: Callable[[int], float],
) -> Tensor:
    """The same training in a dozen lines of torch."""
    bowl = Bowl()
    parameters = [bowl.first, bowl.second]
    stepper = optimizer(parameters)
    updates = 0
    for step in range(STEPS):
        uniforms = torch.from_numpy(Draw(0).uniform("gradient", step, (10,))).float()
        noise = (uniforms[:6].reshape(3, 2) - 0.5, uniforms[6:] - 0.5)
        for update in range(updates_per_step):
            stepper.zero_grad()
            (((bowl.first - 1) ** 2).sum() / 2 + (noise[0] * bowl.first).sum()).backward()
            (((bowl.second - 1) ** 2).sum() / 2 + (1 + update) * (noise[1] * bowl.second).sum()).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            stepper.param_groups[0]["lr"] = rate(updates)
            stepper.step()
            updates += 1
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Torch's AdamW at the settings above."""
    return torch.optim.AdamW(parameters, lr=0.05, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=True)


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Torch's SGD at the settings above."""
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01, fused=True)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("updates_per_step", [1, 3])
@pytest.mark.parametrize(("name", "build"), [("adamw", adamw), ("sgd", sgd)])
def test_training_equals_a_plain_torch_loop_bit_for_bit(
    tmp_path: Path, name: str, build: Any, updates_per_step: int, clip: float | None
) -> None:
    module = trained(tmp_path, settings(name, clip_norm=clip), objective=Bowl(updates_per_step))
    assert torch.equal(flat(module), plain_loop(build, updates_per_step, clip, lambda _: 0.05))


def test_the_schedule_runs_over_all_updates(tmp_path: Path) -> None:
    schedule = {"name": "linear", "warmup_updates": 2, "final_share": 0.0}
    module = trained(tmp_path, settings(schedule=schedule), objective=Bowl(2))
    rates = [0.5, 1.0, *(1 - index / 10 for index in range(10))]
    expected = plain_loop(adamw, 2, None, lambda update: 0.05 * rates[update])
    torch.testing.assert_close(flat(module), expected, rtol=1e-6, atol=1e-7)
    assert module.learning_rate == pytest.approx(0.05 * 0.1)


def test_counters_count_steps_and_updates(tmp_path: Path) -> None:
    module = trained(tmp_path, settings(), objective=Bowl(3))
    assert (module.step, module.update, module.effective_step) == (STEPS, 3 * STEPS, float(STEPS))


def test_the_metrics_of_the_last_step_are_its_own(tmp_path: Path) -> None:
    watcher = Watcher()
    module = trained(tmp_path, settings(clip_norm=0.5), watcher, objective=Bowl(2))
    noise = Bowl(2).collect(STEPS - 1, Draw(0))
    losses = []
    for update in (0, 1):
        weights = watcher.before[-2 + update].double()
        linear = torch.cat([noise.first.flatten(), (1 + update) * noise.second]).double()
        losses.append(float(((weights - 1) ** 2).sum() / 2 + (linear * weights).sum()))
    metrics = module.last_metrics
    assert metrics["loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)
    norms = [float(gradient.norm()) for gradient in watcher.gradients[-2:]]
    assert metrics["grad_norm"] == pytest.approx(sum(norms) / 2, rel=1e-5)
    assert metrics["learning_rate"] == 0.05 and metrics["extra"] == 7.0 and metrics["step_time"] > 0


def test_observers_see_the_raw_gradient_and_the_moved_weights(tmp_path: Path) -> None:
    watcher = Watcher()
    module = trained(
        tmp_path,
        settings("sgd", clip_norm=0.5, heavy_ball=0.0, weight_decay=0.0),
        watcher,
        objective=Bowl(2),
    )
    assert len(watcher.gradients) == len(watcher.after) == module.update == 2 * STEPS
    for update, (gradient, before) in enumerate(zip(watcher.gradients, watcher.before, strict=True)):
        noise = Bowl().collect(update // 2, Draw(0))
        linear = torch.cat([noise.first.flatten(), (1 + update % 2) * noise.second])
        torch.testing.assert_close(gradient, before - 1 + linear, rtol=1e-5, atol=1e-6)
    first, norm = watcher.gradients[0], float(watcher.gradients[0].norm())
    assert norm > 0.5
    moved = watcher.after[0] - watcher.before[0]
    torch.testing.assert_close(moved, -0.05 * first * 0.5 / norm, rtol=1e-4, atol=1e-7)
    assert torch.equal(watcher.after[-1], flat(module))


def test_a_gradient_within_the_limit_is_not_scaled(tmp_path: Path) -> None:
    assert torch.equal(
        flat(trained(tmp_path, settings(clip_norm=1e6))), flat(trained(tmp_path, settings(clip_norm=None)))
    )


class Silent(Bowl):
    """No loss at all from step 2 on."""

    def losses(self, batch: Noise, update: int) -> Iterator[Tensor]:
        if batch.step < 2:
            yield from super().losses(batch, update)


def test_a_step_without_loss_still_moves_along_its_momentum(tmp_path: Path) -> None:
    watcher = Watcher()
    module = trained(tmp_path, settings("sgd", weight_decay=0.0), watcher, objective=Silent())
    moves = [after - before for after, before in zip(watcher.after, watcher.before, strict=True)]
    for earlier, later in zip(moves[1:], moves[2:], strict=False):
        torch.testing.assert_close(later, 0.9 * earlier, rtol=1e-4, atol=1e-7)
    assert float(moves[-1].abs().max()) > 0 and module.update == STEPS
    assert module.last_metrics["loss"] == 0 and module.last_metrics["grad_norm"] == 0


def test_a_run_without_any_loss_only_decays_from_its_first_step_on(tmp_path: Path) -> None:
    class Mute(Bowl):
        def losses(self, batch: Noise, update: int) -> Iterator[Tensor]:
            return iter(())

    module = trained(tmp_path, settings(weight_decay=0.1), objective=Mute())
    decayed = torch.tensor([0.0] * 6 + [2 * (1 - 0.05 * 0.1) ** STEPS] * 4)
    torch.testing.assert_close(flat(module), decayed, rtol=1e-6, atol=0)
    assert module.update == STEPS


class Broken(Bowl):
    """At step 2 the loss, or only its gradient, is not finite."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def losses(self, batch: Noise, update: int) -> Iterator[Tensor]:
        yield from super().losses(batch, update)
        if batch.step == 2:
            zero = (self.first * 0).sum()
            yield {"nan": zero + math.nan, "inf": zero + math.inf, "gradient": zero.sqrt()}[self.kind]


@pytest.mark.parametrize(
    ("kind", "words"), [("nan", "the loss is nan"), ("inf", "the loss is inf"), ("gradient", "norm is nan")]
)
def test_what_is_not_finite_ends_the_run_before_the_weights_move(
    tmp_path: Path, kind: str, words: str
) -> None:
    module, watcher = LabModule(Broken(kind), settings(clip_norm=1.0), Draw(0), STEPS), Watcher()
    with pytest.raises(RunFailed, match=rf"^step 2: .*{words}.*optimizer\.learning_rate"):
        fit(module, tmp_path, watcher)
    assert torch.equal(flat(module), watcher.after[1])
    assert (module.step, module.update) == (2, 2)


@pytest.mark.parametrize("stop", [1, 4])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, name: str, stop: int) -> None:
    schedule = {"name": "cosine", "warmup_updates": 3, "final_share": 0.1}
    whole = trained(tmp_path, settings(name, schedule=schedule), objective=Bowl(2))

    begun = LabModule(Bowl(2), settings(name, schedule=schedule), Draw(0), STEPS)
    trainer = fit(begun, tmp_path, StopAfter(stop))
    assert begun.step == stop
    trainer.save_checkpoint(tmp_path / "resume.ckpt")

    resumed = LabModule(Bowl(2), settings(name, schedule=schedule), Draw(0), STEPS)
    resumed.restore(torch.load(tmp_path / "resume.ckpt", weights_only=True))
    assert (resumed.step, resumed.update, resumed.effective_step) == (stop, 2 * stop, float(stop))
    fit(resumed, tmp_path)
    assert torch.equal(flat(resumed), flat(whole))
    assert (resumed.step, resumed.update) == (whole.step, whole.update)


def test_two_runs_of_one_seed_are_the_same_and_of_another_are_not(tmp_path: Path) -> None:
    runs = [LabModule(Bowl(), settings(), Draw(seed), STEPS) for seed in (0, 0, 1)]
    for module in runs:
        fit(module, tmp_path)
    assert torch.equal(flat(runs[0]), flat(runs[1])) and not torch.equal(flat(runs[0]), flat(runs[2]))


# --- several steps a batch, learning rates by parameter, independent replicates -----------------------


class Ends(pl.Callback):
    """Notes the step at the end of each batch, and the steps that its metrics are of."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.rows: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, LabModule)
        self.steps.append(pl_module.step)
        self.rows.extend(row["step"] for row in pl_module.batch_metrics)


@pytest.mark.parametrize("whole", [2, 4, 5, 100])
def test_steps_that_make_one_batch_are_the_same_steps(tmp_path: Path, whole: int) -> None:
    schedule = {"name": "linear", "warmup_updates": 1, "final_share": 0.0}
    alone = trained(tmp_path, settings(schedule=schedule))
    together, ends = LabModule(Bowl(), settings(schedule=schedule), Draw(0), STEPS, whole), Ends()
    fit(together, tmp_path, ends)
    assert torch.equal(flat(together), flat(alone))
    assert ends.steps == [*range(whole, STEPS, whole), STEPS] and ends.rows == [*range(1, STEPS + 1)]


def test_a_run_resumed_inside_a_batch_ends_it_where_it_would_have_ended(tmp_path: Path) -> None:
    begun = LabModule(Bowl(), settings(), Draw(0), STEPS)
    fit(begun, tmp_path, StopAfter(3)).save_checkpoint(tmp_path / "resume.ckpt")
    resumed = LabModule(Bowl(), settings(), Draw(0), STEPS, steps_per_batch=4)
    resumed.restore(torch.load(tmp_path / "resume.ckpt", weights_only=True))
    ends = Ends()
    fit(resumed, tmp_path, ends)
    assert ends.steps == [4, STEPS]
    assert torch.equal(flat(resumed), flat(trained(tmp_path, settings())))


class OwnRates(Bowl):
    """The second parameter has a learning rate of its own."""

    def learning_rates(self, common: float) -> dict[str, float]:
        return {"first": common, "second": 0.2}


def test_each_parameter_can_have_its_learning_rate_and_the_schedule_holds_for_all(tmp_path: Path) -> None:
    schedule = {"name": "cosine", "warmup_updates": 2, "final_share": 0.1}
    mixed = trained(tmp_path, settings(schedule=schedule), objective=OwnRates())
    for name, rate in (("first", 0.05), ("second", 0.2)):
        same = trained(tmp_path, settings(schedule=schedule, learning_rate=rate))
        assert torch.equal(mixed.trained_parameters[name], same.trained_parameters[name])
        assert mixed.learning_rate_of(name) == pytest.approx(same.learning_rate)
    assert len(mixed.torch_optimizer.param_groups) == 2


class Written(Bowl):
    """The same bowl of independent replicates, its gradient written in place of differentiated."""

    independent_replicates = True

    def write_gradients(self, batch: Noise, update: int) -> bool:
        self.first.grad = (self.first - 1 + batch.first).detach()
        self.second.grad = (self.second - 1 + (1 + update) * batch.second).detach()
        return True


def test_written_gradients_take_the_place_of_losses(tmp_path: Path) -> None:
    written = trained(tmp_path, settings(), objective=Written())
    torch.testing.assert_close(flat(written), flat(trained(tmp_path, settings())), rtol=1e-6, atol=1e-7)
    assert not {"loss", "grad_norm"} & set(written.last_metrics)


def test_replicates_that_run_away_end_the_run(tmp_path: Path) -> None:
    module = LabModule(Written(), settings("sgd", learning_rate=1e20), Draw(0), STEPS, steps_per_batch=3)
    with pytest.raises(RunFailed, match=r"^step 3: the weights of first are not finite.*learning_rate"):
        fit(module, tmp_path)
