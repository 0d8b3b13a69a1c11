"""Inner products over time: of displacements from the first checkpoint, their components, and a stand-in path.

With K the inner products of increments and L the lower triangle of ones, displacements from the first checkpoint have
inner products L K L'. Its eigenvectors are the left singular vectors of the matrix [checkpoint, element] of
displacements, so a singular value decomposition over time costs one pass over the elements and one tiny
eigenproblem (the method of snapshots: Sirovich, Quarterly of Applied Mathematics 45, 1987).
"""

from __future__ import annotations

import numpy as np

from lab.linearity.checks import FloatArray

_NOISE = 1e-12
"""Eigenvalues below this share of the largest are rounding."""


def displacement_products(products: FloatArray) -> FloatArray:
    """Return <x_k - x_0, x_l - x_0> for all pairs, [checkpoint, checkpoint], given increments' [interval, interval]."""
    result = np.zeros((len(products) + 1,) * 2)
    result[1:, 1:] = np.cumsum(np.cumsum(products, axis=0), axis=1)
    return result


def components(products: FloatArray, rank: int) -> FloatArray:
    """Return the leading left singular vectors of the displacements over time, unit length, [component, checkpoint].

    The entry at the first checkpoint is 0, since displacements start there. Fewer than `rank` come back where the
    path has fewer; none where nothing moved. Signs are arbitrary.
    """
    values, vectors = np.linalg.eigh(displacement_products(products))
    kept = np.flatnonzero(values > _NOISE * max(values[-1], 0.0))[::-1][:rank]
    return np.asarray(vectors[:, kept].T) if values[-1] > 0 else np.zeros((0, len(values)))


def path_with_products(products: FloatArray) -> FloatArray:
    """Return a short path whose increments have the inner products given, [checkpoint, interval], from the origin.

    Whatever depends on a path through these products alone is the same for it as for the path of a whole model.
    """
    values, vectors = np.linalg.eigh(products)
    increments = vectors * np.sqrt(np.clip(values, 0.0, None))
    return np.concatenate([np.zeros((1, len(products))), np.cumsum(increments, axis=0)])
