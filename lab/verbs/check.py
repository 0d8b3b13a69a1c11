"""`lab check`: every analytic prediction against a simulation that could refute it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Column, Table

from lab.bar import progress_bar
from lab.checks.settings import CheckSettings, select_predictions
from lab.errors import CheckFailed
from lab.process import peak_memory_mb, seconds_since_start
from lab.provenance import provenance
from lab.runs import open_run
from lab.settings import build, whole_number
from lab.verbs.train import RUN_KEYS, is_dry_run, print_table, refuse_unread_keys, run_settings

if TYPE_CHECKING:
    from lab.checks.rows import Check, NullRow

_KEYS = tuple(field.name for field in dataclasses.fields(CheckSettings))
_SECONDS_PER_LAW = 1.5  # of one processor at full effort, as measured over all laws


def run(config: DictConfig) -> str:
    """Check and return the one-line result.

    Raises:
        BadInput: an unknown prediction or an impossible value.
        RunFailed: a simulation could not be carried out.
        CheckFailed: a law and its simulation disagree; all results are stored.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    refuse_unread_keys(resolved, (*RUN_KEYS, *_KEYS, "seed", "threads", "dry_run"))
    settings = build(CheckSettings, {key: resolved[key] for key in _KEYS})
    seed = whole_number(resolved["seed"], "seed", least=0)
    predictions = select_predictions(settings.prediction)
    from lab.checks.execute import carry_out, pieces_of
    from lab.checks.run import laws_of, not_simulated

    laws = laws_of(predictions)
    missing = not_simulated(laws)
    laws = [law for law in laws if ".".join(law) not in missing]
    if is_dry_run(resolved):
        _print_plan(predictions, laws, settings)
        return "dry run: nothing was computed"
    with open_run(run_settings(resolved, "check"), resolved) as held:
        pieces = pieces_of(laws, settings.nulls)
        with progress_bar() as progress:
            task = progress.add_task("simulating", total=len(pieces))

            def advance(name: str) -> None:
                progress.update(task, description=name, advance=1)

            how = (seed, settings.sample_factor, settings.most_points)
            carry_out(pieces, held.path, *how, settings.workers, advance)
        summary = _conclude([piece.name for piece in pieces], missing, settings, seed, held.path)
        held.write_summary(summary)
        held.finish()
    line = f"{held.path / 'report.html'}: {summary['result']}"
    if summary["failed"] or missing:
        print(line, flush=True)  # the last line of stdout; the error goes to stderr
        raise CheckFailed(summary["result"])
    return line


def _conclude(
    names: list[str], missing: list[str], settings: CheckSettings, seed: int, directory: Path
) -> dict[str, Any]:
    """Judge what is kept in the run's directory; write tables, figures and page; return the summary."""
    from lab.checks.execute import NULLS
    from lab.checks.report import write_check_report
    from lab.checks.store import read_checks, read_nulls, to_tree, write_tree
    from lab.checks.summary import result_line, summarise
    from lab.checks.verdict import judge, plant, smallest_planted_errors

    nulls = read_nulls(directory, NULLS) if NULLS in names else []
    kept = {name: read_checks(directory, name) for name in names if name != NULLS}
    unplanted = [check for rows, _ in kept.values() for check in rows]
    checks = plant(unplanted, settings.planted_error)
    verdict = judge(checks)
    smallest = smallest_planted_errors(unplanted) if settings.power else None
    summary = summarise(checks, verdict, smallest, {name: took for name, (_, took) in kept.items()}, nulls)
    summary |= {
        "not_simulated": missing,
        "seed": seed,
        **{key: getattr(settings, key) for key in ("quick", "effort", "planted_error", "workers")},
        "simulation_cpu_s": sum(took for _, took in kept.values()),
        "wall_clock_s": seconds_since_start(),
        "peak_rss_mb": peak_memory_mb(),
        **provenance(),
        "result": result_line(summary, missing, settings.planted_error),
    }
    details = {key: summary[key] for key in ("seed", "effort", "quick", "planted_error")} | provenance()
    write_tree(to_tree(checks, verdict, nulls, details), directory)
    write_check_report(checks, verdict, summary, nulls, details, directory)
    _print_worst(checks, summary, nulls)
    return summary


def _print_worst(checks: list[Check], summary: dict[str, Any], nulls: list[NullRow]) -> None:
    """Print the worst point of each prediction, and what chance alone gives."""
    from lab.checks.summary import null_lines

    points = {check.name: check for check in checks}
    table = Table(
        *(Column(name, no_wrap=True) for name in ("prediction", "points", "failed", "|z|")),
        "worst point: predicted, simulated",
    )
    for name, numbers in summary["predictions"].items():
        worst = points[numbers["worst_point"]]
        values = f"{worst.predicted:.4g}, {worst.simulated:.4g} ± {worst.standard_error:.1g}"
        table.add_row(
            name,
            str(numbers["n_points"]),
            str(numbers["n_failed"]),
            f"{numbers['worst_z']:.2f}",
            f"{worst.law}[{worst.point}]: {values}",
            style="red" if numbers["n_failed"] else None,
        )
    console = Console()
    console.print(table)
    blind = {
        name: numbers["smallest_planted_error"]
        for name, numbers in summary["laws"].items()
        if numbers.get("smallest_planted_error", 0.0) > 0.02
    }
    if blind and not summary["quick"]:
        shown = ", ".join(f"{name} ({100 * error:.1f} %)" for name, error in blind.items())
        console.print(f"An error of 2 % would not have been noticed in: {shown}")
    if nulls:
        chance = Table("chance alone", "exact", "simulated", "stated")
        for line in null_lines(nulls):
            simulated = "" if line.simulated is None else f"{line.simulated:.4g} ± {line.standard_error:.1g}"
            chance.add_row(line.name, _shown(line.exact), simulated, _shown(line.stated))
        console.print(chance)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _print_plan(predictions: list[str], laws: list[tuple[str, str]], settings: CheckSettings) -> None:
    from theory import PREDICTIONS

    each = [len(PREDICTIONS[prediction].law(law).points) for prediction, law in laws]
    points = sum(each if settings.most_points is None else (min(n, settings.most_points) for n in each))
    print_table(
        {
            "predictions": len(predictions),
            "laws": len(laws),
            "points": points,
            "seconds, about": _SECONDS_PER_LAW * len(laws) * settings.sample_factor / settings.workers,
            "memory a process (MiB), about": 400 + 400 * settings.sample_factor,
            "disk (MiB), about": 5,
        }
    )
