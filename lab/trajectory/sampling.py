"""Which coordinates are followed: a function of (seed, tensor name) alone, so that any run, resume or
reader of a foreign checkpoint picks the same ones.
"""

from __future__ import annotations

import numpy as np

from lab.draw import stable_hash


def sample_coordinates(seed: int, name: str, size: int, fraction: float, minimum: int) -> np.ndarray:
    """Return sorted flat indices int64 of the coordinates of one tensor that are followed.

    max(minimum, fraction x size) of them, without replacement; a tensor with fewer is taken whole.
    """
    count = max(minimum, round(fraction * size))
    if count >= size:
        return np.arange(size)
    generator = np.random.Generator(np.random.Philox(stable_hash("coordinates", seed, name)))
    return np.sort(generator.choice(size, size=count, replace=False))


def random_signs(seed: int, name: str, size: int) -> np.ndarray:
    """Return +1 or -1 for each element of one tensor, int8 [size]."""
    generator = np.random.Generator(np.random.Philox(stable_hash("signs", seed, name)))
    return (generator.integers(0, 2, size=size, dtype=np.int8) * 2 - 1).astype(np.int8)


def spread_coordinates(seed: int, sizes: dict[str, int], count: int) -> dict[str, np.ndarray]:
    """Choose `count` coordinates over all tensors together; return flat indices by tensor name."""
    total = sum(sizes.values())
    generator = np.random.Generator(np.random.Philox(stable_hash("update_coordinates", seed)))
    chosen = np.sort(generator.choice(total, size=min(count, total), replace=False))
    result, offset = {}, 0
    for name, size in sizes.items():
        inside = chosen[(chosen >= offset) & (chosen < offset + size)] - offset
        if len(inside):
            result[name] = inside
        offset += size
    return result
