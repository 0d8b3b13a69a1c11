"""Synthetic objectives from the shipped defaults with changes, and random numbers that a test chooses."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch import Tensor

from lab.composition import compose
from lab.draw import Draw
from lab.module import LabModule
from lab.objectives import OBJECTIVES, build_objective_settings
from lab.objectives.synthetic import Synthetic
from lab.optimizers import build_optimizer_settings
from lab.trainer import TrainerSettings, build_trainer

Make = Callable[..., Any]


@cache
def _defaults(name: str) -> dict[str, Any]:
    node: Any = OmegaConf.to_container(compose("train", [f"objective={name}"]), resolve=True)
    return dict(node["objective"])


@pytest.fixture(scope="session")
def synthetic() -> Make:
    """Make a synthetic objective: its name, `seed`, and keys that differ from the shipped ones."""

    def make(name: str, seed: int = 0, **changes: Any) -> Synthetic[Any]:
        node = _defaults(name)
        for key, value in changes.items():
            merges = isinstance(node[key], dict) and isinstance(value, dict)
            node = {**node, key: {**node[key], **value} if merges else value}
        settings = build_objective_settings(node)
        module, kind = OBJECTIVES[name][1].split(":")
        objective: Synthetic[Any] = getattr(import_module(module), kind)(settings, seed)
        return objective

    return make


@pytest.fixture(scope="session")
def train_synthetic(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Train an objective in the module; return the weights of each cell after each step, [step, replicate, ...]."""

    def train(
        objective: Synthetic[Any], steps: int, optimizer: str = "sgd", seed: int = 0, **changes: Any
    ) -> list[np.ndarray]:
        own = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8} if optimizer == "adamw" else {"heavy_ball": 0.0}
        schedule = {"name": "constant", "warmup_updates": 0, "final_share": 0.0}
        node = {"name": optimizer, "learning_rate": 0.1, "weight_decay": 0.0, "clip_norm": None, **own}
        module = LabModule(
            objective, build_optimizer_settings({**node, "schedule": schedule, **changes}), Draw(seed), steps
        )
        seen: list[list[Tensor]] = [[value.clone() for value in objective.values]]

        class Watcher(pl.Callback):
            """Notes where the cells are after each step."""

            def on_train_batch_end(self, *_: Any, **__: Any) -> None:
                seen.append([value.clone() for value in objective.values])

        directory: Path = tmp_path_factory.mktemp("synthetic")
        trainer = build_trainer(
            TrainerSettings("cpu", "cpu", 1, "auto", "32-true"), [], [Watcher()], directory
        )
        trainer.fit(module)
        return [torch.stack(list(path)).numpy() for path in zip(*seen, strict=True)]

    return train


class Scripted(Draw):
    """Random numbers that are what the test says, by role; any other role is refused."""

    def __init__(self, **uniforms: np.ndarray) -> None:
        super().__init__(0)
        self._given = uniforms

    def stream(self, role: str, step: int) -> Any:
        given = self._given[role.replace("/", "_")]

        class Given:
            """One role's numbers."""

            def uniform_(self, out: Tensor) -> Tensor:
                return out.copy_(torch.from_numpy(np.asarray(given, dtype=np.float32)).reshape(out.shape))

        return Given()


@pytest.fixture(scope="session")
def scripted() -> type[Scripted]:
    """The class of scripted random numbers."""
    return Scripted
