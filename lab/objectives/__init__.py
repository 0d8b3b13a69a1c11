"""Objectives: where a noisy gradient comes from."""

from __future__ import annotations

from lab.objectives.family import ObjectiveSettings
from lab.objectives.settings import OBJECTIVES, RLVRSettings, SFTSettings, build_objective_settings
from lab.objectives.synthetic_settings import SyntheticSettings

__all__ = [
    "OBJECTIVES",
    "ObjectiveSettings",
    "RLVRSettings",
    "SFTSettings",
    "SyntheticSettings",
    "build_objective_settings",
]
