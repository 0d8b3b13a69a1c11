"""Checkpoints of a run extrapolated into models, and models judged on the run's own task: what both studies need."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lab import open_series
from lab.draw import Draw
from lab.evaluate_settings import EvaluateSettings
from lab.extrapolation.extrapolate import prepare, write_model
from lab.extrapolation.extrapolator import JumpRules
from lab.extrapolation.output_settings import OutputSettings
from lab.extrapolation.settings import default_method
from lab.linearity.checks import FloatArray
from lab.objectives.held_out import evaluate_policy, held_out_problems
from lab.objectives.settings import GenerationSettings
from lab.policies import load_policy
from lab.policies.settings import HuggingFaceSettings
from lab.tasks import Problem, build_task

FIRST, LAST = 20, 80
"""Steps of the first and the last checkpoint that methods are fitted on."""
SEED = 12345
"""Of the evaluation, the same for every run."""
RULES = JumpRules(copy=("norm",), norm_cap=None, norm_cap_scope="pooled")
"""Normalisation layers are copied, as published."""


def evaluation(rollouts: int = 4, temperature: float = 1.0, problems: int = 256) -> EvaluateSettings:
    """Return the settings of a held-out evaluation."""
    return EvaluateSettings(problems=problems, rollouts=rollouts, temperature=temperature, top_p=1.0)


def problems_of(config: dict[str, Any], settings: EvaluateSettings) -> list[Problem]:
    """Return the held-out problems of a run's task, the same for all its models."""
    return held_out_problems(build_task(config["task"]), settings, Draw(SEED))


def correct(config: dict[str, Any], checkpoint: Path, settings: EvaluateSettings) -> np.ndarray:
    """Return what a model directory gets right, [problem, rollout]; the same uniforms for every model."""
    policy = HuggingFaceSettings(
        name="hf", path=str(checkpoint), dtype="float32", chat_template=False, gradient_checkpointing=False
    )
    return evaluate_policy(
        load_policy(policy, seed=0),
        build_task(config["task"]),
        problems_of(config, settings),
        GenerationSettings(**config["generation"]),
        settings,
        Draw(SEED),
    )["correct"]


class Window:
    """The checkpoints of a run from one step to another, and the models that methods make of them.

    Args:
        run: directory.
        first: step of the first checkpoint.
        last: step of the last one.
    """

    def __init__(self, run: Path, first: float = FIRST, last: float = LAST) -> None:
        self._run, self._first, self._last = run, first, last
        self._products: dict[str, FloatArray] | None = None  # the same for every method and target
        self.details: dict[str, dict[str, float]] = {}
        """By method, what it chose, such as its damping."""

    @contextmanager
    def model(self, method: str, target: float) -> Iterator[Path]:
        """Yield the directory of the model extrapolated to step `target`."""
        output = OutputSettings(dtype="same", shard_size="5GB", hash="quick", workers=1)
        job = prepare(
            open_series(self._run), default_method(method), target, RULES, output, self._first, self._last
        )
        if job.extrapolator.needs_products:
            if self._products is None:
                job.observe()
                self._products = job.products
            job.products = self._products
        with tempfile.TemporaryDirectory() as directory:
            self.details[method] = write_model(job, Path(directory) / "model")["details"]
            yield Path(directory) / "model"
