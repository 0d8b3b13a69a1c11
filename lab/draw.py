"""Counter-based randomness by role.

Every random number of a run is a pure function of (root seed, role, step, global row), so a run
draws the same numbers on any machine, with any micro-batching or number of processes, and after
any resume; nothing about randomness has to be saved in a checkpoint. The generator is Philox4x64
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), keyed by a hash of seed and role
and started at a counter made of step and row.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

_WORDS_PER_COUNTER = 4  # Philox4x64 yields four 64-bit words for each value of its counter.


def stable_hash(*parts: object, bits: int = 64) -> int:
    """Return an unsigned integer of `bits` bits that depends on `parts` alone, on any machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=bits // 8).digest(), "little")


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

    def _bits(self, role: str, step: int, counter: int, row: int = 0) -> np.random.Philox:
        if step < 0 or counter < 0 or row < 0:
            raise ValueError(f"step, row and counter must not be negative: {step}, {row}, {counter}")
        key = stable_hash("draw", self.seed, role, bits=128)
        words = [key & (2**64 - 1), key >> 64]
        return np.random.Philox(
            key=np.array(words, dtype=np.uint64), counter=np.array([counter, row, step, 0], dtype=np.uint64)
        )
