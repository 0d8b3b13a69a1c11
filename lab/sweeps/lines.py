"""What a person reads while a sweep runs: one line a trial, and times in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.sweeps.worker import Ended

_SHOWN = 4


def trial_line(ended: Ended) -> str:
    """Return a trial in one line: point, values, state, time, the first metrics or the error."""
    values = " ".join(f"{key}={_short(value)}" for key, value in ended.values.items())
    defined = [(name, value) for name, value in ended.metrics.items() if not math.isnan(value)]
    metrics = "  ".join(f"{name} {value:.4g}" for name, value in defined[:_SHOWN])
    return (
        f"point {ended.point}: {values}: {ended.state} in {duration(ended.seconds)}  {ended.error or metrics}"
    )


def duration(seconds: float | None) -> str:
    """Return seconds as a person says them; `unknown` for None."""
    if seconds is None or math.isnan(seconds):
        return "unknown"
    if seconds < 99.5:
        return f"{seconds:.3g} s"
    minutes = seconds / 60
    if minutes < 99.5:
        return f"{minutes:.3g} min"
    return f"{minutes / 60:.3g} h"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
