"""Counter-based randomness by role.

Every random number of a run is a pure function of (root seed, role, step, global row), so a run
draws the same numbers on any machine, with any micro-batching or number of processes, and after
any resume; nothing about randomness has to be saved in a checkpoint. The generator is Philox4x64
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), keyed by a hash of seed and role
and started at a counter made of step and row.

Synthetic runs need random numbers by the billion, so these come in bulk from the fastest generator at hand: torch's
Mersenne twister (Matsumoto & Nishimura 1998) with its vectorised Box-Muller transform draws float32 normals three
times as fast as any generator of NumPy. It is seeded afresh for every (seed, role, step), see `Stream`.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_WORDS_PER_COUNTER = 4  # Philox4x64 yields four 64-bit words for each value of its counter.
_BLOCK = 16  # torch transforms 16 uniforms to 16 normals at a time.


def stable_hash(*parts: object, bits: int = 64) -> int:
    """Return an unsigned integer of `bits` bits that depends on `parts` alone, on any machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=bits // 8).digest(), "little")


class Stream:
    """The bulk random numbers of one (seed, role, step), float32, in order: what is drawn next follows on the last.

    The twister has 2^32 seeds; those of one role are a permutation of the steps, so that no two steps of it share one.
    A machine without AVX2 transforms the same uniforms to normals that may differ in the last bit.

    Args:
        seed: root seed of the run.
        role: what the numbers are for.
        step: RL step, at least 0.
    """

    def __init__(self, seed: int, role: str, step: int) -> None:
        import torch

        if step < 0:
            raise ValueError(f"step must not be negative: {step}")
        words = stable_hash("stream", seed, role)
        factor, offset = (words >> 32) | 1, words & (2**32 - 1)
        self._generator = torch.Generator().manual_seed((factor * step + offset) % 2**32)

    def normal_(self, out: Tensor, standard_deviation: float = 1.0) -> Tensor:
        """Fill `out` (float32 on CPU, contiguous, its size a multiple of 16) with normals of mean zero.

        They lie within 5.8 standard deviations, since the uniforms have 24 bits. However the numbers of a stream are
        split among calls, they are the same.
        """
        if out.numel() % _BLOCK:
            raise ValueError(f"normals are drawn by multiples of {_BLOCK}, got {out.numel()}")
        return out.normal_(0.0, standard_deviation, generator=self._generator)

    def uniform_(self, out: Tensor) -> Tensor:
        """Fill `out` (float32 on CPU, any size) with uniforms in [0, 1)."""
        return out.uniform_(generator=self._generator)


class Draw:
    """Random numbers of one run, addressed by role, step and row.

    Args:
        seed: root seed of the run; runs that share it share every draw (common random numbers).
    """

    def __init__(self, seed: int) -> None:
        self.seed = int(seed)

    def generator(self, role: str, step: int = 0, row: int = 0) -> np.random.Generator:
        """Return a NumPy generator at the start of the stream of (role, step, row)."""
        return np.random.Generator(self._bits(role, step, counter=0, row=row))

    def uniform(self, role: str, step: int, shape: tuple[int, ...], first_row: int = 0) -> np.ndarray:
        """Return uniforms in [0, 1), float64, of `shape`; the first axis counts rows.

        Row `i` of the result is global row `first_row + i`: any split of the rows among processes or
        micro-batches draws the same numbers, provided that the shape of a row is the same.
        """
        rows, width = shape[0], math.prod(shape[1:])
        counters_per_row = -(-width // _WORDS_PER_COUNTER)
        bits = self._bits(role, step, counter=first_row * counters_per_row)
        raw = bits.random_raw(rows * counters_per_row * _WORDS_PER_COUNTER)
        words = np.asarray(raw, dtype=np.uint64).reshape(rows, counters_per_row * _WORDS_PER_COUNTER)
        words = words[:, :width]
        return ((words >> np.uint64(11)) * 2.0**-53).reshape(shape)

    def stream(self, role: str, step: int) -> Stream:
        """Return the bulk random numbers of (role, step)."""
        return Stream(self.seed, role, step)

    def normal(self, role: str, step: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return standard normals, float32, of `shape`, from the stream of (role, step).

        More rows do not change the first ones.
        """
        import torch

        size = math.prod(shape)
        values = torch.empty(-(-size // _BLOCK) * _BLOCK)
        normals: np.ndarray = self.stream(role, step).normal_(values).numpy()
        return normals[:size].reshape(shape)

    def _bits(self, role: str, step: int, counter: int, row: int = 0) -> np.random.Philox:
        if step < 0 or counter < 0 or row < 0:
            raise ValueError(f"step, row and counter must not be negative: {step}, {row}, {counter}")
        key = stable_hash("draw", self.seed, role, bits=128)
        words = [key & (2**64 - 1), key >> 64]
        return np.random.Philox(
            key=np.array(words, dtype=np.uint64), counter=np.array([counter, row, step, 0], dtype=np.uint64)
        )
