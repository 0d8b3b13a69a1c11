"""Measure all the weights of a series of full checkpoints: the rim around `lab.linearity.streaming`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lab.checkpoints.collection import RUN, Collection
from lab.draw import Draw, stable_hash
from lab.errors import BadInput, Interrupted
from lab.linearity import (
    get_protocol,
    measure_trajectory,
    minimum_spacing,
    sign_flip_test,
    sign_patterns,
    to_json,
)
from lab.linearity.checks import FloatArray
from lab.linearity.filters import UNFILTERED
from lab.linearity.streaming import (
    P_VALUES,
    Accumulator,
    IncrementProducts,
    NotFinite,
    RankOneShare,
    RSquaredCounts,
    Sample,
    Selection,
    State,
    TensorStatistics,
    equivalent_path,
    scan,
    summarise_counts,
)
from lab.measure_settings import CheckpointSettings
from lab.measurement import Measurement, examples
from lab.stopping import stop_after_step
from lab.trajectory.readers.checks import require_checkpoints
from lab.trajectory.readers.source_file import unreadable
from lab.trajectory.sampling import sample_coordinates
from lab.trajectory.series import CheckpointSeries

RUN_SAMPLE = 4000
"""Elements that the sign-flip test of the run's median R² and the selection-matched walks are made of."""
WALK_SAMPLES = 20_000
TENSOR_SAMPLE = 128
"""Elements of each tensor that the test of its median R² looks at."""
SECONDS_BETWEEN_WRITES = 10.0
NOT_ASKED = "nulls=false: not tested"

Progress = Callable[[int], None]


class CheckpointMeasurement(Measurement):
    """What was measured of a series of full checkpoints.

    Of the attributes that it shares with `Measurement`, `curves` and `examples` are of the sample that stands for the
    run, `numbers` of all weights (nulls of R² apart, which need whole paths and are of that sample).

    Attributes:
        collection: results of each tensor, layer and module kind.
        q_values: Benjamini-Hochberg adjusted p-values over tensors, float64 [tensor, test] in the order of
            `lab.linearity.streaming.P_VALUES`; NaN where there is no p-value.
        statistics: makes numbers of sums, for layers and module kinds.
    """

    def __init__(self, collection: Collection, statistics: TensorStatistics, steps: FloatArray) -> None:
        super().__init__(steps=steps)
        self.collection, self.statistics = collection, statistics
        self.q_values = adjust(np.stack(collection.tensors["p_values"]))


def measure_checkpoints(
    series: CheckpointSeries,
    how: CheckpointSettings,
    seed: int = 0,
    partial: Path | None = None,
    progress: Progress = lambda size: None,
) -> CheckpointMeasurement:
    """Measure straightness and forecastability of all the weights of a series in one pass.

    Args:
        series: the checkpoints.
        how: see `CheckpointSettings`.
        seed: of samples and nulls.
        partial: file where results of finished tensors are kept meanwhile; if it is there, the pass goes on from it.
        progress: called with the number of bytes of checkpoints that are newly done with.

    Raises:
        BadInput: fewer than three checkpoints, no tensor to look at, NaN or infinite weights, a file that cannot be
            read, or a `partial` of other checkpoints.
    """
    require_checkpoints(series, 3)
    steps = np.asarray(series.steps, dtype=np.float64)
    draw, rules = Draw(seed), get_protocol(how.protocol)
    counts = selected_counts(series, how)
    patterns = None
    if how.nulls and spacing_is_safe(steps, how):
        patterns = sign_patterns(
            len(steps) - 1, how.flips, draw.generator("tensor_patterns"), max_enumeration=how.flips + 1
        )
    statistics = TensorStatistics(steps, rules, how.fit_share, patterns)
    accumulators: list[Accumulator] = [
        IncrementProducts(len(steps)),
        RSquaredCounts(steps, rules),
        Sample(len(steps), RUN, seed, RUN_SAMPLE / sum(counts.values()), 0),
    ]
    if patterns is not None:
        accumulators.append(Sample(len(steps), "tensor", seed, 0.0, TENSOR_SAMPLE))
    fingerprint = _fingerprint(series, how, seed)
    collection = Collection.read(partial, fingerprint) if partial and partial.exists() else Collection()
    done = set(collection.names)
    per_element = {name: _element_bytes(series, name) for name in counts}
    progress(sum(series.tensors[name].size * per_element[name] for name in done))
    selections = (
        selection for selection in _selections(series, how, seed, counts) if selection.name not in done
    )
    with stop_after_step() as stop:

        def advance(selection: Selection, elements: int) -> None:
            progress(elements * per_element[selection.name])
            if stop():
                raise Interrupted("stopped; what was done of the pass is kept")

        found = scan(series, len(steps), selections, accumulators, statistics, how.threads, advance)
        _collect(found, series, collection, partial, fingerprint)
    measured = CheckpointMeasurement(collection, statistics, steps)
    _add_numbers(measured, how, draw)
    return measured


