"""The phase diagram simulated: R² and forecast skill over (curvature x horizon, S), beside what theory says.

    python experiments/phase_diagram/phase_diagram.py --seeds 8

Each cell of the grid is a noisy quadratic trained by SGD in the module. R² is taken over the window of 14 checkpoints,
skill over a horizon as long as the window; the cells draw noise of their own, so that their discrepancies are
independent. A cell without signal and curvature gives the null's quantile. result.json beside this file holds what came
out. Started again, the script goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.synthetic_cells import positions, train_cells
from lab.checks.estimate import Estimate, mean_estimate
from lab.checks.pooled import best_damping, jackknife, products, representatives, two_point_skill
from lab.checks.quantiles import quantile_estimate
from lab.files import write_json
from lab.linearity import r_squared
from lab.provenance import provenance
from lab.runs import RunSettings, open_run
from theory.phase_diagram import phase_diagram

Array = NDArray[np.float64]

RESULT = Path(__file__).with_name("result.json")
CHECKPOINTS = 14
WINDOW = CHECKPOINTS - 1
"""Updates in the window; the horizon is as long."""
LEVEL = 0.95
CURVATURES = tuple(np.linspace(0.0, np.sqrt(20.0), 12) ** 2)
SIGNALS = tuple(np.geomspace(0.1, 30.0, 12))
REPLICATES, COORDINATES = 160, 16
_SLICES = 20  # of a run: blocks of the jackknife


def cell(curvature_horizon: float, signal: float) -> dict[str, Any]:
    """Overrides of `objective=quadratic` with unit learning rate and noise, at a place on the diagram.

    The start lies so far from the bottom, or the slope is such, that the mean displacement over the window is S times
    the standard deviation of the displacement.
    """
    rho = float(np.exp(-curvature_horizon / WINDOW))
    gathered = float(np.sqrt((rho ** (2 * np.arange(WINDOW))).sum()))
    flat = curvature_horizon == 0
    return {
        "start": 0.0 if flat else signal * gathered / (1 - rho**WINDOW),
        "slope": signal * gathered / WINDOW if flat else 0.0,
        "spectrum": {"name": "constant", "largest": 1 - rho, "smallest": None, "exponent": None},
    }


def grid() -> list[dict[str, Any]]:
    """All cells, curvature by curvature, and the one that has neither curvature nor signal."""
    return [*(cell(a, s) for a in CURVATURES for s in SIGNALS), cell(0.0, 0.0)]


def forecasts(slices: Array, draws: int) -> tuple[Estimate, Estimate]:
    """Skill of the two-point forecast, and the best damping, from inner products [slice, interval, interval].

    The skill at the best damping, a square, has no standard error where it is zero; the damping itself has one.
    """
    steps = np.arange(2 * WINDOW + 1, dtype=np.float64)
    kept = np.append(np.arange(WINDOW + 1), 2 * WINDOW)

    def pooled(mean: Array, best: bool) -> float:
        values = representatives(mean)[kept]
        return best_damping(values, steps[kept])[0] if best else two_point_skill(values, steps[kept])

    two_point = jackknife(slices, lambda mean: pooled(mean, False), draws)
    return two_point, jackknife(slices, lambda mean: pooled(mean, True), draws)


def statistics(runs: list[Path]) -> tuple[dict[str, Array], dict[str, Array], Estimate]:
    """Simulated maps, their standard errors, each [curvature, signal], and the null's quantile."""
    cells = len(grid())
    straight: list[list[Array]] = [[] for _ in range(cells)]
    inner: list[list[Array]] = [[] for _ in range(cells)]
    for run in runs:
        steps, paths, _ = positions(run, cells)
        for index, path in enumerate(paths):
            straight[index].append(r_squared(path[:CHECKPOINTS], steps[:CHECKPOINTS]))
            inner[index] += [products(part) for part in np.array_split(path, _SLICES, axis=1)]
    names = ("r_squared", "two_point_skill", "damping")
    shape = (len(CURVATURES), len(SIGNALS))
    values, errors = ({name: np.empty(shape) for name in names} for _ in range(2))
    for index, place in enumerate(np.ndindex(shape)):
        draws = np.concatenate(straight[index])
        found = (mean_estimate(draws), *forecasts(np.stack(inner[index]), len(draws)))
        for name, estimate in zip(names, found, strict=True):
            values[name][place], errors[name][place] = estimate.value, estimate.standard_error
    return values, errors, quantile_estimate(np.concatenate(straight[-1]), LEVEL)


