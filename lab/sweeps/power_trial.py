"""What `lab power` computes, from settings to a summary; also as a trial, to see how power depends on anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lab.errors import BadInput
from lab.files import read_json
from lab.runs import Run, find_run
from lab.settings import build, require, whole_number
from lab.sweeps.power import paired_t_power, run_power, runs_needed, smallest_effect, spread_of_differences
from lab.sweeps.results import DATASET
from lab.sweeps.settings import SweepSettings


@dataclass(frozen=True)
class PowerSettings:
    """What is to be seen, and with what; see `lab/conf/power.yaml` for each key."""

    signal: float
    checkpoints: tuple[int, ...]
    effective_coordinates: int
    drifts: Literal["equal", "gaussian"]
    level: float
    power: float
    flips: int
    simulations: int
    contrast: float | None
    spread: float | None
    study: str | None
    metric: str | None
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        require(self.signal >= 0, "signal", f"expected at least 0, got {self.signal:g}")
        require(len(self.checkpoints) > 0, "checkpoints", "expected at least one number")
        require(
            min(self.checkpoints) >= 3, "checkpoints", f"expected at least 3, got {min(self.checkpoints)}"
        )
        require(self.effective_coordinates >= 1, "effective_coordinates", "expected at least 1")
        require(0 < self.level < 1, "level", f"expected a number between 0 and 1, got {self.level:g}")
        require(
            self.level < self.power < 1, "power", f"expected a number between level and 1, got {self.power:g}"
        )
        require(self.flips >= 19, "flips", f"at least 19 are needed for p <= .05, got {self.flips}")
        require(self.simulations >= 20, "simulations", f"expected at least 20, got {self.simulations}")
        require(self.spread is None or self.spread > 0, "spread", "expected above 0")
        require(self.spread is None or self.study is None, "spread", "give this or study, not both")
        require((self.study is None) == (self.metric is None), "metric", "study and metric go together")
        require(len(self.seeds) > 0, "seeds", "expected at least one number")
        require(min(self.seeds) >= 2, "seeds", "a t test needs at least 2")
        known = self.spread is not None or self.study is not None
        require(
            self.contrast is None or known, "contrast", "needs spread, or study and metric to take it from"
        )


def power_summary(settings: PowerSettings, runs_dir: str, seed: int) -> dict[str, Any]:
    """Compute what one run can show at each number of checkpoints, and what several seeds can.

    Args:
        settings: what is to be seen.
        runs_dir: where `settings.study` is looked for.
        seed: of the simulations.

    Raises:
        BadInput: no such study or metric, or too little in it.
    """
    seeds = np.random.SeedSequence(seed).spawn(2 * len(settings.checkpoints))
    rows: list[dict[str, Any]] = []
    for index, n in enumerate(settings.checkpoints):
        with_signal, null = (
            run_power(
                n,
                signal,
                settings.effective_coordinates,
                np.random.default_rng(seeds[2 * index + arm]),
                settings.level,
                settings.flips,
                settings.simulations,
                settings.drifts,
            )
            for arm, signal in enumerate((settings.signal, 0.0))
        )
        gain = float(with_signal.median.mean() - null.median.mean())
        effect = gain / float(with_signal.median.std(ddof=1))
        rows.append(
            {
                "checkpoints": n,
                "power": with_signal.power,
                "power_error": with_signal.error,
                "false_positives": null.power,
                "smallest_p": with_signal.smallest_p,
                "r2_median": float(with_signal.median.mean()),
                "null_r2_median": float(null.median.mean()),
                "runs_against_null": runs_needed(effect, settings.power, settings.level)
                if gain > 0
                else None,
            }
        )
    enough = [row["checkpoints"] for row in rows if row["power"] >= settings.power]
    summary: dict[str, Any] = {
        "signal": settings.signal,
        "runs": rows,
        "power": [row["power"] for row in rows],
        "checkpoints_needed": min(enough) if enough else None,
    }
    if settings.spread is not None or settings.study is not None:
        summary["contrast"] = _contrast(settings, runs_dir)
    summary["result"] = result_line(settings, summary)
    return summary


def _contrast(settings: PowerSettings, runs_dir: str) -> dict[str, Any]:
    """What a paired t test over seeds sees."""
    spread = settings.spread if settings.spread is not None else _spread_of_study(settings, runs_dir)
    detectable = {
        str(seeds): smallest_effect(seeds, settings.power, settings.level) * spread
        for seeds in settings.seeds
    }
    found: dict[str, Any] = {"spread_of_differences": spread, "smallest_contrast": detectable}
    if settings.contrast is not None:
        effect = settings.contrast / spread
        found["contrast"] = settings.contrast
        found["power"] = {
            str(seeds): float(paired_t_power(seeds, effect, settings.level)) for seeds in settings.seeds
        }
        found["seeds_needed"] = runs_needed(effect, settings.power, settings.level) if effect else None
    return found


def _spread_of_study(settings: PowerSettings, runs_dir: str) -> float:
    """Read the spread of paired differences from the results of a sweep.

    Raises:
        BadInput: no such study, no results in it, no such metric, or too few points and seeds.
    """
    import xarray as xr

    from lab.settings import suggest

    path = find_run(runs_dir, str(settings.study)) / DATASET
    if not path.is_file():
        raise BadInput(f"study: {path} does not exist; `lab sweep status experiment=NAME` writes it")
    with xr.open_dataset(path, engine="h5netcdf") as found:
        metrics = [str(name) for name in found.data_vars if "seed" in found[name].dims]
        if settings.metric not in metrics:
            raise BadInput(
                f"metric: {settings.metric!r} is not in {path}; {suggest(str(settings.metric), metrics)}"
            )
        values = found[settings.metric].transpose(..., "seed").values
    spread = spread_of_differences(values.reshape(-1, values.shape[-1]))
    if not spread > 0:
        raise BadInput(
            f"study: {path} has too few points and seeds of {settings.metric} to tell their spread"
        )
    return spread


def result_line(settings: PowerSettings, summary: Mapping[str, Any]) -> str:
    """Return the answer in one line."""
    needed = summary["checkpoints_needed"]
    run = (
        f"S = {settings.signal:g}: one run of {needed} checkpoints has power {settings.power:g}"
        if needed is not None
        else f"S = {settings.signal:g}: no run of up to {max(settings.checkpoints)} checkpoints has power "
        f"{settings.power:g}"
    )
    contrast = summary.get("contrast", {})
    if "contrast" not in contrast:
        return run
    seeds = contrast["seeds_needed"]
    return (
        f"{run}; a contrast of {settings.contrast:g} needs {seeds if seeds is not None else 'too many'} seeds"
    )


class PowerTrial:
    """`lab power` as a trial: no run of a model, so that plans can be compared in seconds."""

    config = "power"
    defaults: tuple[str, ...] = ()
    metrics: Mapping[str, str] = {"power": "power.0", "checkpoints_needed": "checkpoints_needed"}

    def check(self, resolved: Mapping[str, Any], settings: SweepSettings) -> None:
        """See `TrialKind`."""
        build_power_settings(resolved)

    def disk_bytes(self, resolved: Mapping[str, Any]) -> int:
        """See `TrialKind`."""
        return 10_000

    def run(self, run: Run, settings: SweepSettings) -> Mapping[str, Any]:
        """See `TrialKind`."""
        if not run.finished:
            built = build_power_settings(run.config)
            run.write_summary(power_summary(built, run.config["runs_dir"], run.config["seed"]))
            run.finish()
        numbers: dict[str, Any] = read_json(run.path / "summary.json")
        return numbers


POWER_KEYS = tuple(PowerSettings.__dataclass_fields__)


def build_power_settings(resolved: Mapping[str, Any]) -> PowerSettings:
    """Build the settings from a resolved configuration.

    Raises:
        BadInput: an impossible value; names the key.
    """
    whole_number(resolved["seed"], "seed", least=0)
    return build(PowerSettings, {key: resolved[key] for key in POWER_KEYS})
