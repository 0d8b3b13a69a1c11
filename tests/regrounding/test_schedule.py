"""Schedules as sequences of jumps, and the reward check as a test of known size."""

from __future__ import annotations

import numpy as np
import pytest

from lab.regrounding.schedule import Adaptive, Decaying, Fixed, Schedule, reward_holds


def adaptive(**changes: float) -> Adaptive:
    """n from 8, doubled or halved, between 2 and 20."""
    keys = {"jump_steps": 8.0, "grow": 2.0, "shrink": 0.5, "smallest": 2.0, "largest": 20.0}
    return Adaptive(**{**keys, "skill_blocks": 2, "least_skill": 0.1, **changes})  # type: ignore[arg-type]


def jumps(schedule: Schedule, verdicts: list[bool]) -> list[float | None]:
    """The jumps asked for when each gets its verdict; blocks of 5 steps."""
    asked = []
    for block, accepted in enumerate(verdicts, start=1):
        wanted = schedule.next_jump(5 * block)
        asked.append(wanted)
        if wanted is not None:
            schedule.learn(accepted)
    return asked


def test_fixed_jumps_are_all_alike_until_the_last_one() -> None:
    assert jumps(Fixed(7.5), [True] * 3) == [7.5, 7.5, 7.5]
    schedule = Fixed(7.5, until_step=10)
    assert jumps(schedule, [True] * 3) == [7.5, 7.5, None]
    assert [schedule.over(step) for step in (5, 9, 10)] == [False, False, True]


def test_decaying_jumps_shrink_to_one_step_and_cease() -> None:
    assert jumps(Decaying(8, 0.5), [True] * 6) == [8, 4, 2, 1, None, None]


def test_adaptive_jumps_follow_their_verdicts_within_bounds() -> None:
    verdicts = [True, True, True, False, False, False, False, True]
    assert jumps(adaptive(), verdicts) == [8, 16, 20, 20, 10, 5, 2.5, 2]


def test_adaptive_jumps_cease_while_skill_is_gone_and_come_back() -> None:
    schedule = adaptive()
    asked = []
    for skill in (0.5, -0.4, -0.2, 0.6, 0.6):  # means of the last two: .5, .05, -.3, .2, .6
        schedule.observe(skill)
        asked.append(schedule.next_jump(5) is not None)
    assert asked == [True, False, False, True, True]


@pytest.mark.parametrize("make", [lambda: Decaying(100, 0.9), adaptive])
def test_a_saved_schedule_goes_on_as_if_nothing_had_happened(make: object) -> None:
    assert callable(make)
    whole, broken = make(), make()
    for schedule in (whole, broken):
        jumps(schedule, [True, False, True])
        schedule.observe(0.3)
    again = make()
    again.load_state_dict(broken.state_dict())
    for schedule in (whole, again):
        schedule.observe(0.4)
    assert jumps(again, [True, False, False]) == jumps(whole, [True, False, False])


@pytest.mark.parametrize(("tolerance", "size"), [(0.0, 0.5), (1.0, 0.1587), (2.0, 0.0228)])
def test_a_check_without_a_fall_refuses_as_often_as_the_normal_distribution_says(
    tolerance: float, size: float
) -> None:
    generator = np.random.default_rng(0)
    rates = generator.uniform(0.2, 0.8, size=(4000, 200))
    scores = [generator.binomial(4, rates) / 4 for _ in range(2)]
    refused = np.mean([not reward_holds(*pair, tolerance) for pair in zip(*scores, strict=True)])
    error = (size * (1 - size) / 4000) ** 0.5
    # A mean of exactly 0 is no fall; at tolerance 0 it takes up to 2 % of the cases from the refused.
    assert size - 4 * error - (0.02 if tolerance == 0 else 0.002) <= refused <= size + 4 * error


def test_unjudged_problems_do_not_count() -> None:
    before = np.array([1.0, 0.5, np.nan, 0.5])
    assert not reward_holds(before, np.array([np.nan, 0.25, 1.0, 0.25]), 1.0)
    assert reward_holds(before, np.array([0.0, 0.5, 1.0, 0.5]), 1.5)
    assert not reward_holds(before, np.array([np.nan, 0.5, np.nan, np.nan]), 1.0)
