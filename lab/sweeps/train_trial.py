"""`lab train` as a trial: a training run, measured afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.errors import BadInput
from lab.files import read_json, write_json
from lab.runs import Run
from lab.sweeps.settings import SweepSettings
from lab.training import build_train_settings, estimate, train
from lab.verbs.train import KEYS, refuse_unread_keys

_MEASURED = "measurement.json"
_PLACEMENT = "placement"
_NUMBERS = ("r2_median", "null_r2_median", "null_p_value", "skill", "skill_damped", "damping")


class TrainTrial:
    """A training run and, unless `sweep.measure=false`, its measurement and its place on the phase diagram.

    Its numbers are those of the run's `summary.json`; `weights` and `logprobs` as measured under the first of
    `sweep.protocols`; both again under the name of each protocol, as in `paper.weights.r2_median`; and
    `placement` (see `lab.placements.to_numbers`), as in `placement.signal_squared`.
    """

    config = "train"
    defaults = ("logger=none",)
    metrics: Mapping[str, str] = {
        **{f"{kind}_{name}": f"{kind}.{name}?" for kind in ("weights", "logprobs") for name in _NUMBERS},
        "weights_lag_cosine": "weights.lag_cosine.cosine.0?",
        "weights_split_half": "weights.split_half.cosine?",
        "mean_r2_momentum_free": "placement.measured_r2_mean?",
        "signal_squared": "placement.signal_squared?",
        "curvature_horizon": "placement.curvature_horizon?",
        "pass_rate_start": "pass_rate.start?",
        "pass_rate_end": "pass_rate.end?",
        "wall_clock_s": "wall_clock_s",
    }

    def check(self, resolved: Mapping[str, Any], settings: SweepSettings) -> None:
        """See `TrialKind`."""
        refuse_unread_keys(dict(resolved), KEYS)
        built = build_train_settings(resolved)
        recorded = estimate(built)["recorded_points"]
        if settings.measure and recorded < 3:
            raise BadInput(
                f"recorder.every: steps={built.steps} gives {recorded} recorded points, measuring needs at least 3; "
                "record more often, or set sweep.measure=false"
            )

    def disk_bytes(self, resolved: Mapping[str, Any]) -> int:
        """See `TrialKind`."""
        built = build_train_settings(resolved)
        return int(estimate(built)["disk_mb_of_records_at_most"] * 1024**2)

    def run(self, run: Run, settings: SweepSettings) -> Mapping[str, Any]:
        """See `TrialKind`."""
        built = build_train_settings(run.config)
        if not run.finished:
            train(built, run, title=f"{run.path.parent.name}/{run.path.name}")
        numbers: dict[str, Any] = dict(read_json(run.path / "summary.json"))
        if settings.measure:
            numbers |= self._measured(run, settings, built.seed)
        return numbers

    def _measured(self, run: Run, settings: SweepSettings, seed: int) -> dict[str, Any]:
        """Return the measurements, kept beside the run so that they are made once."""
        file = run.path / _MEASURED
        if not file.exists():
            from lab.measurement import measure
            from lab.placements import place_run, to_numbers
            from lab.trajectory.store import open_store

            store = open_store(run.path)
            found = {
                protocol: measure(store, protocol, settings.flips, seed).numbers
                for protocol in settings.protocols
            }
            write_json(file, {**found, _PLACEMENT: to_numbers(place_run(store))})
        measured: dict[str, Any] = read_json(file)
        return {**measured[settings.protocols[0]], **measured}