def compare(name: str, predicted: Array, simulated: Array, error: Array) -> dict[str, Any]:
    """One map, predicted and simulated, and where the two are farthest apart."""
    z = (simulated - predicted) / error
    worst = np.unravel_index(np.abs(z).argmax(), z.shape)
    return {
        "name": name,
        "largest_z": round(float(np.abs(z).max()), 3),
        "root_mean_square_z": round(float(np.sqrt((z**2).mean())), 3),
        "largest_difference": round(float(np.abs(simulated - predicted).max()), 5),
        "worst_at": {
            "curvature_horizon": round(float(CURVATURES[worst[0]]), 4),
            "signal": round(float(SIGNALS[worst[1]]), 4),
        },
        "predicted": predicted.round(6).tolist(),
        "simulated": simulated.round(6).tolist(),
        "standard_error": error.round(7).tolist(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Simulate the diagram and store it; always 0, the discrepancies are in the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args(arguments)

    started = time.perf_counter()
    config = {
        "checkpoints": CHECKPOINTS,
        "horizon_ratio": 1.0,
        "level": LEVEL,
        "seeds": options.seeds,
        "replicates": options.replicates,
        "coordinates": COORDINATES,
        "curvature_horizon": [float(a) for a in CURVATURES],
        "signal": [float(s) for s in SIGNALS],
    }
    overrides = [
        "objective=quadratic",
        "objective.shared_draws=false",
        f"objective.replicates={options.replicates}",
        f"objective.coordinates={COORDINATES}",
        "optimizer=sgd",
        "optimizer.learning_rate=1.0",
        f"steps={2 * WINDOW}",
        "recorder.every=1",
        f"recorder.save_every={2 * WINDOW}",
    ]
    where = RunSettings(None, str(options.runs_dir), "auto", False, "phase_diagram")
    with open_run(where, config) as held:
        runs = [train_cells(held, f"seed_{seed}", overrides, grid(), seed) for seed in range(options.seeds)]
        simulated, errors, null = statistics(runs)
        expected = phase_diagram(CHECKPOINTS, np.array(CURVATURES)[:, None], np.array(SIGNALS), level=LEVEL)
        maps = [compare(name, getattr(expected, name), simulated[name], errors[name]) for name in simulated]
        quantile = float(expected.null_quantile.flat[0])
        results = {
            "question": "does noisy descent in the module lie where the phase diagram says?",
            "command": f"python experiments/phase_diagram/phase_diagram.py --seeds {options.seeds}",
            "config": config,
            "seconds": round(time.perf_counter() - started, 1),
            **provenance(),
            "largest_z": max(each["largest_z"] for each in maps),
            "n_cells": len(CURVATURES) * len(SIGNALS) * len(maps),
            "null_quantile": {
                "predicted": round(quantile, 5),
                "simulated": round(null.value, 5),
                "standard_error": round(null.standard_error, 5),
            },
            "maps": maps,
        }
        write_json(options.result, results)
        line = (
            f"largest |z| {results['largest_z']} of {results['n_cells']}; null's quantile {null.value:.4f} ± "
            f"{null.standard_error:.4f}, predicted {quantile:.4f}"
        )
        held.write_summary({"result": line})
        held.finish()
    print(f"{options.result}: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
