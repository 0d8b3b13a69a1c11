"""Pass rates of models on the same held-out problems, and what one is above another, paired by problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lab.draw import Draw
from lab.evaluation import paired_difference


@dataclass(frozen=True)
class Score:
    """One evaluated model, or the reason why there is none."""

    rates: np.ndarray
    """float64 [problem]: share of completions that were right; NaN where none could be judged."""
    half_width: float
    """Of the 95 % interval of the mean over problems; NaN where it is unknown."""
    refused: str | None = None
    """Why there is no such model; then there are no rates."""

    @staticmethod
    def of(piece: Mapping[str, Any]) -> Score:
        """Return the score that a stored piece holds."""
        if piece.get("refused") is not None:
            return Score(np.zeros(0), float("nan"), str(piece["refused"]))
        half = piece["interval_half_width"]
        rates = np.array(piece["pass_rate_of_problem"], dtype=np.float64)
        return Score(rates, float("nan") if half is None else float(half))

    @property
    def mean(self) -> float:
        """Mean over the problems of which something was judged; NaN where there are none."""
        known = self.rates[np.isfinite(self.rates)]
        return float(known.mean()) if len(known) else float("nan")

    def numbers(self) -> dict[str, Any]:
        """Return what stands in a summary."""
        return {"pass_rate": self.mean, "interval_half_width": self.half_width}


def difference(first: Score, second: Score, draw: Draw) -> dict[str, Any]:
    """Return by how much `first` is above `second`, with a 95 % bootstrap interval over problems.

    Args:
        first, second: on the same problems in the same order, and not refused.
        draw: of the run; every call resamples the same problems.
    """
    return asdict(paired_difference(first.rates, second.rates, draw.generator("bootstrap")))


def compare_targets(
    standing: Score,
    actual: Mapping[int, Score],
    jumped: Mapping[tuple[str, int], Score],
    draw: Draw,
) -> list[dict[str, Any]]:
    """Return for each target step what was reached there, beside standing still and beside training on.

    Args:
        standing: the last checkpoint fitted on.
        actual: step -> the run's own checkpoint of that step, where there is one.
        jumped: (method, step) -> the extrapolated model.
        draw: of the run.

    Returns:
        of each step in turn: `step`, `actual` (null where there is none) and `methods`, by name; of each
        `pass_rate`, `interval_half_width` and the paired differences `over_persistence` and `over_actual`.
    """
    targets = []
    for step in sorted({step for _, step in jumped} | set(actual)):
        trained_on = actual.get(step)
        methods = {}
        for (method, target), score in jumped.items():
            if target != step:
                continue
            known = score.refused is None
            methods[method] = {
                **score.numbers(),
                "over_persistence": difference(score, standing, draw) if known else None,
                "over_actual": difference(score, trained_on, draw) if known and trained_on else None,
                "refused": score.refused,
            }
        beside = trained_on and {
            **trained_on.numbers(),
            "over_persistence": difference(trained_on, standing, draw),
        }
        targets.append({"step": step, "actual": beside, "methods": methods})
    return targets
