"""Means and covariances with control variates: what known noise explains is taken out of the estimate's error.

A simulation knows the noise it has drawn. Quantities of it whose mean is zero and whose variances are known by
construction (sums of standard normals, of squares less one) are regressed out: with y = b'c + e the mean of y is
that of e, and Cov(y, y') = b' V b' + Cov(e, e'), where V is known and only what e holds is left to chance
(Lavenberg and Welch 1981). Nothing is assumed of the relation of y to the controls.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lab.checks.estimate import Estimate, blocked_estimate

Array = NDArray[np.float64]

_BLOCKS = 100


def controlled_mean(values: Array, controls: Array) -> Estimate:
    """The mean of `values`, with the delete-a-block jackknife over replicates.

    Args:
        values: float64 [replicate, repeat]; repeats of one replicate may be correlated.
        controls: float64 [replicate, repeat, control], each of mean zero.
    """
    return _jackknife(values[..., None], controls, lambda _, coefficients, __: float(coefficients[0, 0]))


def controlled_covariance(first: Array, second: Array, controls: Array, variances: Array) -> Estimate:
    """The covariance of `first` and `second` (their variance, if the same), with the jackknife over replicates.

    Args:
        first: float64 [replicate, repeat]; repeats of one replicate may be correlated.
        second: the same shape.
        controls: float64 [replicate, repeat, control], of mean zero and uncorrelated with each other.
        variances: float64 [control], known; a control of variance zero is left out.
    """

    varying = variances > 0
    controls, variances = controls[..., varying], variances[varying]

    def covariance(rows: float, coefficients: Array, rest: Array) -> float:
        slopes = coefficients[1:]
        explained = (slopes[:, 0] * slopes[:, 1] * variances).sum()
        return float(explained + rest[0, 1] / (rows - len(coefficients)))

    return _jackknife(np.stack([first, second], axis=-1), controls, covariance)


def _jackknife(values: Array, controls: Array, statistic: Callable[[float, Array, Array], float]) -> Estimate:
    """A statistic of the regression of values [replicate, repeat, value] on controls [replicate, repeat, control].

    Args:
        values: what is explained.
        controls: what explains.
        statistic: of the number of rows, the coefficients [1 + control, value], intercepts first, and the
            products of residuals [value, value].
    """
    rows = np.concatenate([np.ones((*controls.shape[:-1], 1)), controls, values], axis=-1)
    products = (
        np.swapaxes(rows, -1, -2) @ rows
    )  # of each replicate: their sum is all that least squares needs
    split = 1 + controls.shape[-1]

    def regress(kept: Array) -> float:
        total = kept.sum(axis=0)
        coefficients = np.linalg.solve(total[:split, :split], total[:split, split:])
        rest = total[split:, split:] - total[split:, :split] @ coefficients
        return statistic(float(total[0, 0]), coefficients, rest)

    return blocked_estimate(products, regress, min(_BLOCKS, len(products)))
