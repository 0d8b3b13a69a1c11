import numpy as np
import pytest

from lab.linearity import check_trajectory, forecast_skill, lag_cosine, r_squared, split_half
from lab.settings import Invalid

GOOD = np.arange(12.0).reshape(4, 3)


@pytest.mark.parametrize(
    ("values", "steps", "field", "words"),
    [
        (GOOD[:2], [0, 1], "steps", "at least 3 checkpoints"),
        (GOOD, [0, 1, 1, 2], "steps", "increase strictly"),
        (GOOD, [0, 2, 1, 3], "steps", "increase strictly"),
        (GOOD, [0, 1, 2, np.nan], "steps", "finite"),
        (GOOD, [[0, 1, 2, 3]], "steps", "one dimension"),
        (GOOD, "abcd", "steps", "real numbers"),
        (GOOD, [0, 1, 2], "values", "4 rows"),
        (GOOD[:, 0], [0, 1, 2, 3], "values", "two dimensions"),
        (GOOD[:, :0], [0, 1, 2, 3], "values", "at least one element"),
        (np.where(GOOD == 7, np.inf, GOOD), [0, 1, 2, 5], "values", r"checkpoint 2 \(step 2\), element 1"),
    ],
)
def test_refuses_and_names_the_argument(values, steps, field, words):
    with pytest.raises(Invalid, match=words) as caught:
        check_trajectory(values, steps)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "statistic",
    [r_squared, forecast_skill, split_half, lambda v, t: lag_cosine(v, t, [1])],
    ids=["r_squared", "forecast_skill", "split_half", "lag_cosine"],
)
def test_every_statistic_needs_three_checkpoints(statistic):
    with pytest.raises(Invalid, match="at least 3 checkpoints"):
        statistic(GOOD[:2], [0, 1])


def test_accepts_integers_and_unequal_spacing():
    values, steps = check_trajectory(GOOD.astype(int), [0, 1, 10, 11])
    assert values.dtype == steps.dtype == np.float64
