"""What the checks come to, by prediction and by law: the numbers of `summary.json` and the one-line result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lab.checks.rows import Check, NullRow
from lab.checks.verdict import LEVEL, Verdict

SHOWN_FAILURES = 5


def summarise(
    checks: Sequence[Check],
    verdict: Verdict,
    smallest: Mapping[str, float] | None,
    cpu_seconds: Mapping[str, float],
    nulls: Sequence[NullRow],
) -> dict[str, Any]:
    """Numbers by prediction and by law.

    Args:
        checks: points of all laws.
        verdict: on them, in the same order.
        smallest: smallest planted error that is seen, by `prediction.law`; None where it was not asked for.
        cpu_seconds: what each law took, by `prediction.law`.
        nulls: rows of the nulls.
    """
    predictions = dict.fromkeys(check.prediction for check in checks)
    laws = dict.fromkeys(f"{check.prediction}.{check.law}" for check in checks)
    by_law = {
        name: {
            **_numbers(checks, verdict, [f"{c.prediction}.{c.law}" == name for c in checks]),
            "cpu_seconds": cpu_seconds[name],
            **({} if smallest is None else {"smallest_planted_error": smallest[name]}),
        }
        for name in laws
    }
    return {
        "n_points": len(checks),
        "n_failed": int(verdict.failed.sum()),
        "failed": [check.name for check, failed in zip(checks, verdict.failed, strict=True) if failed],
        "family_wise_level": LEVEL,
        "predictions": {
            name: _numbers(checks, verdict, [check.prediction == name for check in checks])
            for name in predictions
        },
        "laws": by_law,
        "laws_not_rejected": [name for name, numbers in by_law.items() if numbers["n_failed"] == 0],
        "nulls": [dataclasses.asdict(row) for row in nulls],
        "nulls_not_as_stated": [f"{row.null}: {row.statistic}" for row in nulls if row.as_stated is False],
    }


@dataclasses.dataclass(frozen=True)
class NullLine:
    """One number of a null, from theory and by simulation, as far as there is either."""

    name: str
    exact: float | None
    simulated: float | None
    standard_error: float | None
    stated: float | None


def null_lines(nulls: Sequence[NullRow]) -> list[NullLine]:
    """Rows of the nulls with theory and simulation of the same number side by side."""
    found: dict[str, dict[str, NullRow]] = {}
    for row in nulls:
        found.setdefault(f"{row.null}: {row.statistic}", {})[row.source] = row
    lines = []
    for name, sources in found.items():
        exact, simulated = sources.get("exact"), sources.get("simulated")
        lines.append(
            NullLine(
                name,
                None if exact is None else exact.value,
                None if simulated is None else simulated.value,
                None if simulated is None else simulated.standard_error,
                next(iter(sources.values())).stated,
            )
        )
    return lines


def _numbers(checks: Sequence[Check], verdict: Verdict, chosen: Sequence[bool]) -> dict[str, Any]:
    places = np.flatnonzero(chosen)
    worst = places[np.abs(verdict.z[places]).argmax()]
    return {
        "n_points": len(places),
        "n_failed": int(verdict.failed[places].sum()),
        "worst_z": float(abs(verdict.z[worst])),
        "worst_point": checks[worst].name,
    }


def result_line(summary: Mapping[str, Any], not_simulated: Sequence[str], planted_error: float) -> str:
    """The outcome in one line."""
    points, laws, predictions = summary["n_points"], summary["laws"], summary["predictions"]
    if planted_error:
        rejected = len(laws) - len(summary["laws_not_rejected"])
        return f"planted error {planted_error:g}: {rejected} of {len(laws)} laws rejected"
    if not_simulated:
        return f"not simulated: {_listed(not_simulated)}"
    plural = "prediction" if len(predictions) == 1 else "predictions"
    if not summary["failed"]:
        return f"all {points} points of {len(predictions)} {plural} agree"
    failed = f"{summary['n_failed']} of {points} points of {len(predictions)} {plural} failed"
    return f"{failed}: {_listed(summary['failed'])}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_FAILURES} more" if len(names) > SHOWN_FAILURES else ""
    return ", ".join(names[:SHOWN_FAILURES]) + more
