"""Counter-based randomness: addressed by role, step and row, and by nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lab.draw import Draw, stable_hash

CORRELATION_BOUND = 5.0  # standard errors: one false alarm in a million and a half
HASH_64 = 16755800463757148010
HASH_128 = 201314432359796794910162285391252910560


def correlation_z(first: np.ndarray, second: np.ndarray) -> float:
    """Sample correlation in units of its standard error under independence."""
    a, b = first.ravel(), second.ravel()
    return float(np.corrcoef(a, b)[0, 1] * math.sqrt(a.size))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**63),
    step=st.integers(0, 2**40),
    width=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 20), max_size=5),
)
def test_any_split_of_the_rows_draws_the_same(seed: int, step: int, width: int, cuts: list[int]) -> None:
    whole = Draw(seed).uniform("rollout", step, (20, width))
    edges = sorted({0, 20, *cuts})
    parts = [
        Draw(seed).uniform("rollout", step, (stop - start, width), first_row=start)
        for start, stop in zip(edges, edges[1:], strict=False)
    ]
    assert np.array_equal(np.concatenate(parts), whole)


def test_a_block_deep_in_the_rows_is_found_without_drawing_what_precedes() -> None:
    draw, far = Draw(1), 10**12
    pair = draw.uniform("rollout", 0, (2, 5), first_row=far)
    assert np.array_equal(pair[1], draw.uniform("rollout", 0, (1, 5), first_row=far + 1)[0])


def test_the_order_of_calls_does_not_matter() -> None:
    one, other = Draw(3), Draw(3)
    calls = [("rollout", 0), ("twin", 0), ("rollout", 7), ("problem", 2)]
    forward = {call: one.uniform(*call, (4, 3)) for call in calls}
    backward = {call: other.uniform(*call, (4, 3)) for call in reversed(calls)}
    assert all(np.array_equal(forward[call], backward[call]) for call in calls)


def test_repeating_a_call_repeats_the_numbers() -> None:
    draw = Draw(3)
    assert np.array_equal(draw.uniform("rollout", 5, (4, 3)), draw.uniform("rollout", 5, (4, 3)))


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 4), (6, 5), (6, 2, 3), (0, 4), (6, 0)])
def test_the_shape_is_the_one_asked_for(shape: tuple[int, ...]) -> None:
    drawn = Draw(0).uniform("rollout", 0, shape)
    assert drawn.shape == shape and drawn.dtype == np.float64


def test_a_row_of_many_axes_holds_the_numbers_of_the_same_row_flattened() -> None:
    draw = Draw(0)
    assert np.array_equal(
        draw.uniform("rollout", 1, (5, 2, 3)), draw.uniform("rollout", 1, (5, 6)).reshape(5, 2, 3)
    )


def test_no_number_comes_twice_in_neighbouring_rows_steps_and_roles() -> None:
    draws = [
        Draw(seed).uniform(role, step, (50, 7))
        for seed in (0, 1)
        for role in ("rollout", "twin")
        for step in (0, 1)
    ]
    values = np.concatenate([block.ravel() for block in draws])
    assert len(np.unique(values)) == values.size


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, "rollout", 0), (0, "rollout", 1)),
        ((0, "rollout", 0), (0, "twin", 0)),
        ((0, "rollout", 0), (1, "rollout", 0)),
        ((0, "rollout", 2**32), (0, "rollout", 0)),
        ((2**64, "rollout", 0), (0, "rollout", 0)),
    ],
    ids=["step", "role", "seed", "step beyond 32 bits", "seed beyond 64 bits"],
)
def test_streams_that_differ_are_uncorrelated(one: tuple[int, str, int], other: tuple[int, str, int]) -> None:
    first = Draw(one[0]).uniform(one[1], one[2], (20_000, 3))
    second = Draw(other[0]).uniform(other[1], other[2], (20_000, 3))
    assert abs(correlation_z(first, second)) < CORRELATION_BOUND


def test_rows_and_columns_are_uncorrelated() -> None:
    drawn = Draw(11).uniform("rollout", 0, (20_000, 6))
    assert abs(correlation_z(drawn[1:], drawn[:-1])) < CORRELATION_BOUND
    assert abs(correlation_z(drawn[:, 1:], drawn[:, :-1])) < CORRELATION_BOUND


@pytest.mark.parametrize(
    "drawn",
    [
        Draw(5).uniform("rollout", 3, (40_000, 3)),
        np.array([Draw(5).uniform("rollout", step, (1,))[0] for step in range(5_000)]),
        np.array([Draw(seed).uniform("rollout", 0, (1,))[0] for seed in range(5_000)]),
    ],
    ids=["within a step", "over steps", "over seeds"],
)
def test_numbers_are_uniform_on_the_unit_interval(drawn: np.ndarray) -> None:
    assert drawn.min() >= 0 and drawn.max() < 1
    observed = np.bincount((drawn.ravel() * 50).astype(int), minlength=50)
    assert stats.chisquare(observed).pvalue > 1e-5


def test_the_low_bits_are_random_as_well() -> None:
    words = (Draw(5).uniform("rollout", 3, (40_000,)) * 2.0**53).astype(np.uint64)
    observed = np.bincount((words % np.uint64(16)).astype(int), minlength=16)
    assert stats.chisquare(observed).pvalue > 1e-5


@pytest.mark.parametrize("row", [0, 3])
def test_a_generator_starts_anew_at_its_address(row: int) -> None:
    draw = Draw(2)
    first = draw.generator("problem", 4, row).integers(0, 10**9, 8)
    assert np.array_equal(first, draw.generator("problem", 4, row).integers(0, 10**9, 8))


def test_generators_of_other_rows_and_steps_are_uncorrelated() -> None:
    draw = Draw(2)
    base = draw.generator("problem", 4).random(50_000)
    for other in (draw.generator("problem", 4, 1), draw.generator("problem", 5)):
        assert abs(correlation_z(base, other.random(50_000))) < CORRELATION_BOUND


def test_a_negative_step_or_row_is_refused() -> None:
    draw = Draw(0)
    with pytest.raises(ValueError, match="negative"):
        draw.uniform("rollout", -1, (2,))
    with pytest.raises(ValueError, match="negative"):
        draw.uniform("rollout", 0, (2,), first_row=-1)
    with pytest.raises(ValueError, match="negative"):
        draw.generator("problem", 0, -1)


def test_a_hash_depends_on_where_its_parts_are_cut() -> None:
    hashes = {stable_hash("ab", "c"), stable_hash("a", "bc"), stable_hash("abc"), stable_hash("abc", "")}
    assert len(hashes) == 4


def test_a_hash_is_the_same_for_ever() -> None:
    # Computed apart with hashlib: splits, initial weights and draws of stored runs rest on these.
    assert stable_hash("split", "+:12,34") == HASH_64
    assert stable_hash("draw", 0, "rollout", bits=128) == HASH_128


@given(st.lists(st.text(max_size=8), max_size=4))
def test_a_hash_fits_its_bits(parts: list[str]) -> None:
    assert 0 <= stable_hash(*parts) < 2**64 and 0 <= stable_hash(*parts, bits=32) < 2**32


# --- bulk random numbers -----------------------------------------------------------------------------


def bulk(seed: int, role: str, step: int, size: int, uniform: bool = False) -> np.ndarray:
    """The first numbers of a stream, in one call."""
    import torch

    stream, values = Draw(seed).stream(role, step), torch.empty(size)
    result: np.ndarray = (stream.uniform_(values) if uniform else stream.normal_(values)).numpy()
    return result


@pytest.mark.parametrize("uniform", [False, True])
def test_a_stream_is_a_function_of_seed_role_and_step(uniform: bool) -> None:
    first = bulk(1, "a", 2, 4096, uniform)
    assert np.array_equal(first, bulk(1, "a", 2, 4096, uniform))
    others = [bulk(2, "a", 2, 4096, uniform), bulk(1, "b", 2, 4096, uniform), bulk(1, "a", 3, 4096, uniform)]
    for other in others:
        assert abs(np.corrcoef(first, other)[0, 1]) < 5 / math.sqrt(4096)


@pytest.mark.parametrize("uniform", [False, True])
def test_however_a_stream_is_split_it_is_the_same(uniform: bool) -> None:
    import torch

    stream, values = Draw(3).stream("noise", 7), torch.empty(160)
    for part in (values[:16], values[16:112], values[112:]):
        (stream.uniform_ if uniform else stream.normal_)(part)
    assert np.array_equal(values.numpy(), bulk(3, "noise", 7, 160, uniform))


def test_normals_of_any_shape_begin_alike_and_are_normal() -> None:
    rows = Draw(5).normal("x", 0, (3, 7))
    assert rows.dtype == np.float32 and np.array_equal(rows, Draw(5).normal("x", 0, (5, 7))[:3])
    many = Draw(5).normal("x", 1, (200_000,)).astype(np.float64)
    moments = [np.mean(many**power) for power in (1, 2, 3, 4)]
    errors = [5 * math.sqrt(variance / many.size) for variance in (1, 2, 15, 96)]
    for moment, expected, error in zip(moments, (0, 1, 0, 3), errors, strict=True):
        assert abs(moment - expected) < error
    assert np.abs(many).max() < 5.8


def test_a_standard_deviation_only_scales() -> None:
    import torch

    scaled = Draw(1).stream("x", 0).normal_(torch.empty(1024), 0.3).numpy()
    assert np.array_equal(scaled, bulk(1, "x", 0, 1024) * np.float32(0.3))


def test_no_two_steps_of_a_role_share_their_first_number() -> None:
    firsts = [bulk(0, "x", step, 1, uniform=True)[0] for step in range(3000)]
    # 24 bits: of 3,000 draws 0.27 pairs coincide by chance.
    assert len(set(firsts)) >= 2995


def test_normals_come_by_sixteen_and_steps_are_not_negative() -> None:
    import torch

    with pytest.raises(ValueError, match="multiples of 16"):
        Draw(0).stream("x", 0).normal_(torch.empty(17))
    with pytest.raises(ValueError, match="step must not be negative"):
        Draw(0).stream("x", -1)
