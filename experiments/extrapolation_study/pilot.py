"""Q7: can a short pilot predict the horizon of weight extrapolation that is best in hindsight?

    python -m experiments.extrapolation_study.pilot runs/q5_runs/q5_runs experiments/q7_pilot

The pilot is what is known at step 80. Each predictor turns it into a horizon, the number of steps beyond 80 to
extrapolate to, 0 being to stand still:

- `verdict`: the sentence of `lab measure` on the recorded points 0 to 80, "forecastable to N steps beyond the fit
  window"; 0 where it says anything else.
- `reach`: the verdict's rule without its test: the longest horizon up to which forecasts inside the pilot have positive
  skill, in lengths of the window they were fitted on, times the 60 steps of the window that is extrapolated. Two-point:
  fitted on 20-40 and 20-60, judged at 60 and 80. Damped: fitted on 0-60, judged at 80 (its damping needs four
  checkpoints).
- `rehearsal` (two-point): the horizon best in pass rate when checkpoints 20 to 60 are extrapolated, scaled likewise.
- `damping` is no horizon, but a score that may rank runs.

Hindsight is the horizon of `HORIZONS` with the highest pass rate on one half of the held-out problems, the shortest of
equal ones. Gains over standing still are scored on the other half and both ways averaged; a rehearsal chooses on one
half as well. Every model is judged on the same problems with the same uniforms. One run is one observation; what is
done with a run is stored at once, and the command given again goes on.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from experiments.analysis.statistics import interval
from experiments.collect import config_of, positions, runs_of, trained_by
from experiments.extrapolation_study.models import (
    FIRST,
    LAST,
    RULES,
    SEED,
    Window,
    correct,
    evaluation,
    problems_of,
)
from lab import open_series
from lab.draw import Draw
from lab.evaluation import average_at_k
from lab.extrapolation import build_extrapolator, compare_products, default_method
from lab.extrapolation.extrapolate import window
from lab.extrapolation.output_space import split_rows
from lab.extrapolation.products import gather_products
from lab.files import read_json, write_json
from lab.linearity import to_json
from lab.linearity.filters import UNFILTERED
from lab.linearity.measure import measure_trajectory
from lab.linearity.verdict import verdict
from lab.provenance import code_version
from lab.trajectory.series import RunSeries

Array = NDArray[np.float64]
Rates = Mapping[float, Sequence[float]]
"""Pass rate on each half of the problems, by horizon."""
Row = Mapping[str, Any]

HORIZONS = (0, 2, 5, 10, 20, 40, 80, 160)
ALWAYS = 20
SETTINGS = evaluation(rollouts=16)
REHEARSAL_LAST = 60
PREDICTORS = {"two_point": ("verdict", "reach", "rehearsal"), "damped": ("verdict", "reach")}
PERMUTATIONS = 9999
SKILLS = {
    "two-point, 20-60 to 80": ("two_point", 1, 3),
    "two-point, 20-40 to 60": ("two_point", 0, 2),
    "two-point, 20-40 to 80": ("two_point", 0, 3),
    "damped, 0-60 to 80": ("damped", 0, 4),
}
"""Skills inside the pilot by extrapolator, row of origin and checkpoint; as scores they were added after the run."""


def reach(steps: Array, origins: Sequence[int], skill: Array, span: float) -> float:
    """Return the longest horizon up to which skill is positive throughout, 0 where it is not at the nearest.

    Args:
        steps: [checkpoint].
        origins: [origin], rows; each forecast is fitted on all checkpoints up to its origin.
        skill: [origin, checkpoint]; what is NaN was not forecast.
        span: steps of the window that the answer is scaled to; a horizon counts in lengths of the window it was
            forecast from.
    """
    scaled: dict[float, list[float]] = {}
    for row, origin in enumerate(origins):
        for column in np.flatnonzero(~np.isnan(skill[row])):
            length = (steps[column] - steps[origin]) / (steps[origin] - steps[0])
            scaled.setdefault(round(float(length * span), 6), []).append(float(skill[row, column]))
    longest = 0.0
    for horizon in sorted(scaled):
        if min(scaled[horizon]) <= 0:
            break
        longest = horizon
    return longest


def best_horizon(rates: Rates, half: int) -> float:
    """Return the horizon with the highest pass rate on a half; of equal ones the shortest."""
    return min(rates, key=lambda horizon: (-rates[horizon][half], horizon))


def gain(rates: Rates, chosen: Sequence[float]) -> float:
    """Return the pass rate at the chosen horizons minus that of standing still, averaged over both halves.

    Args:
        rates: also of horizon 0.
        chosen: the horizon chosen on each half, or without either; it is scored on the other.
    """
    return float(np.mean([rates[chosen[1 - half]][half] - rates[0][half] for half in (0, 1)]))


def rank_correlation(
    predicted: Array, best: Array, tasks: Sequence[str], generator: np.random.Generator
) -> dict[str, Any]:
    """Return Spearman's correlation of what one half predicts with what is best on the other, averaged both ways.

    Args:
        predicted: [run, half].
        best: [run, half].
        tasks: [run]; `p_within_tasks` permutes runs of one task alone.
        generator: of permutations.

    Returns:
        `rho`, None where either side is constant; two-sided permutation p-values of whole runs.
    """
    other = best[:, ::-1]
    if min(np.ptp(side, axis=0).min() for side in (predicted, best)) == 0:
        return {"rho": None, "p": None, "p_within_tasks": None, "runs": len(predicted)}
    ranks, targets = (_standardised(rankdata(side, axis=0)) for side in (predicted, other))

    def rho(order: NDArray[np.int64]) -> float:
        return float((ranks[order] * targets).mean())

    labels = np.asarray(tasks)
    parts = [np.flatnonzero(labels == task) for task in dict.fromkeys(tasks)]
    observed = rho(np.arange(len(ranks)))
    counts = {"p": 1, "p_within_tasks": 1}
    for _ in range(PERMUTATIONS):
        within = np.empty(len(ranks), dtype=np.int64)
        for part in parts:
            within[part] = generator.permutation(part)
        orders = {"p": generator.permutation(len(ranks)), "p_within_tasks": within}
        for name, order in orders.items():
            counts[name] += abs(rho(order)) >= abs(observed) - 1e-12
    return {
        "rho": observed,
        **{name: count / (1 + PERMUTATIONS) for name, count in counts.items()},
        "runs": len(predicted),
    }


def _standardised(ranks: Array) -> Array:
    return np.asarray((ranks - ranks.mean(axis=0)) / ranks.std(axis=0))


def horizon_of_verdict(sentence: str) -> float:
    """Return the N of "forecastable to N steps beyond the fit window", 0 where the verdict says anything else."""
    found = re.search(r"; forecastable to (\S+) steps", sentence)
    return float(found.group(1)) if found else 0.0


def pilot_of(run: Path) -> dict[str, Any]:
    """Return what the weights up to step 80 say: the verdict, skills inside the pilot, and the reach they give."""
    recorded = RunSeries(run)
    raw, free = positions(recorded)
    known = recorded.steps <= LAST
    measured, _ = measure_trajectory(
        raw[known],
        recorded.steps[known],
        "weights",
        UNFILTERED,
        Draw(0).generator("walks of the pilot"),
        free[known],
    )
    found: dict[str, Any] = {"verdict": verdict(measured)}
    series = open_series(run)
    for method, first, origins in (("two_point", FIRST, (1, 2)), ("damped", 0, (3,))):
        part = series.select(window(series.steps, first, LAST))
        compared = compare_products(
            part.steps,
            gather_products(part),
            {method: build_extrapolator(default_method(method), RULES)},
            origins,
        )
        skill = 1 - compared.errors[0] / compared.still
        found[method] = {
            "steps": part.steps,
            "origins": part.steps[list(origins)],
            "skill": skill,
            "reach": reach(part.steps, origins, skill, LAST - FIRST),
        }
    return found


def halves_of(config: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the held-out problems in each half."""
    return split_rows([problem.key for problem in problems_of(config, SETTINGS)], 0.5)


