"""What the Monte-Carlo re-derivations share: generators by test name, R² from its textbook definition, 4 sigma."""

from __future__ import annotations

import zlib

import numpy as np
import pytest


@pytest.fixture
def random(request):
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def line_fit():
    """1 - SSR/SST of the least-squares line through each row; rows are trajectories."""

    def fit(values, steps):
        design = np.column_stack([np.ones(len(steps)), steps])
        rest = values - (np.linalg.pinv(design) @ values.T).T @ design.T
        total = values - values.mean(1, keepdims=True)
        return 1 - (rest**2).sum(1) / (total**2).sum(1)

    return fit


@pytest.fixture
def agree():
    """The mean of a sample lies within 4 standard errors (and a stated tolerance) of a prediction."""

    def check(sample, predicted, tolerance=0.0):
        error = sample.std(ddof=1) / np.sqrt(sample.size)
        assert abs(sample.mean() - predicted) <= 4 * error + tolerance, (
            sample.mean(),
            float(predicted),
            error,
        )

    return check


@pytest.fixture
def ratio_agree():
    """A ratio of means lies within 4 standard errors (delta method) of a prediction."""

    def check(top, bottom, predicted):
        ratio = top.mean() / bottom.mean()
        error = (top - ratio * bottom).std(ddof=1) / np.sqrt(top.size) / abs(bottom.mean())
        assert abs(ratio - predicted) <= 4 * error, (ratio, float(predicted), error)

    return check
