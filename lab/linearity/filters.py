"""Protocols: how values are stored, and which elements are kept, before R² is computed.

The protocol of arXiv 2601.04537 reads weights as bfloat16 and drops those that moved little. A filter that
keeps what moved most selects straight paths from noise (keep the 20 % of random walks with the largest
end-to-end change: median R² ~ .83), so every null has to pass through the same cast and filter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lab.linearity.checks import BoolArray, FloatArray
from lab.settings import Invalid, choose, suggest

KINDS = ("weights", "logprobs")


def round_to_bfloat16(values: ArrayLike) -> NDArray[np.float32]:
    """Round to the nearest bfloat16 (8 significant bits), ties to even; returned as float32, same shape.

    Values pass through float32 first, as they do when a float32 master weight is saved as bfloat16. Numbers
    beyond the largest bfloat16 become infinite; NaN stays NaN.
    """
    with np.errstate(over="ignore"):
        single = np.array(values, dtype=np.float32)
    undefined = np.isnan(single)
    bits = single.view(np.uint32)
    last_kept_bit = (bits >> np.uint32(16)) & np.uint32(1)
    last_kept_bit += np.uint32(0x7FFF)
    bits += last_kept_bit
    bits &= np.uint32(0xFFFF0000)
    if undefined.any():
        single[undefined] = np.nan
    return single


@dataclass(frozen=True)
class Protocol:
    """A storage cast and a filter, for each kind of value.

    Attributes:
        name: how configurations and summaries call it.
        weights_bfloat16: weights are rounded to bfloat16 before anything else.
        weights_range: keep a weight only if max - min over checkpoints exceeds this; None keeps all.
        weights_distinct: keep a weight only if it takes at least this many distinct values.
        logprobs_change: keep a token only if |last - first| exceeds this, in nats; None keeps all.
    """

    name: str
    weights_bfloat16: bool
    weights_range: float | None
    weights_distinct: int
    logprobs_change: float | None

    def cast(self, values: FloatArray, kind: str) -> FloatArray:
        """Return `values` as the protocol stores them, float64 (bfloat16 values are exact in it)."""
        check_kind(kind)
        if kind == "weights" and self.weights_bfloat16:
            return round_to_bfloat16(values).astype(np.float64)
        return values

    def keep(self, values: FloatArray, kind: str) -> BoolArray:
        """Return which elements are kept, shape [element], given cast values [checkpoint, element].

        A protocol without a filter keeps every element, those of zero variance too.
        """
        check_kind(kind)
        if kind == "logprobs":
            if self.logprobs_change is None:
                return np.ones(values.shape[1], dtype=bool)
            change: FloatArray = np.abs(values[-1] - values[0])
            return change > self.logprobs_change
        if self.weights_range is None:
            kept = np.ones(values.shape[1], dtype=bool)
        else:
            kept = values.max(axis=0) - values.min(axis=0) > self.weights_range
        kept[kept] = has_distinct(values[:, kept], self.weights_distinct)
        return kept

    def casts(self, kind: str) -> bool:
        """Whether `cast` changes anything for this kind."""
        return check_kind(kind) == "weights" and self.weights_bfloat16

    def keeps_all(self, kind: str) -> bool:
        """Whether `keep` keeps every element of this kind."""
        if check_kind(kind) == "logprobs":
            return self.logprobs_change is None
        return self.weights_range is None and self.weights_distinct <= 1


def has_distinct(values: FloatArray, minimum: int) -> BoolArray:
    """Whether each element takes at least `minimum` distinct values over checkpoints, shape [element]."""
    columns = np.arange(values.shape[1])
    new = np.ones(values.shape, dtype=bool)  # Differs from every value found so far.
    for _ in range(minimum - 1):
        found = values[new.argmax(axis=0), columns]
        new &= values != found
    some: BoolArray = np.any(new, axis=0)
    return some


UNFILTERED = Protocol("unfiltered", False, None, 1, None)
PAPER = Protocol("paper", True, 1e-4, 4, 0.2)
PROTOCOLS = {protocol.name: protocol for protocol in (UNFILTERED, PAPER)}


def get_protocol(name: str) -> Protocol:
    """Return the protocol called `name`.

    Raises:
        BadInput: there is none; the message lists what exists.
    """
    return choose(PROTOCOLS, name, "protocol")


def check_kind(kind: str) -> str:
    """Return `kind`, 'weights' or 'logprobs'; raise `Invalid` for anything else."""
    if kind not in KINDS:
        raise Invalid("kind", f"unknown {kind!r}; {suggest(kind, KINDS)}")
    return kind