def numbers_of(run: Path) -> dict[str, Any]:
    """Return the pilot of a run, what it predicts, and pass rates at all horizons, on each half of the problems."""
    config = config_of(run)
    halves = halves_of(config)

    def judged(model: Path) -> list[float]:
        table = correct(config, model, SETTINGS)
        return [average_at_k(table[half]) for half in halves]

    pilot = pilot_of(run)
    rehearsal = {0.0: judged(run / f"checkpoint-{REHEARSAL_LAST}")}
    earlier = Window(run, FIRST, REHEARSAL_LAST)
    shrink = (REHEARSAL_LAST - FIRST) / (LAST - FIRST)
    for horizon in HORIZONS[1:]:
        with earlier.model("two_point", REHEARSAL_LAST + horizon * shrink) as model:
            rehearsal[horizon] = judged(model)
    still = judged(run / f"checkpoint-{LAST}")
    whole = Window(run)
    rates: dict[str, Any] = {}
    predicted: dict[str, Any] = {}
    for method, names in PREDICTORS.items():
        given = {
            "verdict": [horizon_of_verdict(pilot["verdict"])] * 2,
            "reach": [pilot[method]["reach"]] * 2,
            "rehearsal": [best_horizon(rehearsal, half) for half in (0, 1)],
        }
        predicted[method] = {name: given[name] for name in names}
        rates[method] = {0.0: still}
        for horizon in sorted({*HORIZONS, *sum(predicted[method].values(), [])} - {0}):
            with whole.model(method, LAST + horizon) as model:
                rates[method][horizon] = judged(model)
    return {
        "pilot": pilot,
        "damping": whole.details["damped"]["damping"],
        "predicted": predicted,
        "problems": [len(half) for half in halves],
        "rehearsal": _keyed(rehearsal),
        "rates": {method: _keyed(table) for method, table in rates.items()},
        "trained": {
            f"{horizon:g}": judged(run / f"checkpoint-{LAST + horizon}")
            for horizon in HORIZONS
            if horizon and (run / f"checkpoint-{LAST + horizon}").exists()
        },
    }


