"""Streamed statistics against whole-array ones, by hand, and whatever the order and the number of threads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lab.linearity import (
    forecast_skill,
    get_protocol,
    lag_cosine,
    r_squared,
    sign_flip_test,
    sign_patterns,
    split_half,
    summarise,
)
from lab.linearity.streaming import (
    BINS,
    Block,
    IncrementProducts,
    NotFinite,
    RankOneShare,
    RSquaredCounts,
    Sample,
    Selection,
    TensorStatistics,
    equivalent_path,
    neighbour_cosine,
    quantiles,
    rank_one_share,
    scan,
    share_above,
    summarise_counts,
)

STEPS = np.cumsum([0.0, 100, 100, 150, 50, 100, 100, 200, 100, 100, 100, 100, 100, 100])
UNFILTERED, PAPER = get_protocol("unfiltered"), get_protocol("paper")


class Tensors:
    """Values in memory, float32 [checkpoint, element] by name."""

    def __init__(self, **values: np.ndarray) -> None:
        self.values = values

    def read_into(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        assert out.flags.c_contiguous
        out[:] = self.values[name][:, start:stop]


def walk(seed: int, elements: int, scale: float = 1e-3, drift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    increments = scale * (rng.normal(size=(13, elements)) + drift * rng.normal(size=elements))
    start = 0.02 * rng.normal(size=elements)
    return (start + np.cumsum(np.vstack([np.zeros(elements), increments]), axis=0)).astype(np.float32)


def run(values: np.ndarray, protocol=UNFILTERED, indices=None, workers: int = 1, extra=()):
    selection = Selection("w", values.shape[1], indices)
    accumulators = [IncrementProducts(14), RSquaredCounts(STEPS, protocol), *extra]

    def finish(_, states):
        return {key: array for state in states for key, array in state.items()}

    found = list(scan(Tensors(w=values), 14, [selection], accumulators, finish, workers))
    assert [each.name for each, _ in found] == ["w"]
    return found[0][1]


# ---- against whole arrays ------------------------------------------------------------------------------


def test_streaming_equals_the_whole_array() -> None:
    values = walk(0, 300_007, drift=0.2)  # Several blocks and slices, the last one incomplete.
    found = run(values, workers=2)
    wide = values.astype(np.float64)
    whole = summarise(r_squared(wide, STEPS))
    binned = summarise_counts(found["counts"])
    assert binned.n == whole.n == 300_007
    assert binned.median == pytest.approx(whole.median, abs=1 / BINS)
    assert binned.quartiles == pytest.approx(whole.quartiles, abs=1 / BINS)
    assert binned.share_above == pytest.approx(whole.share_above, abs=2e-5)
    path, skill = equivalent_path(found["products"]), forecast_skill(wide, STEPS)
    streamed = forecast_skill(path, STEPS)
    assert streamed.skill == pytest.approx(skill.skill, abs=1e-6)
    assert streamed.damping == pytest.approx(skill.damping, abs=1e-6)
    assert streamed.skill_damped_by_horizon == pytest.approx(skill.skill_damped_by_horizon, abs=1e-6)
    assert lag_cosine(path, STEPS, [1, 2, 3]) == pytest.approx(lag_cosine(wide, STEPS, [1, 2, 3]), abs=1e-6)
    assert split_half(path, STEPS) == pytest.approx(split_half(wide, STEPS), abs=1e-6)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_each_element_falls_into_its_bin(offset: float) -> None:
    values = walk(1, 4000, scale=1.0, drift=1.0)
    values[1:] += np.float32(offset)  # Far from the first checkpoint: one great jump, then small steps.
    exact = r_squared(values.astype(np.float64), STEPS)
    counts = run(values)["counts"]
    upper = np.concatenate([[0], np.cumsum(counts)])
    for edge in range(0, BINS + 1, 500):  # Elements within 1e-5 of an edge may fall on either side.
        low, high = (np.count_nonzero(exact < edge / BINS + shift) for shift in (-1e-5, 1e-5))
        assert low <= upper[edge] <= max(high, 4000 if edge == BINS else 0)


def test_filter_and_cast_are_those_of_the_protocol() -> None:
    values = walk(2, 20_000, scale=1e-4)
    stored = PAPER.cast(values.astype(np.float64), "weights")
    kept = PAPER.keep(stored, "weights")
    found = run(values, PAPER)
    assert 0 < kept.sum() < 20_000
    assert found["tally"].tolist() == [20_000, kept.sum(), (stored == stored[0]).all(axis=0).sum()]
    whole = summarise(r_squared(stored[:, kept], STEPS))
    assert summarise_counts(found["counts"]).median == pytest.approx(whole.median, abs=1 / BINS)


def test_only_selected_elements_are_seen() -> None:
    values = walk(3, 200_000)
    indices = np.sort(np.random.default_rng(0).choice(200_000, 777, replace=False))
    found = run(values, indices=indices)
    alone = run(values[:, indices])
    assert found["tally"][0] == 777
    assert np.array_equal(found["counts"], alone["counts"])
    np.testing.assert_allclose(found["products"], alone["products"], rtol=1e-6)


# ---- ranges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e25])
def test_squares_outside_float32(scale: float) -> None:
    values = (walk(4, 501, scale=1.0, drift=0.5) * np.float32(scale)).astype(np.float32)
    found, wide = run(values), values.astype(np.float64)
    assert summarise_counts(found["counts"]).median == pytest.approx(
        summarise(r_squared(wide, STEPS)).median, abs=1 / BINS
    )
    assert forecast_skill(equivalent_path(found["products"]), STEPS).skill == pytest.approx(
        forecast_skill(wide, STEPS).skill, abs=1e-6
    )


def test_r_squared_of_elements_of_every_size_that_float32_holds() -> None:
    """Squares from 1e-40 to 1e41, so that those near the end of float32 have neighbours on either side."""
    scales = np.random.default_rng(21).permutation(np.logspace(-20, 20, 4001))
    values = (walk(22, 4001, scale=1.0, drift=0.5) * scales).astype(np.float32)
    exact = r_squared(values.astype(np.float64), STEPS)
    upper = np.cumsum(run(values)["counts"])
    for edge in range(1, BINS + 1):  # Elements within 1e-5 of an edge may fall on either side.
        low, high = (np.count_nonzero(exact < edge / BINS + shift) for shift in (-1e-5, 1e-5))
        assert low <= upper[edge - 1] <= high


def test_constant_elements_are_counted_and_left_out() -> None:
    values = walk(5, 1000)
    values[:, ::4] = values[0, ::4]
    values[:, 1] = np.where(np.arange(14) < 7, 1.0, 1.0 + 2**-20)  # Moves, by very little.
    found = run(values)
    assert found["tally"].tolist() == [1000, 1000, 250]
    assert found["counts"].sum() == 750


@pytest.mark.parametrize("first", [0.0, 1e-12, 9e-8, 1.1e-7, 0.02, 3.0])
def test_an_element_that_moves_by_one_place_is_not_constant(first: float) -> None:
    """The smallest move there is, at any size of the weight, among elements that do not move at all."""
    values = np.full((14, 600), first, np.float32)
    moved = np.arange(0, 600, 7)
    values[5:, moved] = np.nextafter(np.float32(first), np.float32(-1))
    found = run(values)
    expected = r_squared(values[:, moved].astype(np.float64), STEPS)
    assert found["tally"].tolist() == [600, 600, 600 - len(moved)]
    assert np.flatnonzero(found["counts"]).tolist() == sorted({int(each * BINS) for each in expected})


@pytest.mark.parametrize("elements", [1, 63, 1000, 16_385, 70_000])
def test_strips_and_blocks_of_any_length(elements: int) -> None:
    """Counts and products do not depend on where strips and blocks are cut."""
    values = walk(20, elements, drift=0.3)
    found, wide = run(values), values.astype(np.float64)
    exact = np.histogram(np.minimum(r_squared(wide, STEPS), 1 - 1e-12), bins=BINS, range=(0, 1))[0]
    assert found["counts"].sum() == elements
    assert np.abs(np.cumsum(found["counts"]) - np.cumsum(exact)).max() <= 1 + 1e-3 * elements
    increments = np.diff(wide, axis=0)
    np.testing.assert_allclose(
        found["products"], increments @ increments.T, rtol=2e-6, atol=1e-6 * elements * 1e-6
    )


def test_a_perfect_line_is_in_the_last_bin() -> None:
    found = run(np.repeat((STEPS / 50).astype(np.float32)[:, None], 8, axis=1))
    assert found["counts"][-1] == 8 and found["tally"][2] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 6, 13])
def test_not_finite_is_named(bad: float, row: int) -> None:
    values = walk(6, 50_000)
    values[row, 41_234] = bad
    with pytest.raises(NotFinite) as caught:
        run(values, workers=2)
    assert (caught.value.tensor, caught.value.checkpoint, caught.value.element) == ("w", row, 41_234)
    with pytest.raises(NotFinite) as caught:
        run(values, indices=np.array([3, 41_234, 44_000]))
    assert caught.value.element == 41_234


# ---- order and threads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoints", [3, 14, 40])
def test_the_number_of_threads_changes_nothing(checkpoints: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import lab.linearity.streaming.one_pass as module

    monkeypatch.setattr(module, "_BLOCK_VALUES", 2**12)
    monkeypatch.setattr(module, "_BLOCKS_OF_A_TASK", 2)
    rng = np.random.default_rng(7)
    series = Tensors(
        **{name: rng.normal(size=(checkpoints, size)).astype(np.float32) for name, size in SIZES.items()}
    )
    steps = np.arange(checkpoints) * 10.0

    def go(workers: int):
        accumulators = [
            IncrementProducts(checkpoints),
            RSquaredCounts(steps, UNFILTERED),
            Sample(checkpoints, "some", 0, 0.01, 5),
        ]
        selections = [Selection(name, size) for name, size in SIZES.items()]
        seen: list[tuple[str, int]] = []
        found = scan(
            series,
            checkpoints,
            selections,
            accumulators,
            lambda _, states: {key: array for state in states for key, array in state.items()},
            workers,
            lambda selection, elements: seen.append((selection.name, elements)),
        )
        return [(selection.name, result) for selection, result in found], seen

    one, seen = go(1)
    three, _ = go(3)
    assert [name for name, _ in one] == [name for name, _ in three] == list(SIZES)
    for (_, first), (_, second) in zip(one, three, strict=True):
        for key in first:
            assert np.array_equal(first[key], second[key])
    for name, size in SIZES.items():
        assert sum(elements for tensor, elements in seen if tensor == name) == size


SIZES = {"a": 5, "b": 40_000, "empty": 0, "c": 1, "d": 12_345}


# ---- straight from files -------------------------------------------------------------------------------


@dataclass
class Rows:
    descriptors: np.ndarray
    offsets: np.ndarray
    dtype: str


class Files:
    """The same values in one file for each checkpoint, tensors one after the other."""

    def __init__(self, directory: Path, dtype: str, tensors: dict[str, np.ndarray]) -> None:
        self.dtype, self.values = dtype, {name: values.copy() for name, values in tensors.items()}
        if dtype == "bfloat16":
            for values in self.values.values():
                values.view(np.uint32)[:] &= 0xFFFF0000
        self.paths = [directory / str(index) for index in range(len(next(iter(tensors.values()))))]
        for index, path in enumerate(self.paths):
            rows = [values[index] for values in self.values.values()]
            if dtype == "bfloat16":
                rows = [(row.view(np.uint32) >> 16).astype(np.uint16) for row in rows]
            path.write_bytes(b"head" + b"".join(row.tobytes() for row in rows))
        self.open = [path.open("rb") for path in self.paths]
        self.reads_into = 0

    def plain_rows(self, name: str) -> Rows:
        before = list(self.values)[: list(self.values).index(name)]
        offset = 4 + sum(self.values[each].shape[1] for each in before) * (
            4 if self.dtype == "float32" else 2
        )
        numbers = np.array([stream.fileno() for stream in self.open], np.int32)
        return Rows(numbers, np.full(len(self.open), offset), self.dtype)

    def read_into(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        self.reads_into += 1
        out[:] = self.values[name][:, start:stop]


def merged_states(series: object, checkpoints: int, sizes: dict[str, int], protocol=UNFILTERED):
    steps = np.arange(checkpoints) * 10.0
    accumulators = [
        IncrementProducts(checkpoints),
        RSquaredCounts(steps, protocol),
        Sample(checkpoints, "one", 0, 0.01, 5),
        Sample(checkpoints, "two", 1, 0.02, 300),
    ]
    selections = [Selection(name, size) for name, size in sizes.items()]
    found = scan(series, checkpoints, selections, accumulators, lambda _, states: dict(enumerate(states)), 2)
    return {selection.name: states for selection, states in found}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpoints", [3, 14, 40])
def test_files_give_the_very_states_that_blocks_of_them_give(
    checkpoints: int, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lab.linearity.streaming.one_pass as module

    monkeypatch.setattr(module, "_BLOCK_VALUES", 2**12 * (checkpoints + 2))
    monkeypatch.setattr(module, "_BLOCKS_OF_A_TASK", 2)
    rng = np.random.default_rng(7)
    files = Files(
        tmp_path,
        dtype,
        {name: rng.normal(size=(checkpoints, size)).astype(np.float32) for name, size in SIZES.items()},
    )
    direct = merged_states(files, checkpoints, SIZES)
    assert files.reads_into == 0
    by_block = merged_states(Tensors(**files.values), checkpoints, SIZES)
    assert list(direct) == list(by_block) == list(SIZES)
    for name in SIZES:
        for first, second in zip(direct[name].values(), by_block[name].values(), strict=True):
            assert first.keys() == second.keys()
            assert all(np.array_equal(first[key], second[key]) for key in first)


def test_what_files_do_not_give_is_read_otherwise(tmp_path: Path) -> None:
    values = {"a": walk(0, 3000), "b": walk(1, 7000)}
    values["b"][5, 6999] = np.nan
    files, sizes = Files(tmp_path, "float32", values), {name: each.shape[1] for name, each in values.items()}
    with pytest.raises(NotFinite) as caught:
        merged_states(files, 14, sizes)
    assert (caught.value.tensor, caught.value.checkpoint, caught.value.element) == ("b", 5, 6999)
    del sizes["b"]
    files.reads_into = 0
    merged_states(files, 14, sizes, PAPER)  # a filter
    assert files.reads_into == 1
    os.truncate(files.paths[9], 4 + 4 * 3000 - 1)
    found = merged_states(files, 14, sizes)
    assert files.reads_into == 2
    assert found["a"][1]["tally"].tolist() == [3000, 3000, 0]
    files.dtype = "float16"
    merged_states(files, 14, sizes)
    assert files.reads_into == 3


def test_states_merge_in_any_grouping() -> None:
    values = walk(8, 3000)
    accumulator = RSquaredCounts(STEPS, UNFILTERED)
    states = []
    for start in (0, 1000, 2000):
        states.append(accumulator.init("w", 3000))
        accumulator.observe(states[-1], Block(values[:, start : start + 1000], start))
    merged = accumulator.init("w", 3000)
    for state in (states[2], states[0], states[1]):
        accumulator.merge(merged, state)
    assert np.array_equal(merged["counts"], run(values)["counts"])


def test_an_error_of_the_reader_comes_through() -> None:
    class Broken:
        def read_into(self, *_: object) -> None:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(scan(Broken(), 14, [Selection("w", 10)], [IncrementProducts(14)], lambda _, s: s[0], 2))


# ---- samples -------------------------------------------------------------------------------------------


def test_a_sample_holds_the_paths_of_its_elements() -> None:
    values = walk(9, 100_000)
    found = run(values, extra=[Sample(14, "some", 0, 0.0, 50)], workers=2)
    assert found["some"].shape == (14, 50)
    columns = {tuple(column) for column in values.T.tolist()}
    assert all(tuple(column) in columns for column in found["some"].T.tolist())
    assert len({tuple(column) for column in found["some"].T.tolist()}) == 50


def test_many_small_tensors_have_their_share() -> None:
    sample = Sample(3, "run", 0, 0.004, 0)
    counts = [sample.init(f"tensor {index}", 100)["run"].shape[1] for index in range(3000)]
    assert set(counts) == {0, 1}
    assert sum(counts) == pytest.approx(1200, abs=5 * np.sqrt(3000 * 0.4 * 0.6))


# ---- histograms ----------------------------------------------------------------------------------------


def test_quantiles_of_counts_by_hand() -> None:
    counts = np.zeros(10, np.int64)
    counts[2], counts[7] = 3, 1
    assert quantiles(counts, (0.0, 0.375, 0.75, 1.0)) == pytest.approx([0.2, 0.25, 0.3, 0.8])
    assert share_above(counts, 0.7) == 0.25
    assert np.isnan(quantiles(np.zeros(10, np.int64), (0.5,))).all()


def test_quantiles_of_many_values() -> None:
    values = np.random.default_rng(10).beta(0.6, 0.8, size=50_000)
    counts = np.histogram(values, bins=BINS, range=(0, 1))[0]
    levels = (0.01, 0.05, 0.5, 0.95, 0.99)
    assert quantiles(counts, levels) == pytest.approx(np.quantile(values, levels), abs=1.5 / BINS)


# ---- what is said of one tensor ------------------------------------------------------------------------


def statistics(patterns: int | None = 199) -> TensorStatistics:
    chosen = None if patterns is None else sign_patterns(13, patterns, np.random.default_rng(0), patterns + 1)
    return TensorStatistics(STEPS, UNFILTERED, 0.75, chosen)


def tensor_result(values: np.ndarray, patterns: int | None = 199):
    result = run(values, extra=[Sample(14, "tensor", 0, 0.0, 64)])
    states = [{key: result[key]} for key in ("products", "counts", "tally", "tensor")]
    return statistics(patterns)(Selection("w", values.shape[1]), states)


def test_numbers_of_a_tensor_are_those_of_its_values() -> None:
    values = walk(11, 3000, drift=0.5)
    wide = values.astype(np.float64)
    found = tensor_result(values)
    share, skill, damped, damping, lag, split, rank_one = found["numbers"]
    forecast = forecast_skill(wide, STEPS)
    assert share == pytest.approx((r_squared(wide, STEPS) > 0.7).mean(), abs=1e-3)
    assert (skill, damped, damping) == pytest.approx(
        (forecast.skill, forecast.skill_damped, forecast.damping), abs=1e-6
    )
    assert (lag, split) == pytest.approx((lag_cosine(wide, STEPS, [1])[0], split_half(wide, STEPS)), abs=1e-6)
    centred = wide - wide.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)
    assert rank_one == pytest.approx(singular[0] ** 2 / np.sum(singular**2), abs=1e-6)


def test_drift_is_found_and_noise_is_not() -> None:
    assert (tensor_result(walk(12, 500, drift=2.0))["p_values"] == 1 / 200).all()
    untested = tensor_result(walk(12, 500, drift=2.0), patterns=None)["p_values"]
    assert np.isnan(untested).all()
    still = tensor_result(np.repeat(walk(13, 10)[:1], 14, axis=0))
    assert np.isnan(still["p_values"]).all() and np.isnan(still["numbers"][1:]).all()


def test_p_values_of_noise_have_their_size() -> None:
    """Correlated elements, no drift: each test rejects at 10 % in about a tenth of the runs, no more."""
    judge, runs = statistics(99), 120
    rejected = np.zeros(3)
    for seed in range(runs):
        rng = np.random.default_rng(1000 + seed)
        shared = rng.normal(size=(13, 4)) @ rng.normal(
            size=(4, 40)
        )  # Rank 4: elements are far from independent.
        values = np.cumsum(np.vstack([np.zeros(40), shared]), axis=0)
        increments = np.diff(values, axis=0)
        states = [
            {"products": increments @ increments.T},
            {"counts": np.zeros(BINS, np.int64), "tally": np.zeros(3, np.int64)},
            {"tensor": values.astype(np.float32)},
        ]
        rejected += judge(Selection("w", 40), states)["p_values"] <= 0.1
    assert (np.abs(rejected / runs - 0.1) < 4 * np.sqrt(0.1 * 0.9 / runs)).all()


def test_the_cosine_of_neighbours_is_the_lag_cosine_at_one() -> None:
    values = walk(21, 500, drift=0.4).astype(np.float64)
    increments = np.diff(values, axis=0)
    assert neighbour_cosine(increments @ increments.T) == pytest.approx(lag_cosine(values, STEPS, [1])[0])
    assert neighbour_cosine(np.ones((2, 2))) == 1.0
    assert np.isnan(neighbour_cosine(np.zeros((5, 5)))) and np.isnan(neighbour_cosine(np.diag([1.0, 0.0])))


# ---- low rank ------------------------------------------------------------------------------------------


def test_shares_of_a_driftless_walk_in_many_dimensions() -> None:
    """Uncorrelated increments of equal size: eigenvalues of the walk's covariance, exact for any length."""
    intervals = 200
    centred, uncentred = (
        rank_one_share(np.eye(intervals), np.ones((1, intervals)), kind) for kind in (True, False)
    )
    # Karhunen-Loeve of the bridge-like centred walk and of the walk itself (Wiener process), in the limit.
    assert centred[0] == pytest.approx(6 / np.pi**2, abs=0.01)
    assert uncentred[0] == pytest.approx(8 / np.pi**2, abs=0.01)


def test_a_line_has_rank_one_and_flips_break_it() -> None:
    path = np.outer(np.arange(14.0), np.random.default_rng(0).normal(size=30))
    result = sign_flip_test(path, STEPS, RankOneShare(True), np.random.default_rng(0), n_flips=99)
    assert result.observed == pytest.approx(1.0)
    increments = np.diff(walk(14, 2000).astype(np.float64), axis=0)
    signs = np.where(np.arange(13) % 2, -1.0, 1.0)[None]
    flipped = np.vstack([np.zeros(2000), np.cumsum(signs.T * increments, axis=0)])
    expected = np.linalg.svd(flipped, compute_uv=False) ** 2
    uncentred = rank_one_share(increments @ increments.T, signs, centred=False)
    assert uncentred[0] == pytest.approx(expected[0] / expected.sum())