def _collect(
    found: Iterator[tuple[Selection, State]],
    series: CheckpointSeries,
    collection: Collection,
    partial: Path | None,
    fingerprint: str,
) -> None:
    """Collect what a pass finds, and store it every few seconds and when the pass breaks off."""
    written, unwritten, whole = time.monotonic(), 0, True
    try:
        for selection, result in found:
            whole = False  # A second Ctrl-C may come between two lines.
            collection.add(selection, result)
            whole = True
            unwritten += 1
            if partial and time.monotonic() - written > SECONDS_BETWEEN_WRITES:
                collection.write(partial, fingerprint)
                written, unwritten = time.monotonic(), 0
        if partial and unwritten:  # What comes after the pass may break off as well.
            collection.write(partial, fingerprint)
            unwritten = 0
    except NotFinite as error:
        raise BadInput(_not_finite(series, error)) from None
    except BaseException:
        if partial and unwritten and whole:
            collection.write(partial, fingerprint)
        raise


def sum_products(series: CheckpointSeries, workers: int = 1) -> FloatArray:
    """Return the inner products of increments over all weights, float64 [interval, interval].

    Raises:
        BadInput: fewer than three checkpoints, NaN or infinite weights, or a file that cannot be read.
    """
    require_checkpoints(series, 3)
    count = len(series.steps)
    selections = [Selection(name, info.size) for name, info in series.tensors.items()]
    total = np.zeros((count - 1, count - 1))
    accumulators = [IncrementProducts(count)]
    try:
        for _, result in scan(series, count, selections, accumulators, lambda _, states: states[0], workers):
            total += result["products"]
    except NotFinite as error:
        raise BadInput(_not_finite(series, error)) from None
    return total


def selected_counts(series: CheckpointSeries, how: CheckpointSettings) -> dict[str, int]:
    """Return how many elements of each tensor are looked at, tensors of which none is left out.

    Raises:
        BadInput: there is none at all.
    """
    fraction, minimum, ending = how.sampling
    counts = {
        name: min(info.size, max(minimum, round(fraction * info.size)))
        for name, info in series.tensors.items()
        if name.endswith(ending) and info.size
    }
    if not counts:
        ends = f" whose name ends in {ending}" if ending else ""
        raise BadInput(
            f"checkpoints: no tensor{ends} to look at; there are: {', '.join(series.tensors) or '(none)'}"
        )
    return counts


def bytes_to_read(series: CheckpointSeries, counts: Mapping[str, int]) -> int:
    """Return the bytes of all checkpoints that a pass over the tensors named in `counts` reads."""
    return sum(series.tensors[name].size * _element_bytes(series, name) for name in counts)


def spacing_is_safe(steps: FloatArray, how: CheckpointSettings) -> bool:
    """Whether checkpoints are so far apart that momentum cannot pass for persistence."""
    if how.beta1 == 0.0:
        return True
    spacing = float(np.diff(steps).min()) * how.updates_per_step
    return spacing * (1 + 1e-9) >= minimum_spacing(how.beta1)  # 20 / (1 - .9) is a hair above 200.


def _selections(
    series: CheckpointSeries, how: CheckpointSettings, seed: int, counts: dict[str, int]
) -> Iterator[Selection]:
    fraction, minimum, _ = how.sampling
    for name, count in counts.items():
        size = series.tensors[name].size
        indices = None if count == size else sample_coordinates(seed, name, size, fraction, minimum)
        yield Selection(name, size, indices)


def _add_numbers(measured: CheckpointMeasurement, how: CheckpointSettings, draw: Draw) -> None:
    """Fill in what is said about the run as a whole."""
    run = measured.collection.groups[RUN]
    sample = np.concatenate(measured.collection.samples, axis=1).astype(np.float64)
    safe = how.nulls and spacing_is_safe(measured.steps, how)
    numbers, curves = measure_trajectory(
        sample,
        measured.steps,
        "weights",
        get_protocol(how.protocol),
        draw.generator("null_weights"),
        spacing_is_safe=safe,
        n_flips=how.flips,
        max_elements=sample.shape[1],
        walk_samples=WALK_SAMPLES,
        fit_share=how.fit_share,
    )
    path = equivalent_path(run["products"])
    pooled, _ = measure_trajectory(
        path,
        measured.steps,
        "weights",
        UNFILTERED,
        draw.generator("null_pooled"),
        spacing_is_safe=safe,
        n_flips=how.flips,
        walk_samples=1,
        fit_share=how.fit_share,
    )
    looked_at, kept, constant = (int(number) for number in run["tally"])
    summary = summarise_counts(run["counts"], constant)
    if not how.nulls:
        numbers["null_p_value_reason"] = NOT_ASKED
    of_paths = ("null_r2_median", "null_p_value", "null_p_value_reason", "nulls")
    pooled_keys = [
        key for key in pooled if key not in of_paths and not key.startswith(("r2", "n_", "retained"))
    ]
    numbers |= {key: pooled[key] for key in pooled_keys}
    numbers |= {
        "r2_median": summary.median,
        "r2_share_above_0_7": summary.share_above,
        "r2_quartiles": summary.quartiles,
        "n": looked_at,
        "n_defined": summary.n,
        "n_zero_variance": constant,
        "n_null_sample": sample.shape[1],
        "retained_share": kept / looked_at,
        "low_rank": _low_rank(path, measured.steps, how, draw, safe),
        "tensors": _significant(measured),
    }
    measured.numbers["weights"] = to_json(numbers)
    measured.curves["weights"] = curves
    measured.examples["weights"] = examples(sample)


