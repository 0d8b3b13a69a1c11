"""Where extrapolating the run's own checkpoints would have led: what `lab extrapolate` and `lab evaluate checkpoint=`
do, for every method and target, as a follow-up.

All models answer the same held-out problems with the same random numbers, so differences between them are paired by
problem. An extrapolated model is removed as soon as it is evaluated.
"""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lab.bar import progress_bar
from lab.draw import Draw
from lab.errors import BadInput
from lab.evaluation import pass_rate_interval, pass_rates
from lab.extrapolation.extrapolate import Job, prepare, write_model
from lab.extrapolation.extrapolator import JumpRules
from lab.extrapolation.output_settings import OutputSettings
from lab.extrapolation.products import gather_products
from lab.extrapolation.settings import default_method
from lab.figures.style import save
from lab.files import remove_tree, require_free_space
from lab.follow_up.figure import targets_figure
from lab.follow_up.follow_up import Findings, FollowUp
from lab.follow_up.scores import Score, compare_targets
from lab.follow_up.settings import ExtrapolationSettings
from lab.objectives.held_out import evaluate_policy, held_out_problems
from lab.policies.huggingface import load_directory
from lab.report import Picture, Row, format_number
from lab.trainer import arithmetic, torch_device
from lab.trajectory.checkpoints import checkpoint_steps
from lab.trajectory.readers import ModelSeries, open_series

_MODEL = "model"
_WORKERS = 2
_CAPTION = (
    "Held-out pass rate of models extrapolated from the checkpoints up to step {last}, on the same {problems} problems "
    "x {rollouts} samples; bars: 95 % over problems. Dashed, with its interval as a band: standing still at step "
    "{last}. Black: training on. A method pays where it is above the dashed line, and saves training where it reaches "
    "the black one."
)
_STANDING = "The last checkpoint fitted on, as it is: what an extrapolation has to beat."
_ACTUAL = "What training on to that step has come to."


