from itertools import islice

import numpy as np
import pytest

from lab.checks.descent import bowl, descend, sgd


def test_bowl_is_the_recursion_it_says():
    """distance <- rho distance + noise xi, written out with the same xi."""
    rho, noise, start = 0.8, 0.3, np.array([1.0, -2.0, 0.0])
    path = bowl(rho, noise, start, np.array([0, 1, 4]), np.random.default_rng(0), learning_rate=0.7)
    random, position, positions = np.random.default_rng(0), start, [start]
    for _ in range(4):
        position = rho * position - noise * random.standard_normal(3)
        positions.append(position)
    assert path == pytest.approx(np.array(positions)[[0, 1, 4]], rel=1e-12)


@pytest.mark.parametrize("learning_rate", [0.01, 0.1, 2.0])
def test_the_split_into_rate_curvature_and_noise_does_not_matter(learning_rate):
    marks = np.array([3, 6])
    one = bowl(0.5, 0.2, np.ones(4), marks, np.random.default_rng(1), learning_rate)
    other = bowl(0.5, 0.2, np.ones(4), marks, np.random.default_rng(1))
    assert one == pytest.approx(other, rel=1e-10)


def test_without_noise_nothing_is_drawn_and_the_bowl_is_geometric():
    path = bowl(-0.5, 0.0, np.ones(1), np.arange(5), np.random.default_rng(2))
    assert path[:, 0] == pytest.approx((-0.5) ** np.arange(5))


def test_momentum_is_heavy_ball():
    def pulse(update, here, out):
        out[:] = 1.0 if update == 0 else 0.0

    moved = [position.copy() for position, _ in islice(descend(sgd(0.1, 0.5), np.zeros(1), pulse), 4)]
    assert np.diff([0, *np.ravel(moved)]) == pytest.approx(-0.1 * 0.5 ** np.arange(4))
