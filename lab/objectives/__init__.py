"""Objectives: where a noisy gradient comes from."""

from __future__ import annotations

from lab.objectives.settings import (
    OBJECTIVES,
    ObjectiveSettings,
    RLVRSettings,
    SFTSettings,
    build_objective_settings,
)

__all__ = ["OBJECTIVES", "ObjectiveSettings", "RLVRSettings", "SFTSettings", "build_objective_settings"]