class ExtrapolationFollowUp(FollowUp):
    """See the module."""

    def find(self) -> Findings:
        """See `FollowUp`."""
        how, settings = self._how, self.trained.settings
        last, targets = self._fitted[-1], how.target_steps(settings.steps)
        there = checkpoint_steps(self.trained.path)
        real = [step for step in targets if step in there]
        jumps = [(method, step) for step in targets for method in how.jumping_methods]
        with progress_bar() as progress:
            bar = progress.add_task("extrapolating", total=1 + len(real) + len(jumps))

            def done(name: str, compute: Any) -> Score:
                found = self.trained.pieces.get(name, compute)
                progress.advance(bar)
                return Score.of(found)

            standing, *trained_on = (
                done(f"checkpoint_{step}", partial(self._evaluate_checkpoint, step)) for step in [last, *real]
            )
            jumped = {
                (method, step): done(f"{method}_{step}", partial(self._evaluate_jump, method, step))
                for method, step in jumps
            }
        actual = dict(zip(real, trained_on, strict=True))
        compared = compare_targets(standing, actual, jumped, self._draw)
        numbers = {
            "fitted_steps": self._fitted,
            "problems": how.evaluation.problems,
            "rollouts": how.evaluation.rollouts,
            "persistence": {"step": last, **standing.numbers()},
            "targets": compared,
        }
        return Findings(
            {"extrapolation": numbers},
            _line(compared, last),
            [(f"Extrapolation from the checkpoints of steps 0 to {last}", _rows(numbers))],
            [self._picture(standing, actual, jumped)],
        )

    @property
    def _how(self) -> ExtrapolationSettings:
        settings = self.trained.settings.follow_up
        assert settings is not None and settings.extrapolation is not None
        return settings.extrapolation

    @cached_property
    def _draw(self) -> Draw:
        return Draw(self.trained.settings.seed)

    @cached_property
    def _fitted(self) -> list[int]:
        every = self.trained.settings.recorder.checkpoint_every
        assert every is not None
        return self._how.fitted_steps(self.trained.settings.steps, every)

    @cached_property
    def _series(self) -> ModelSeries:
        series = open_series(self.trained.path)
        assert isinstance(
            series, ModelSeries
        )  # the run has full checkpoints, or its settings had been refused
        return series

    @cached_property
    def _products(self) -> dict[str, Any]:
        """Inner products of increments of each tensor, the same for every method and target."""
        rows = [index for index, step in enumerate(self._series.steps) if step in self._fitted]
        return gather_products(self._series.select(rows))

    def _job(self, method: str, step: int) -> Job:
        job = prepare(
            self._series,
            default_method(method),
            float(step),
            JumpRules(self._how.copy, None, "pooled"),
            OutputSettings("same", "5GB", "quick", _WORKERS),
            last=float(self._fitted[-1]),
        )
        if job.extrapolator.needs_products:
            job.products = self._products
        return job

    def _evaluate_jump(self, method: str, step: int) -> dict[str, Any]:
        """Write the extrapolated model, evaluate it, remove it."""
        job = self._job(method, step)
        place = self.trained.pieces.directory / _MODEL
        place.parent.mkdir(exist_ok=True)
        require_free_space(place, sum(info.nbytes for info in job.series.tensors.values()), "this follow-up")
        try:
            try:
                record = write_model(job, place)
            except (
                BadInput
            ) as error:  # a forecast that is not finite, say: a result of the method, not of the run
                return {"refused": str(error)}
            details = {key: value for key, value in record["details"].items() if isinstance(value, float)}
            return {**self._evaluate(place), "method_details": details}
        finally:
            if place.exists():
                remove_tree(place)

    def _evaluate_checkpoint(self, step: int) -> dict[str, Any]:
        return self._evaluate(self.trained.path / f"checkpoint-{step}")

    def _evaluate(self, directory: Path) -> dict[str, Any]:
        """Return the pass rate of each held-out problem, and the half-width of the interval of their mean."""
        settings, how = self.trained.settings, self._how.evaluation
        assert settings.task is not None and settings.generation is not None
        policy = load_directory(
            str(directory),
            getattr(settings.policy, "dtype", "float32"),
            getattr(settings.policy, "chat_template", False),
        ).to(torch_device(settings.trainer))
        problems = held_out_problems(settings.task, how, self._draw)
        with arithmetic(settings.trainer):
            found = evaluate_policy(policy, settings.task, problems, settings.generation, how, self._draw)
        correct = found["correct"]
        return {
            "problem": [problem.key for problem in problems],
            "pass_rate_of_problem": pass_rates(correct),
            "interval_half_width": float(pass_rate_interval(correct)),
            "unjudged": int((correct != correct).sum()),
        }

    def _picture(
        self, standing: Score, actual: dict[int, Score], jumped: dict[tuple[str, int], Score]
    ) -> Picture:
        settings, how, last = self.trained.settings, self._how.evaluation, self._fitted[-1]
        drawn = targets_figure(last, standing, actual, jumped, f"1 run (seed {settings.seed})")
        caption = _CAPTION.format(last=last, problems=how.problems, rollouts=how.rollouts)
        return Picture(save(*drawn, self.trained.path / "figures", "extrapolation_targets"), caption)


def _line(targets: list[dict[str, Any]], last: int) -> str:
    """Count the extrapolations whose interval is above standing still; how many there were stands beside."""
    over = [found["over_persistence"] for target in targets for found in target["methods"].values()]
    above = sum(gap is not None and gap["low"] > 0 for gap in over)
    return f"{above} of {len(over)} extrapolations from step {last} beat standing still (95 % intervals over problems)"


def _rows(numbers: dict[str, Any]) -> list[Row]:
    standing = numbers["persistence"]
    rows = [Row(f"standing still, step {standing['step']}", [_rate(standing)], _STANDING)]
    for target in numbers["targets"]:
        step = target["step"]
        if target["actual"] is not None:
            meaning = f"{_ACTUAL} {_gap(target['actual']['over_persistence'], 'standing still')}."
            rows.append(Row(f"trained on to {step}", [_rate(target["actual"])], meaning))
        for method, found in target["methods"].items():
            if found["refused"] is not None:
                rows.append(Row(f"{method} to {step}", [None], f"No model: {found['refused']}"))
                continue
            gaps = [_gap(found["over_persistence"], "standing still")]
            if found["over_actual"] is not None:
                gaps.append(_gap(found["over_actual"], "training on"))
            rows.append(Row(f"{method} to {step}", [_rate(found)], "; ".join(gaps) + "."))
    return rows


def _rate(found: dict[str, Any]) -> str:
    half = found["interval_half_width"]
    return format_number(found["pass_rate"]) + ("" if half is None or half != half else f" ± {half:.3f}")


def _gap(gap: dict[str, Any], what: str) -> str:
    known = gap["low"] == gap["low"]
    interval = f" [{gap['low']:+.3f}, {gap['high']:+.3f}]" if known else ", one problem and so no interval,"
    return f"{gap['estimate']:+.3f}{interval} over {what}"
