"""The follow-ups of a run in turn, its summary and its page."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lab.evaluation import pass_rate_interval
from lab.figures import run as figures
from lab.figures.style import save
from lab.follow_up.follow_up import Findings, FollowUp, Trained
from lab.follow_up.settings import FOLLOW_UPS
from lab.measurement_report import provenance_details
from lab.process import peak_memory_mb
from lab.report import Picture, Report, Row, format_number, write_report
from lab.trajectory.store import group, open_store

if TYPE_CHECKING:
    import xarray as xr


def follow_up(trained: Trained, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Do what follows on training, write `report.html`, and return the whole summary.

    Args:
        trained: the run; `trained.settings.follow_up` is set.
        summary: of the training.

    Raises:
        BadInput, Interrupted: see `lab.follow_up.pieces.Pieces`.
    """
    settings = trained.settings.follow_up
    assert settings is not None
    found = [
        make_follow_up(target, trained).find()
        for name, target in FOLLOW_UPS.items()
        if getattr(settings, name) is not None
    ]
    whole: dict[str, Any] = {"form": settings.form, **summary}
    for each in found:
        whole |= each.numbers
    seconds = dict(trained.pieces.seconds)
    lines = [summary["result"], *(each.line for each in found)]
    whole |= {
        "follow_up_s": {name: value for name, value in seconds.items() if name != "training"},
        "wall_clock_s": sum(seconds.values()),
        "peak_rss_mb": max(summary["peak_rss_mb"], peak_memory_mb()),
        "result": "; ".join(lines) + ("" if settings.form is None else f" [{settings.form}]"),
    }
    write_report(make_report(trained, whole, found, lines), trained.path / "report.html")
    return whole


def make_follow_up(target: str, trained: Trained) -> FollowUp:
    """Make the follow-up that `target`, as in `FOLLOW_UPS`, names."""
    module, name = target.split(":")
    made: FollowUp = getattr(import_module(module), name)(trained)
    return made


def make_report(
    trained: Trained, summary: Mapping[str, Any], found: list[Findings], lines: list[str]
) -> Report:
    """Put the page together."""
    settings, store = trained.settings, open_store(trained.path)
    assert settings.follow_up is not None and settings.policy is not None and settings.task is not None
    form = settings.follow_up.form
    label = f"{trained.path.parent.name}/{trained.path.name}"
    introduction = [
        f"{settings.policy.name} was trained on {settings.task.settings.name} for {settings.steps} steps "
        f"(objective {settings.objective.name}{', pure-noise twin' if settings.twin else ''}).",
        "One run is one observation. Intervals of pass rates and of their differences are over problems; sign-flip "
        "p-values ask whether this run's path is straighter, or easier to forecast, than its own increments in random "
        "directions. Neither says anything about other seeds.",
    ]
    if form is not None:
        introduction.insert(0, f"What this is of its study: {form}. Its numbers are those of that form only.")
    sections, pictures, samples = _learning(trained, store)
    for each in found:
        sections += each.sections
        pictures += each.pictures
    details = [
        (
            "configuration",
            f"policy={settings.policy.name} task={settings.task.settings.name} objective={settings.objective.name} "
            f"steps={settings.steps} seed={settings.seed}; the rest in config.yaml",
        ),
        ("seconds", ", ".join(f"{name} {value:.0f}" for name, value in trained.pieces.seconds.items())),
        ("peak memory", f"{summary['peak_rss_mb']:.0f} MiB"),
        *provenance_details(store.attrs),
    ]
    return Report(
        title=f"{label}: trained and followed up" + ("" if form is None else f", {form}"),
        verdict="; ".join(lines),
        introduction=introduction,
        columns=["this run"],
        sections=sections,
        pictures=pictures,
        samples=samples,
        details=details,
    )


def _learning(
    trained: Trained, store: xr.DataTree
) -> tuple[list[tuple[str, list[Row]]], list[Picture], list[tuple[str, list[tuple[str, str]]]]]:
    """Return table, figure and samples of the evaluations while training; nothing where there were none."""
    if "evaluation" not in store.children:
        return [], [], []
    evaluation = group(store, "evaluation")
    rates, half = evaluation["pass_rate"].values, pass_rate_interval(evaluation["correct"].values)
    ends = (("start", 0), ("end", -1))
    rows = [
        Row(
            f"pass rate at the {name}",
            [f"{format_number(float(rates[index]))} ± {half[index]:.3f}"],
            f"Share of sampled answers to held-out problems that were right, at the {name}; ± is 95 % over problems.",
        )
        for name, index in ends
    ]
    settings, sizes = trained.settings, evaluation.sizes
    curve = {settings.objective.name: (evaluation["step"].values.astype(float), rates, half)}
    drawn = figures.learning_curve(curve, f"1 run (seed {settings.seed})")
    caption = (
        f"Held-out pass rate while training, on {sizes['prompt']} problems x {sizes['rollout']} samples; band: 95 % "
        "over problems."
    )
    picture = Picture(save(*drawn, trained.path / "figures", "learning_curve"), caption)
    samples = []
    for title, index in (("before training", 0), ("after training", -1)):
        prompts = evaluation["sample_prompt"].values[index]
        completions = evaluation["sample_completion"].values[index]
        samples.append((title, [(str(a), str(b)) for a, b in zip(prompts, completions, strict=True)]))
    return [("Learning", rows)], [picture], samples
