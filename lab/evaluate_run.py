"""Decoding held-out problems with one model, or with two in output space, and verifying what comes out."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from lab.bar import progress_bar
from lab.draw import Draw
from lab.errors import BadInput
from lab.evaluate_settings import EvaluateSettings, OutputSpaceSettings
from lab.evaluation import average_at_k, pass_at_k, pass_rate_interval
from lab.extrapolation.output_space import Candidate, Scored, compare_decodings, split_rows
from lab.objectives.held_out import held_out_problems, verify_completions
from lab.objectives.settings import GenerationSettings
from lab.policies import PolicySettings, load_policy
from lab.policies.decoder import Decoder
from lab.policies.policy import Policy
from lab.policies.settings import HuggingFaceSettings
from lab.tasks import Task
from lab.trainer import TrainerSettings, arithmetic, torch_device

ARMS = ("extrapolated", "temperature_tuned", "last")
"""Groups of keys in the summary of `Judge.choose`."""


class Judge:
    """Holds the models, the problems and the uniforms of one evaluation.

    Raises:
        BadInput: a model cannot be loaded, two cannot be combined, or the task has no problems.
    """

    def __init__(
        self,
        policy: PolicySettings,
        models: OutputSpaceSettings,
        task: Task,
        generation: GenerationSettings,
        evaluation: EvaluateSettings,
        seed: int,
        trainer: TrainerSettings | None = None,
    ) -> None:
        device = torch_device(trainer) if trainer else None
        self._arithmetic = partial(arithmetic, trainer) if trainer else nullcontext
        own = load_policy(policy, seed) if models.checkpoint is None else _load(policy, models, "checkpoint")
        policies = [own] if models.second is None else [_load(policy, models, "second"), own]
        self._decoder = Decoder(*(each.to(device) for each in policies))
        self._models = models
        self._first = own.source
        self._task = task
        self._evaluation = evaluation
        self._draw = Draw(seed)
        self._problems = held_out_problems(task, evaluation, self._draw)
        # One row of numbers for each problem, whichever part of them is decoded: see `evaluate_policy`.
        shape = (len(self._problems), evaluation.rollouts, generation.max_new_tokens)
        self._uniforms = self._draw.uniform("evaluation_rollout", 0, shape)

    def score(self, ks: list[int]) -> dict[str, Any]:
        """Return the numbers of one model, or of two at one alpha."""
        alpha = 1.0 if self._models.alpha is None else self._models.alpha
        rows = np.arange(len(self._problems))
        correct = self._decode(Candidate(alpha, self._evaluation.temperature), rows).correct
        rate, half = average_at_k(correct), float(pass_rate_interval(correct))
        interval = (
            f" ± {half:.3f} (95 % over {len(correct)} problems)"
            if half == half
            else ", one problem: no interval"
        )
        at = "" if self._models.second is None else f" at alpha {alpha:g}"
        return {
            f"avg@{self._evaluation.rollouts}": rate,
            "interval_half_width": half,
            **{f"pass@{k}": pass_at_k(correct, k) for k in ks},
            "problems": len(correct),
            "unjudged": int((correct != correct).sum()),
            **({} if self._models.second is None else {"alpha": alpha, **self._sources()}),
            "result": f"avg@{self._evaluation.rollouts} {rate:.3f}{interval}{at}",
        }

    def choose(
        self, alphas: tuple[float, ...], temperatures: tuple[float, ...], share: float, ks: list[int]
    ) -> dict[str, Any]:
        """Return the numbers of both arms and their difference."""
        validation, test = split_rows([problem.key for problem in self._problems], share)
        with progress_bar() as progress:
            bar = progress.add_task("decoding", total=len(alphas) + len(temperatures) + 3)

            def evaluate(candidate: Candidate, rows: np.ndarray) -> Scored:
                scored = self._decode(candidate, rows)
                progress.advance(bar)
                return scored

            found = compare_decodings(
                evaluate, alphas, temperatures, self._evaluation.temperature, validation, test
            )
        arms = {name: getattr(found, name).numbers(ks) for name in ARMS}
        differences = {
            f"difference_to_{name}{'_relative' if relative else ''}": asdict(
                found.difference(getattr(found, name), self._draw.generator("bootstrap"), relative)
            )
            for name in ("temperature_tuned", "last")
            for relative in (False, True)
        }
        rate = f"avg@{self._evaluation.rollouts}"
        ours, theirs = arms["extrapolated"], arms["temperature_tuned"]
        gap = differences["difference_to_temperature_tuned"]
        return {
            **self._sources(),
            "problems": len(self._problems),
            "validation_problems": len(validation),
            "test_problems": len(test),
            **arms,
            **differences,
            "result": f"alpha {ours['alpha']:g} chosen on {len(validation)} problems: {rate} {ours[rate]:.3f} on "
            f"{len(test)} others, {gap['estimate']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}] over "
            f"the last checkpoint at its best temperature {theirs['temperature']:.3g}",
        }

    def _decode(self, candidate: Candidate, rows: np.ndarray) -> Scored:
        problems = [self._problems[row] for row in rows]
        with self._arithmetic():
            made = self._decoder.complete(
                [problem.prompt for problem in problems],
                self._uniforms[rows],
                candidate.temperature,
                self._evaluation.top_p,
                candidate.alpha,
            )
        correct = verify_completions(self._task, problems, made.texts)
        return Scored(correct, int(made.lengths.sum()), made.token_passes)

    def _sources(self) -> dict[str, Any]:
        return {"first": self._first, "second": self._models.second}


def _load(policy: PolicySettings, models: OutputSpaceSettings, key: str) -> Policy:
    """Load the checkpoint that `key` names, in the policy's type and with its chat template."""
    settings = HuggingFaceSettings(
        name="hf",
        path=getattr(models, key),
        dtype=getattr(policy, "dtype", "float32"),
        chat_template=getattr(policy, "chat_template", False),
        gradient_checkpointing=False,
    )
    try:
        return load_policy(settings, seed=0)
    except BadInput as error:
        raise BadInput(str(error).replace("policy.path", key, 1)) from error