def _keyed(rates: Rates) -> dict[str, Sequence[float]]:
    return {f"{horizon:g}": rates[horizon] for horizon in sorted(rates)}


def rates_of(row: Row, method: str) -> dict[float, Sequence[float]]:
    """Return the stored pass rates of a run by horizon."""
    return {float(horizon): rates for horizon, rates in row["rates"][method].items()}


def hindsight_of(row: Row, method: str) -> list[float]:
    """Return the horizon of `HORIZONS` that is best on each half."""
    rates = {horizon: each for horizon, each in rates_of(row, method).items() if horizon in HORIZONS}
    return [best_horizon(rates, half) for half in (0, 1)]


def over_tasks(rows: Sequence[Row], values: Sequence[float]) -> dict[str, Any]:
    """Return the t interval over seeds by task, and that of the means over tasks of each seed that has all."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    table = {(row["task"], row["seed"]): value for row, value in zip(rows, values, strict=True)}
    seeds = sorted({seed for _, seed in table})
    return {
        **{task: interval(table[task, seed] for seed in seeds if (task, seed) in table) for task in tasks},
        "all tasks": interval(
            float(np.mean([table[task, seed] for task in tasks]))
            for seed in seeds
            if all((task, seed) in table for task in tasks)
        ),
    }


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Return, of each method, gains over standing still, regrets, and how well predictions rank runs."""
    tasks = [row["task"] for row in rows]
    found: dict[str, Any] = {
        "verdicts": sorted({row["pilot"]["verdict"] for row in rows}),
        "damping": over_tasks(rows, [row["damping"] for row in rows]),
        "training_on": {
            horizon: over_tasks(
                rows,
                [
                    float(np.mean(np.subtract(row["trained"][horizon], row["rates"]["two_point"]["0"])))
                    for row in rows
                ],
            )
            for horizon in rows[0]["trained"]
        },
    }
    skills = {
        name: [row["pilot"][method]["skill"][origin][target] for row in rows]
        for name, (method, origin, target) in SKILLS.items()
    }
    found["pilot_skill"] = {name: over_tasks(rows, values) for name, values in skills.items()}
    for method, names in PREDICTORS.items():
        rates = [rates_of(row, method) for row in rows]
        hindsight = [hindsight_of(row, method) for row in rows]
        at_best = np.array([gain(each, chosen) for each, chosen in zip(rates, hindsight, strict=True)])
        zero = [float(np.mean([horizon == 0 for horizon in chosen])) for chosen in hindsight]
        one: dict[str, Any] = {
            "gain_by_horizon": {
                f"{horizon:g}": over_tasks(rows, [gain(each, [horizon] * 2) for each in rates])
                for horizon in HORIZONS
                if horizon
            },
            "hindsight": {
                "gain": over_tasks(rows, list(at_best)),
                "share_zero": {
                    **{
                        task: float(np.mean([z for z, own in zip(zero, tasks, strict=True) if own == task]))
                        for task in dict.fromkeys(tasks)
                    },
                    "all tasks": float(np.mean(zero)),
                },
                "chosen": {
                    f"{horizon:g}": sum(chosen.count(horizon) for chosen in hindsight) for horizon in HORIZONS
                },
                "training_on_20_minus_this": over_tasks(
                    rows,
                    [
                        float(np.mean(row["trained"]["20"])) - float(np.mean(each[0])) - best
                        for row, each, best in zip(rows, rates, at_best, strict=True)
                    ],
                ),
                "agreement_of_halves": rank_correlation(
                    np.array(hindsight), np.array(hindsight), tasks, Draw(0).generator("permutations")
                ),
            },
            "predictors": {},
        }
        candidates = {
            **{name: [row["predicted"][method][name] for row in rows] for name in names},
            f"always {ALWAYS}": [[float(ALWAYS)] * 2 for _ in rows],
        }
        for name, chosen in candidates.items():
            gains = np.array([gain(each, pair) for each, pair in zip(rates, chosen, strict=True)])
            one["predictors"][name] = {
                "gain": over_tasks(rows, list(gains)),
                "regret": over_tasks(rows, list(at_best - gains)),
                "chosen": {
                    f"{horizon:g}": sum(pair.count(horizon) for pair in chosen)
                    for horizon in sorted({each for pair in chosen for each in pair})
                },
                "rank_correlation": rank_correlation(
                    np.array(chosen), np.array(hindsight), tasks, Draw(0).generator("permutations")
                ),
            }
        scores = {"damping": [row["damping"] for row in rows], **skills}
        ranked = {
            name: rank_correlation(
                np.array([values] * 2).T, np.array(hindsight), tasks, Draw(0).generator("permutations")
            )
            for name, values in scores.items()
        }
        one["damping_as_score"] = ranked.pop("damping")
        one["skill_as_score_added_after"] = ranked
        found[method] = one
    return found


