"""Analytic predictions: one per file, each a set of laws derived in sympy, with the points at which to check it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # brings in sympy, which whoever only needs the names shall not wait for
    from theory.prediction import Prediction

PREDICTION_MODULES: tuple[str, ...] = (
    "grpo_drift",
    "finite_group",
    "reward_flips",
    "gradient_noise",
    "gaussian_r_squared",
    "curved_bowl",
    "adam",
    "low_pass",
    "forecast_error",
    "increment_persistence",
    "low_rank_walk",
    "phase_diagram",
)


class _Registry(Mapping[str, "Prediction"]):
    """Predictions by module name, imported on first look."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._modules = modules
        self._loaded: Mapping[str, Prediction] | None = None

    def _load(self) -> Mapping[str, Prediction]:
        if self._loaded is None:
            found: dict[str, Prediction] = {}
            for module in self._modules:
                prediction = importlib.import_module(f"{__name__}.{module}").PREDICTION
                if prediction.name != module:
                    raise ValueError(f"theory.{module} holds a prediction named {prediction.name!r}")
                found[module] = prediction
            ordered = sorted(found.items(), key=lambda item: item[1].number)
            self._loaded = MappingProxyType(dict(ordered))
        return self._loaded

    def __getitem__(self, name: str) -> Prediction:
        return self._load()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())


PREDICTIONS: Mapping[str, Prediction] = _Registry(PREDICTION_MODULES)
"""Module name -> `Prediction`, in the order of `Prediction.number`."""

__all__ = ["PREDICTIONS", "PREDICTION_MODULES"]
