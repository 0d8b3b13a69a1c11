"""Jumping along a run's own displacement, and the plain alternatives that such jumps are compared with."""

from __future__ import annotations

from lab.regrounding.settings import REGROUNDINGS, RegroundingSettings, build_regrounding_settings

__all__ = ["REGROUNDINGS", "RegroundingSettings", "build_regrounding_settings"]
