"""The generators of normal random numbers at hand, each filling a block that stays in the cache."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lab.objectives.synthetic import BLOCK

Fill = Callable[[], object]


def generators(seed: int) -> dict[str, Fill]:
    """Return, by name, what fills a block of `BLOCK` float32 normals."""
    block = torch.empty(BLOCK)
    twister = torch.Generator().manual_seed(seed)
    found: dict[str, Fill] = {"torch": lambda: block.normal_(generator=twister)}
    for kind in (np.random.SFC64, np.random.PCG64DXSM, np.random.PCG64, np.random.Philox, np.random.MT19937):
        found[f"numpy {kind.__name__}"] = _numpy_fill(np.random.Generator(kind(seed)))
    return found


def _numpy_fill(generator: np.random.Generator) -> Fill:
    block = np.empty(BLOCK, np.float32)
    return lambda: generator.standard_normal(dtype=np.float32, out=block)