def _low_rank(
    path: FloatArray, steps: FloatArray, how: CheckpointSettings, draw: Draw, safe: bool
) -> dict[str, Any]:
    """Shares of the leading direction, each beside that of the same increments with random signs."""
    result: dict[str, Any] = {}
    generator = draw.generator("null_low_rank")
    patterns = sign_patterns(len(steps) - 1, how.flips, generator) if how.nulls else None
    for name, statistic in (("centred", RankOneShare(True)), ("uncentred", RankOneShare(False))):
        result[name] = {
            "share": statistic(path, steps),
            "null_median": None,
            "null_q95": None,
            "p_value": None,
        }
        if patterns is not None:
            test = sign_flip_test(path, steps, statistic, generator, patterns=patterns)
            defined = test.null[~np.isnan(test.null)]
            if defined.size:
                median, high = np.quantile(defined, [0.5, 0.95])
                result[name] |= {"null_median": median, "null_q95": high}
            result[name]["p_value"] = test.p_value if safe else None
    return result


def _significant(measured: CheckpointMeasurement, level: float = 0.05) -> dict[str, Any]:
    """How many tensors pass each test at a false discovery rate of `level`."""
    tested = ~np.isnan(measured.q_values)
    return {
        "n": len(measured.collection.names),
        "false_discovery_rate": level,
        **{
            name.removesuffix("_p_value"): {
                "tested": int(tested[:, place].sum()),
                "significant": int((measured.q_values[tested[:, place], place] <= level).sum()),
            }
            for place, name in enumerate(P_VALUES)
        },
    }


def adjust(p_values: np.ndarray) -> np.ndarray:
    """Benjamini & Hochberg (1995) adjustment of each column over its defined rows.

    With p_(1) <= ... <= p_(m), the adjusted value of p_(i) is the least of m p_(j) / j over j >= i. (SciPy has it,
    in a module that takes longer to import than a small model takes to measure.)

    Args:
        p_values: float64 [tensor, test]; NaN where undefined.

    Returns:
        float64, the same shape; rejecting where it is at most q keeps the false discovery rate at q.
    """
    result = np.full(p_values.shape, np.nan)
    for column, adjusted in zip(p_values.T, result.T, strict=True):
        defined = np.flatnonzero(~np.isnan(column))
        order = defined[np.argsort(column[defined])]
        scaled = column[order] * len(order) / np.arange(1, len(order) + 1)
        adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return result


def _element_bytes(series: CheckpointSeries, name: str) -> int:
    known = getattr(series, "element_bytes", None)
    if known is not None:
        return int(known(name))
    info = series.tensors[name]
    return info.nbytes // max(info.size, 1) * len(series.steps)


def _fingerprint(series: CheckpointSeries, how: CheckpointSettings, seed: int) -> str:
    """What decides the result: settings, steps, tensors, and the files with their sizes and times."""
    import lab

    files = []
    locate = getattr(series, "file", None)
    if locate is not None:
        paths = {locate(name, index) for name in series.tensors for index in range(len(series.steps))}
        files = [_size_and_time(path) for path in sorted(paths)]
    tensors = [(name, info.size, info.dtype) for name, info in series.tensors.items()]
    parts = (how.protocol, how.flips, how.sampling, how.beta1, how.updates_per_step, how.fit_share, how.nulls)
    return (
        f"{stable_hash(lab.__version__, seed, parts, series.steps.tolist(), tensors, files, bits=128):032x}"
    )


def _size_and_time(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError as error:  # it was there when the checkpoints were listed
        raise unreadable(path, error) from None
    return str(path), found.st_size, found.st_mtime_ns


def _not_finite(series: CheckpointSeries, error: NotFinite) -> str:
    locate = getattr(series, "file", None)
    where = f" in {locate(error.tensor, error.checkpoint)}" if locate is not None else ""
    return (
        f"{error.tensor}: element {error.element} is {error.value} at step {series.steps[error.checkpoint]:g}{where}: "
        "training diverged there, or the file is damaged; leave that checkpoint out"
    )