def document(study: Path, rows: Sequence[Row], about: dict[str, Any]) -> dict[str, Any]:
    """Return what is stored: rows, collected by the code `about`, their summary, and what it takes to repeat them."""
    config = config_of(next(runs_of(study))[1])
    return {
        "study": study.name,
        "command": f"lab sweep experiment={study.parent.name}",
        "trained_by": trained_by(study),
        "collected_by": about,
        "summarised_by": code_version(),
        "seeds": sorted({row["seed"] for row in rows}),
        "config": {
            name: config[name] for name in ("steps", "objective", "optimizer", "recorder", "generation")
        },
        "fitted_on_steps": [FIRST, LAST],
        "rehearsal_fitted_on_steps": [FIRST, REHEARSAL_LAST],
        "horizons": HORIZONS,
        "evaluation": {
            "problems": SETTINGS.problems,
            "rollouts": SETTINGS.rollouts,
            "temperature": SETTINGS.temperature,
            "seed": SEED,
        },
        "permutations": PERMUTATIONS,
        "summary": summarise(rows),
        "runs": rows,
    }


def _said(found: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{task} {each['mean']:+.4f} [{each['low']:+.4f}, {each['high']:+.4f}]"
        for task, each in found.items()
    )


def print_table(summary: Mapping[str, Any]) -> None:
    """Print what the findings quote."""
    print("damping:", _said(summary["damping"]))
    for name, each in summary["pilot_skill"].items():
        print(f"skill in the pilot, {name}: {_said(each)}")
    for horizon, each in summary["training_on"].items():
        print(f"training on by {horizon}: {_said(each)}")
    for method in PREDICTORS:
        one = summary[method]
        for horizon, each in one["gain_by_horizon"].items():
            print(f"{method} by {horizon}: {_said(each)}")
        print(f"{method}, hindsight: {_said(one['hindsight']['gain'])}")
        for key in ("share_zero", "chosen", "agreement_of_halves"):
            print(f"  {key}: {one['hindsight'][key]}")
        print(f"  training on by 20 minus this: {_said(one['hindsight']['training_on_20_minus_this'])}")
        print(f"  damping as score: {one['damping_as_score']}")
        for name, each in one["skill_as_score_added_after"].items():
            print(f"  skill as score, {name}: {each}")
        for name, each in one["predictors"].items():
            print(f"{method}, {name}: gain {_said(each['gain'])}")
            print(f"  regret {_said(each['regret'])}")
            print(f"  chosen {each['chosen']}, rank correlation {each['rank_correlation']}")


def main(study: Path, directory: Path) -> None:
    """Do what is not done yet, then store and print."""
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / "results.json"
    stored = read_json(target) if target.exists() else {"runs": []}
    rows: list[Row] = stored["runs"]
    done = {(row["task"], row["seed"]) for row in rows}
    about = stored.get("collected_by") or code_version()
    for axes, run in runs_of(study):
        key = (axes["task"], int(axes["seed"]))
        if key in done:
            continue
        rows.append(to_json({"task": key[0], "seed": key[1], **numbers_of(run)}))
        print(*key, "done", flush=True)
        write_json(target, {"collected_by": about, "runs": rows})
    found = to_json(document(study, rows, about))
    write_json(target, found)
    print_table(found["summary"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    main(arguments.study, arguments.directory)
