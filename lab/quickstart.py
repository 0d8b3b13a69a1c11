"""The main job: train by RL, by SFT and as a pure-noise twin; measure all three; say what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from lab.evaluation import pass_rate_interval
from lab.figures import run as figures
from lab.figures.phase_diagram import placed_runs
from lab.figures.style import save
from lab.linearity import verdict
from lab.linearity.placement import Placement
from lab.measure_settings import MeasureSettings
from lab.measurement import Measurement, measure
from lab.measurement_report import draw_measurements, measurement_sections, provenance_details
from lab.placements import place_run, placement_rows, to_numbers
from lab.process import peak_memory_mb, seconds_since_start
from lab.report import Picture, Report, Row, write_report
from lab.runs import Run
from lab.training import TrainSettings, train
from lab.trajectory.store import group, open_store

LABELS = ("rl", "sft", "twin")
_TITLES = {"rl": "RL", "sft": "SFT", "twin": "pure-noise twin of RL"}
_PHASE_CAPTION = (
    "Where the runs lie: left the R² that theory expects, right the skill of a forecast as far ahead as the window is "
    "long. Crosses: 95 % intervals. Right of the black line in the left map, or below it, one coordinate's R² is not "
    "beyond chance; outside the one in the right map, extrapolating does harm."
)


@dataclass(frozen=True)
class Plan:
    """The three runs of a quickstart: settings and resolved configuration of each, by label."""

    settings: dict[str, TrainSettings]
    configs: dict[str, dict[str, Any]]
    measure: MeasureSettings


def quickstart(plan: Plan, run: Run) -> dict[str, Any]:
    """Train what is not trained yet, measure, draw and write; return the summary.

    Raises:
        BadInput, RunFailed, Interrupted: see `lab.training.train`.
    """
    stores: dict[str, xr.DataTree] = {}
    for label in LABELS:
        with run.child(label, plan.configs[label]) as child:
            if not child.finished:
                train(plan.settings[label], child, title=_TITLES[label])
            stores[label] = open_store(child.path)
    measured = {
        label: measure(store, plan.measure.protocol, plan.measure.flips) for label, store in stores.items()
    }
    placements = {label: place_run(store) for label, store in stores.items()}
    summary = summarise(stores, measured)
    for label, placement in placements.items():
        summary[label]["placement"] = to_numbers(placement)
    pictures = draw_figures(stores, measured, placements, run.path / "figures", plan)
    report = make_report(stores, measured, placements, summary, pictures, plan)
    write_report(report, run.path / "report.html")
    summary |= {"wall_clock_s": seconds_since_start(), "peak_rss_mb": peak_memory_mb()}
    run.write_summary(summary)
    run.finish()
    return summary


def summarise(stores: Mapping[str, xr.DataTree], measured: Mapping[str, Measurement]) -> dict[str, Any]:
    """Return the numbers that scripts read: `rl`, `sft`, `twin`, `verdict` and a one-line `result`."""
    summary: dict[str, Any] = {}
    for label, store in stores.items():
        rates = group(store, "evaluation")["pass_rate"].values
        summary[label] = {
            **measured[label].numbers,
            "pass_rate": {"start": float(rates[0]), "end": float(rates[-1])},
        }
    for kind, numbers in measured["rl"].numbers.items():
        twin = measured["twin"].numbers[kind]
        numbers["nulls"]["twin"] = {
            name: twin[name] for name in ("r2_median", "r2_share_above_0_7", "skill", "skill_damped")
        } | {"n_runs": 1, "is": "pure-noise twin: the same run, advantages permuted within each group"}
    line = verdict(measured["rl"].numbers["weights"])
    rl = summary["rl"]["pass_rate"]
    summary["verdict"] = line
    summary["result"] = f"held-out pass rate {rl['start']:.2f} -> {rl['end']:.2f}; {line}"
    return summary


def draw_figures(
    stores: Mapping[str, xr.DataTree],
    measured: Mapping[str, Measurement],
    placements: Mapping[str, Placement | None],
    directory: Path,
    plan: Plan,
) -> list[Picture]:
    """Draw and write all figures; return them with captions."""
    note = f"1 seed ({plan.settings['rl'].seed}), {len(measured['rl'].steps)} recorded steps"
    rates = {}
    for label, store in stores.items():
        evaluation = group(store, "evaluation")
        half = pass_rate_interval(evaluation["correct"].values)
        rates[label] = (evaluation["step"].values.astype(float), evaluation["pass_rate"].values, half)
    problems = group(stores["rl"], "evaluation").sizes
    caption = (
        f"Held-out pass rate while training, on {problems['prompt']} problems x {problems['rollout']} samples; "
        "bands: 95 % over problems. The twin gets the same noise and no signal: it should not learn."
    )
    drawn = figures.learning_curve(rates, note)
    pictures = [Picture(save(*drawn, directory, "learning_curve"), caption)]
    pictures += draw_measurements(dict(measured), note, directory)
    known = {_TITLES[label]: placed for label, placed in placements.items() if placed is not None}
    if known:
        drawn = placed_runs(known, len(measured["rl"].steps), note)
        pictures.append(Picture(save(*drawn, directory, "phase_diagram"), _PHASE_CAPTION))
    return pictures


def make_report(
    stores: Mapping[str, xr.DataTree],
    measured: Mapping[str, Measurement],
    placements: Mapping[str, Placement | None],
    summary: Mapping[str, Any],
    pictures: list[Picture],
    plan: Plan,
) -> Report:
    """Put the page together."""
    settings = plan.settings["rl"]
    assert settings.policy is not None
    sections = [
        (
            "Learning",
            [
                Row(
                    f"pass rate at the {name}",
                    [summary[label]["pass_rate"][name] for label in LABELS],
                    f"Share of sampled answers to held-out problems that were right, at the {name}.",
                )
                for name in ("start", "end")
            ],
        )
    ]
    sections += measurement_sections(dict(measured))
    sections.append(("Place on the phase diagram: weights", placement_rows(placements)))
    samples = []
    evaluation = group(stores["rl"], "evaluation")
    for title, index in (("before RL", 0), ("after RL", -1)):
        prompts = evaluation["sample_prompt"].values[index]
        completions = evaluation["sample_completion"].values[index]
        samples.append((title, [(str(a), str(b)) for a, b in zip(prompts, completions, strict=True)]))
    details = [
        ("configuration", f"policy={settings.policy.name} steps={settings.steps} seed={settings.seed}"),
        ("protocol", plan.measure.protocol),
        *provenance_details(stores["rl"].attrs),
    ]
    return Report(
        title="Does RL with verifiable rewards move in a straight line?",
        verdict=summary["verdict"],
        introduction=[
            f"A small language model was trained for {settings.steps} steps by RL with verifiable rewards "
            "(GRPO), and from the same start by supervised fine-tuning (SFT) with as many updates. A third run is "
            "the pure-noise twin of the RL run: the same rollouts and noise, but advantages shuffled within each "
            "group, so that there is nothing to learn.",
            "One run is one observation. The sign-flip p-values ask whether this run's path is straighter, or "
            "easier to forecast, than its own increments in random directions; they say nothing about other seeds.",
        ],
        columns=[_TITLES[label] for label in LABELS],
        sections=sections,
        pictures=pictures,
        samples=samples,
        details=details,
    )
