"""The page and the figures of `lab check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import norm

from lab.checks.rows import Check, NullRow
from lab.checks.summary import null_lines
from lab.checks.verdict import LEVEL, Verdict
from lab.figures.checks import check_figure
from lab.figures.style import save
from lab.report import Picture, Report, Row, write_report
from theory import PREDICTIONS

_NULLS = "What chance alone gives"


def write_check_report(
    checks: Sequence[Check],
    verdict: Verdict,
    summary: Mapping[str, Any],
    nulls: Sequence[NullRow],
    details: Mapping[str, Any],
    directory: Path,
) -> None:
    """Draw a figure for each prediction and write `report.html`.

    Args:
        checks: points of all laws.
        verdict: on them, in the same order.
        summary: from `lab.checks.summary.summarise`, with its one-line `result`.
        nulls: rows of the nulls, perhaps none.
        details: what a reader needs to trace the page, name and value.
        directory: the run.
    """
    report = Report(
        title="Does simulation agree with theory?",
        verdict=str(summary["result"]),
        introduction=[
            "Each law was derived symbolically (theory/) and is here confronted with a simulation of the process that "
            "it speaks of, which does not know the formula. z is the discrepancy in standard errors of the simulation. "
            "All points together form one family: with every law true, some point fails with probability "
            f"{LEVEL:g} (Holm). "
            "Laws marked ≈ are approximations; their stated error is taken off first, so that z is 0 within it.",
            "The smallest error seen is by how much a formula would have to be wrong for this very simulation to "
            "refute it.",
        ],
        columns=["points", "failed", "worst z", "smallest error seen"],
        sections=[*_law_sections(summary), *_null_sections(nulls)],
        pictures=_pictures(checks, verdict, directory / "figures"),
        details=[(name.replace("_", " "), _plain(value)) for name, value in details.items()],
        own_columns={_NULLS: ["exact", "simulated", "its standard error", "stated beforehand"]},
    )
    write_report(report, directory / "report.html")


def _law_sections(summary: Mapping[str, Any]) -> list[tuple[str, list[Row]]]:
    sections = []
    for prediction in summary["predictions"]:
        rows = []
        for law in PREDICTIONS[prediction].laws:
            numbers = summary["laws"].get(f"{prediction}.{law.name}")
            if numbers is None:
                continue
            seen = numbers.get("smallest_planted_error")
            shown = None if seen is None else f"{100 * seen:.2g} %"
            values = [numbers["n_points"], numbers["n_failed"], numbers["worst_z"], shown]
            meaning = law.statement if law.order is None else f"{law.statement} Approximate: {law.order}."
            rows.append(Row(law.name + ("" if law.order is None else "\N{NO-BREAK SPACE}≈"), values, meaning))
        sections.append((f"{PREDICTIONS[prediction].number}. {PREDICTIONS[prediction].title}", rows))
    return sections


def _null_sections(nulls: Sequence[NullRow]) -> list[tuple[str, list[Row]]]:
    rows = [
        Row(line.name, [line.exact, line.simulated, line.standard_error, line.stated], "")
        for line in null_lines(nulls)
    ]
    return [(_NULLS, rows)] if rows else []


def _plain(value: Any) -> str:
    """Return a value as people read it: a table of versions as a list, none as a dash."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return "–" if value is None else str(value)


def _pictures(checks: Sequence[Check], verdict: Verdict, directory: Path) -> list[Picture]:
    critical = float(norm.isf(LEVEL / (2 * len(checks))))
    pictures = []
    for name in dict.fromkeys(check.prediction for check in checks):
        places = [index for index, check in enumerate(checks) if check.prediction == name]
        prediction = PREDICTIONS[name]
        figure, data = check_figure(
            f"{prediction.number}. {prediction.title}",
            [checks[index] for index in places],
            verdict.z[places],
            verdict.failed[places],
            critical,
        )
        path = save(figure, data, directory, name)
        caption = (
            f"{prediction.title}: simulated against predicted for each law (bars: two standard errors and the stated "
            "tolerance; line: equality; ≈: approximate), and the z-score of each point; beyond the dashed lines a "
            "point fails."
        )
        pictures.append(Picture(path, caption))
    return pictures
