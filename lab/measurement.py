"""Measure a recorded run, or any checkpoint series, against chance: the rim around `lab.linearity`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.draw import Draw
from lab.errors import BadInput
from lab.linearity import Curves, ForecastSkill, forecast_skill, get_protocol, measure_trajectory
from lab.linearity.momentum import minimum_spacing
from lab.linearity.streaming import equivalent_path
from lab.measure_settings import CheckpointSettings
from lab.settings import Invalid, build
from lab.trajectory.series import CheckpointSeries, RunSeries

if TYPE_CHECKING:
    import xarray as xr


@dataclass
class Measurement:
    """What was measured of one run.

    Attributes:
        numbers: `weights` and, where probes were recorded, `logprobs`: plain values ready for JSON, undefined
            ones None; see `lab.linearity.measure_trajectory` for each.
        curves: samples behind the histograms, by the same names.
        examples: a few trajectories to look at, by the same names: float64 [checkpoint, element].
        steps: recorded steps, float64 [checkpoint].
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Curves] = field(default_factory=dict)
    examples: dict[str, np.ndarray] = field(default_factory=dict)
    steps: np.ndarray = field(default_factory=lambda: np.zeros(0))


def measure(
    source: CheckpointSeries | xr.DataTree | str | Path,
    protocol: str = "unfiltered",
    flips: int = 999,
    seed: int = 0,
    fit_share: float = 0.75,
    beta1: float = 0.9,
    updates_per_step: int = 1,
) -> Measurement:
    """Measure straightness and forecastability of a run, each beside its nulls.

    Args:
        source: a run directory, a store, a folder of checkpoints of any framework, or a series that was opened.
        protocol: `unfiltered` or `paper`.
        flips: sign-flip patterns of the null where not all can be enumerated.
        seed: of the nulls' randomness.
        fit_share: share of the span in steps that forecasts are fitted on.
        beta1: decay of the optimiser's first moment, for checkpoints that come without optimiser state.
        updates_per_step: optimiser updates of a step, likewise.

    Returns:
        Of full checkpoints, a `lab.checkpoints.measurement.CheckpointMeasurement` of every weight.

    Raises:
        BadInput: unknown protocol; a store or checkpoints that cannot be read; fewer than three checkpoints.
    """
    rules = get_protocol(protocol)
    series = _open(source)
    if not isinstance(series, RunSeries):
        from lab.checkpoints.measurement import measure_checkpoints

        how = build(
            CheckpointSettings,
            {
                "protocol": protocol,
                "flips": flips,
                "sample_fraction": None,
                "beta1": beta1,
                "updates_per_step": updates_per_step,
                "fit_share": fit_share,
                "nulls": True,
                "workers": None,
            },
        )
        return measure_checkpoints(series, how, seed)
    if len(series.steps) < 3:
        raise BadInput(f"measuring needs at least 3 checkpoints, got {len(series.steps)}; record more often")
    result = Measurement(steps=series.steps)
    draw = Draw(seed)

    def add(kind: str, values: np.ndarray, momentum_free: np.ndarray | None, safe: bool) -> None:
        try:
            numbers, curves = measure_trajectory(
                values,
                series.steps,
                kind,
                rules,
                draw.generator(f"null_{kind}"),
                momentum_free,
                spacing_is_safe=safe,
                n_flips=flips,
                fit_share=fit_share,
            )
        except Invalid as error:
            raise BadInput(f"{kind}: {error}") from None
        result.numbers[kind], result.curves[kind] = numbers, curves
        result.examples[kind] = examples(values)

    weights = _all_weights(series)
    free = [series.read_momentum_free(name, 0, info.size) for name, info in series.tensors.items()]
    known = [part for part in free if part is not None]
    safe = _spacing_is_safe(series)
    add("weights", weights, np.concatenate(known, axis=1) if known else None, safe)
    if "logprobs" in series.tree.children:
        from lab.trajectory.store import group

        dataset = group(series.tree, "logprobs")
        moved = "log_prob_momentum_free" in dataset
        add(
            "logprobs",
            dataset["log_prob"].values.astype(np.float64),
            dataset["log_prob_momentum_free"].values.astype(np.float64) if moved else None,
            safe,
        )
    return result


def forecast(source: CheckpointSeries | xr.DataTree | str | Path, fit_share: float = 0.75) -> ForecastSkill:
    """Return the out-of-sample skill of linear forecasts of a run's weights; see `lab.linearity.forecast_skill`.

    Raises:
        BadInput: a store that cannot be read; fewer than three checkpoints.
    """
    series = _open(source)
    try:
        if isinstance(series, RunSeries):
            return forecast_skill(_all_weights(series), series.steps, fit_share)
        from lab.checkpoints.measurement import sum_products

        return forecast_skill(equivalent_path(sum_products(series)), series.steps, fit_share)
    except Invalid as error:
        raise BadInput(str(error)) from None


def _open(source: CheckpointSeries | xr.DataTree | str | Path) -> CheckpointSeries:
    """Return the series that `source` is or names."""
    from xarray import DataTree  # slow to import, and not needed for full checkpoints

    from lab.trajectory.store import FILE_NAME

    if isinstance(source, DataTree):
        return RunSeries(source)
    if not isinstance(source, (str, Path)):
        return source
    if Path(source).is_dir() and not (Path(source) / FILE_NAME).exists():
        from lab.trajectory.readers import open_series

        return open_series(source)
    return RunSeries(source)


def _all_weights(series: RunSeries) -> np.ndarray:
    parts = [series.read(name, 0, info.size) for name, info in series.tensors.items()]
    return np.concatenate(parts, axis=1)


def _spacing_is_safe(series: RunSeries) -> bool:
    """Whether momentum can be ignored: there is none, or checkpoints are far enough apart."""
    if series.momentum == 0:
        return True
    return float(np.diff(series.updates).min()) >= minimum_spacing(series.momentum)


def examples(values: np.ndarray, count: int = 6) -> np.ndarray:
    """Return `count` elements spread over the ranks of total movement, [checkpoint, count]."""
    order = np.argsort(np.abs(values[-1] - values[0]), kind="stable")
    ranks = np.linspace(0.5, 0.999, count) * (values.shape[1] - 1)
    return values[:, order[ranks.astype(int)]]
