import numpy as np
import pytest

from theory.low_rank_walk import (
    centred_coefficient_limit,
    centred_coefficient_r_squared,
    centred_drift_share,
    centred_share,
    centred_share_limit,
    uncentred_coefficient_limit,
    uncentred_coefficient_r_squared,
    uncentred_drift_share,
    uncentred_share,
    uncentred_share_limit,
)
from theory.prediction import InvalidArgument

COORDINATES = 20_000


def principal(values, *, centred):
    """Shares of the components, and the leading coefficient over checkpoints, by SVD of [checkpoint, coordinate]."""
    data = values - values.mean(0) if centred else values - values[0]
    left, singular, _ = np.linalg.svd(data, full_matrices=False)
    return singular**2 / (singular**2).sum(), left[:, 0]


def walk(random, n, drift, coordinates=COORDINATES):
    steps = random.standard_normal((n - 1, coordinates)) + drift * random.choice([-1.0, 1.0], coordinates)
    return np.concatenate([np.zeros((1, coordinates)), steps.cumsum(0)])


@pytest.mark.parametrize(("n", "drift"), [(4, 0.0), (14, 0.0), (50, 0.0), (14, 0.3), (14, 1.0), (5, -0.7)])
def test_shares_and_coefficients_by_simulation(random, n, drift):
    """The sample Gram matrix is its mean to about 1/sqrt(coordinates): 4 of those is 3 %."""
    values = walk(random, n, drift)
    time = np.arange(n)
    shares, coefficient = principal(values, centred=True)
    assert shares[0] == pytest.approx(centred_drift_share(n, drift), abs=0.01)
    uncentred, first = principal(values, centred=False)
    assert uncentred[0] == pytest.approx(uncentred_drift_share(n, drift), abs=0.01)
    if drift == 0:
        k = np.arange(1, n)
        assert shares[: n - 1] == pytest.approx(centred_share(n, k), abs=0.01)
        assert uncentred[: n - 1] == pytest.approx(uncentred_share(n, k), abs=0.01)
        assert np.corrcoef(time, coefficient)[0, 1] ** 2 == pytest.approx(
            centred_coefficient_r_squared(n), abs=0.005
        )
        assert np.corrcoef(time, first)[0, 1] ** 2 == pytest.approx(
            uncentred_coefficient_r_squared(n), abs=0.005
        )


def test_published_shares():
    """61 % and 81 %; the coefficient of the uncentred rank-1 path has R² .96, of the centred PC1 .99."""
    assert centred_share_limit() == pytest.approx(0.61, abs=0.005)
    assert uncentred_share_limit() == pytest.approx(0.81, abs=0.005)
    assert uncentred_coefficient_limit() == pytest.approx(0.96, abs=0.005)
    assert centred_coefficient_limit() == pytest.approx(0.986, abs=5e-4)


def test_extrapolating_the_rank_one_coefficient_loses_to_persistence(random):
    """science.md: the leading coefficient of the first fifth, carried to the end, has 2.2 x persistence's RMSE."""
    ratios = []
    for _ in range(10):
        values = walk(random, 101, 0.0, 2_000)
        window = values[:21]
        left, singular, right = np.linalg.svd(window, full_matrices=False)
        slope, intercept = np.polyfit(np.arange(21), left[:, 0] * singular[0], 1)
        forecast = (intercept + slope * 100) * right[0]
        ratios.append(np.linalg.norm(forecast - values[-1]) / np.linalg.norm(window[-1] - values[-1]))
    assert np.mean(ratios) == pytest.approx(2.2, abs=0.05)


def test_eigenvalues_of_the_expected_gram_matrix():
    for n in (3, 7, 30):
        time = np.arange(n)
        gram = np.minimum.outer(time, time).astype(float)
        uncentred = np.sort(np.linalg.eigvalsh(gram))[::-1][: n - 1]
        assert uncentred / np.trace(gram) == pytest.approx(uncentred_share(n, np.arange(1, n)))
        centring = np.eye(n) - 1 / n
        centred = np.sort(np.linalg.eigvalsh(centring @ gram @ centring))[::-1][: n - 1]
        assert centred / centred.sum() == pytest.approx(centred_share(n, np.arange(1, n)))


def test_limits():
    k = np.arange(1, 4)
    assert centred_share(100_000, k) == pytest.approx(centred_share_limit(k), rel=1e-4)
    assert uncentred_share(100_000, k) == pytest.approx(uncentred_share_limit(k), rel=1e-4)
    assert centred_share(14, np.arange(1, 20)).sum() == pytest.approx(1)
    assert uncentred_share(14, np.arange(1, 20)).sum() == pytest.approx(1)
    assert centred_share(14, 14) == 0
    assert centred_drift_share(14, [0.0, np.inf]) == pytest.approx([float(centred_share(14)), 1])
    assert uncentred_drift_share(14, [0.0, 1e6]) == pytest.approx([float(uncentred_share(14)), 1])
    assert centred_coefficient_r_squared(3) == pytest.approx(1)
    assert centred_coefficient_r_squared(5000) == pytest.approx(centred_coefficient_limit(), abs=1e-6)
    assert uncentred_coefficient_r_squared(5000) == pytest.approx(uncentred_coefficient_limit(), abs=1e-3)


def test_breaks_down_with_few_directions(random):
    """Five coordinates: the first component holds clearly more than in the limit."""
    shares = [principal(walk(random, 14, 0.0, 5), centred=True)[0][0] for _ in range(2000)]
    assert np.mean(shares) > centred_share(14) + 0.05


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("n", lambda: centred_share(2)),
        ("component", lambda: centred_share(14, 0)),
        ("component", lambda: uncentred_share_limit(1.5)),
        ("n", lambda: uncentred_share(2)),
        ("drift", lambda: centred_drift_share(14, np.nan)),
        ("n", lambda: centred_coefficient_r_squared(1)),
        ("n", lambda: uncentred_coefficient_r_squared(2)),
    ],
)
def test_refuses_and_names_the_argument(argument, call):
    with pytest.raises(InvalidArgument, match=f"^{argument}:"):
        call()
