import numpy as np
import pytest

from lab.checks.pooled import (
    SLICES,
    best_damping,
    damped_error,
    in_slices,
    jackknife,
    products,
    representatives,
    two_point_skill,
)
from lab.linearity import forecast_skill, lag_cosine


@pytest.fixture
def random():
    return np.random.default_rng(20)


def run(random, coordinates=3_000):
    """Walks with drift at uneven steps, [checkpoint, coordinate], and the steps."""
    steps = np.array([0.0, 1.0, 3.0, 4.0, 8.0, 9.5])
    increments = np.sqrt(np.diff(steps))[:, None] * random.standard_normal((5, coordinates))
    drift = np.outer(np.diff(steps), random.exponential(0.3, coordinates))
    return np.concatenate([np.zeros((1, coordinates)), np.cumsum(increments + drift, axis=0)]), steps


def test_representatives_show_what_all_coordinates_show(random):
    values, steps = run(random)
    few = representatives(products(values))
    assert few.shape == (6, 5)
    found, expected = forecast_skill(few, steps), forecast_skill(values, steps)
    assert found.damping == pytest.approx(expected.damping)
    assert found.skill_by_horizon == pytest.approx(expected.skill_by_horizon)
    assert found.skill_damped == pytest.approx(expected.skill_damped)
    assert lag_cosine(few, steps, [1, 2]) == pytest.approx(lag_cosine(values, steps, [1, 2]))
    assert two_point_skill(few, steps) == pytest.approx(two_point_skill(values, steps))


def test_a_run_that_only_drifts_has_representatives_too():
    values = np.outer(np.arange(4.0), [1.0, -2.0])
    few = representatives(products(values))
    assert two_point_skill(few, np.arange(4.0)) == pytest.approx(1.0)
    assert np.sum(few[-1] ** 2) == pytest.approx(np.mean(values[-1] ** 2))


def test_two_point_skill_by_hand():
    """Window 0, 1, 2 with displacement 4; then 3 in one more step, where the line says 2."""
    values = np.array([[0.0], [3.0], [4.0], [7.0]])
    assert two_point_skill(values, np.arange(4.0)) == pytest.approx(1 - (3 - 2) ** 2 / 3**2)
    assert damped_error(values, np.arange(4.0), 0.0) == pytest.approx(9.0)
    assert damped_error(values, np.arange(4.0), 0.5) == pytest.approx(4.0)
    assert best_damping(values, np.arange(4.0)) == pytest.approx((1.5, 1.0))


def test_no_other_damping_does_better(random):
    values, steps = run(random)
    best, skill = best_damping(values, steps)
    held = damped_error(values, steps, 0.0)
    assert skill == pytest.approx(1 - damped_error(values, steps, best) / held)
    grid = [1 - damped_error(values, steps, w) / held for w in np.linspace(best - 0.5, best + 0.5, 101)]
    assert np.argmax(grid) == 50


def test_slices_hold_at_least_the_draws_asked_for_in_equal_multiples():
    widths = []

    def draw(width):
        widths.append(width)
        return np.zeros(3)

    slices, draws = in_slices(draw, 1_000, multiple=4)
    assert slices.shape == (SLICES, 3)
    assert draws == sum(widths) == 8 * SLICES
    assert in_slices(draw, 1)[1] == SLICES


def test_jackknife_covers_the_truth_as_often_as_it_says(random):
    """A ratio of means, far from linear: 3 standard deviations of each other over repetitions."""
    found = []
    for _ in range(200):
        slices = 1 + np.array([1.0, 2.0]) * random.standard_normal((SLICES, 2))
        estimate = jackknife(slices, lambda mean: mean[0] / mean[1], 7)
        found.append((estimate.value, estimate.standard_error))
        assert estimate.samples == 7
    values, errors = np.array(found).T
    assert values.mean() == pytest.approx(1.0, abs=4 * values.std() / np.sqrt(200))
    assert np.median(errors) == pytest.approx(values.std(), rel=0.2)
    assert np.std((values - 1) / errors) == pytest.approx(1.0, abs=0.2)
