"""Inner products of increments: all that statistics pooled over elements need of a trajectory.

With d_j the vector of all elements' increments between checkpoints j and j+1, the matrix K[j, l] = <d_j, d_l>
fixes every inner product of displacements, so forecast skill and cosines are functions of K. A sign
flip of the increments turns K[j, l] into s_j s_l K[j, l]: thousands of flips cost no pass over the elements.
K is a sum over elements, so it also accumulates over slices of a model.
"""

from __future__ import annotations

import numpy as np

from lab.linearity.checks import FloatArray


def increment_products(values: FloatArray) -> FloatArray:
    """K[j, l] = sum over elements of increment j times increment l; [interval, interval], unit of values²."""
    increments = np.diff(values, axis=0)
    return increments @ increments.T


def weighted_product(products: FloatArray, weights: FloatArray, signs: FloatArray) -> FloatArray:
    """sum over j and l of weights[j, l] s_j s_l K[j, l], for each sign pattern s.

    Sums of inner products of displacements are of this form: <displacement over intervals A, that over intervals B>
    has weight 1 where j is in A and l in B. However many are summed, it takes one evaluation.

    Args:
        products: K, [interval, interval], from `increment_products`.
        weights: [interval, interval].
        signs: [pattern, interval], +1 or -1.

    Returns:
        [pattern], float64; exactly 0 where all increments with a weight are zero.
    """
    result: FloatArray = np.einsum("pj,pj->p", signs @ (weights * products), signs)
    return result


def window_weights(intervals: int, first: slice, second: slice) -> FloatArray:
    """Weights of <displacement over intervals `first`, displacement over `second`>, float64 [interval, interval]."""
    weights = np.zeros((intervals, intervals))
    weights[first, second] = 1.0
    return weights


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """numerator / denominator, NaN where the denominator is not positive."""
    result = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def unflipped(products: FloatArray) -> FloatArray:
    """The pattern that leaves a trajectory as it is, shape [1, interval]."""
    return np.ones((1, len(products)))
