import itertools

import numpy as np
import pytest
import torch

from lab.checks.adam_noise import CHECKPOINT_STEPS, WEIGHT_SCALE, adamw, noise_trajectories
from lab.checks.nulls import NULLS, null_table
from lab.draw import Draw
from lab.linearity import get_protocol

EFFORT = 0.03


@pytest.fixture(scope="module")
def table():
    return null_table(0, EFFORT)


def test_what_was_stated_is_found_exactly_and_by_simulation(table):
    stated = [row for row in table if row.stated is not None]
    assert len(stated) > 30
    for row in stated:
        assert abs(row.value - row.stated) <= row.tolerance + 4 * row.standard_error, row


def test_simulated_numbers_agree_with_exact_ones(table):
    """Each exact number but one (n to infinity) is followed by its simulation."""
    pairs = [
        (first, second)
        for first, second in itertools.pairwise(table)
        if first.source == "exact" and second.source == "simulated"
    ]
    assert len(pairs) >= 18
    for exact, simulated in pairs:
        assert (exact.null, exact.statistic) == (simulated.null, simulated.statistic)
        assert exact.standard_error == 0 < simulated.standard_error
        assert abs(exact.value - simulated.value) < 4.5 * simulated.standard_error, (exact, simulated)


def test_rows_are_told_apart(table):
    keys = [(row.null, row.statistic, row.source) for row in table]
    assert len(set(keys)) == len(keys)
    assert all(np.isfinite(row.value) for row in table)


def test_a_null_depends_on_the_seed_and_on_itself_alone(table):
    alone = NULLS["moved_most"](EFFORT, Draw(0).generator("null moved_most"))
    assert [row for row in table if row in alone] == alone
    assert NULLS["moved_most"](EFFORT, Draw(1).generator("null moved_most")) != alone


def test_the_filter_bites_at_the_small_rate_only(table):
    by_rate = {
        rate: {row.statistic: row.value for row in table if f"lr {rate}," in row.null}
        for rate in ("1e-06", "1e-05")
    }
    small, large = by_rate["1e-06"], by_rate["1e-05"]
    assert small["share retained"] < 0.03 < 0.8 < large["share retained"]
    assert small["median of R²"] > 0.75 > 0.55 > large["median of R²"]


def test_weights_without_signal_are_those_of_the_optimiser():
    """The recursion of AdamW in float64, on the gradients that were drawn."""
    rates = (1e-6, 1e-5)
    runs = noise_trajectories(rates, 3, np.random.default_rng(7))
    random = np.random.default_rng(7)
    start = WEIGHT_SCALE * random.standard_normal(3, dtype=np.float32).astype(np.float64)
    for run in runs:
        assert run.shape == (len(CHECKPOINT_STEPS), 3)
        assert run[0] == pytest.approx(start, rel=1e-6)
    weights, first, second = [start.copy(), start.copy()], np.zeros(3), np.zeros(3)
    for update in range(1, 201):
        gradient = 1e-5 * random.standard_normal(3, dtype=np.float32).astype(np.float64)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        step = (first / (1 - 0.9**update)) / (np.sqrt(second / (1 - 0.999**update)) + 1e-8)
        weights = [w - rate * (0.01 * w + step) for rate, w in zip(rates, weights, strict=True)]
    for run, weight in zip(runs, weights, strict=True):
        assert run[1] - run[0] == pytest.approx(weight - start, abs=2e-7)  # 200 roundings of a float32 weight


def test_cast_of_checkpoints_is_that_of_bfloat16():
    run = noise_trajectories((1e-5,), 500, np.random.default_rng(8))[0]
    cast = torch.from_numpy(run.astype(np.float32)).to(torch.bfloat16).to(torch.float64).numpy()
    assert np.array_equal(get_protocol("paper").cast(run, "weights"), cast)
    assert adamw(1e-6).beta2 == 0.999
