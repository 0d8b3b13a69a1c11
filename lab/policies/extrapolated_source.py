"""Two models decoded as one: next-token logits carried on along the line from the first through the second.

l = l_a + alpha (l_b - l_a) on raw logits, in float32, before temperature and nucleus (arXiv 2601.04537): alpha 0 is the
first model, 1 the second, above 1 lies what training on might, perhaps, have made of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lab.errors import BadInput
from lab.policies.logit_source import LogitSource


def extrapolate_logits(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    """Return first + alpha (second - first), float32; exactly `first` at alpha 0 and exactly `second` at 1.

    Args:
        first: float [row, vocabulary], raw logits.
        second: float [row, vocabulary].
        alpha: how far along the line; any finite number.

    Raises:
        BadInput: the vocabularies differ in size, alpha is not finite, or a logit is not, before or after.
    """
    require_alpha(alpha)
    require_same_size(first.shape[-1], second.shape[-1])
    first, second = first.float(), second.float()
    # lerp computes from whichever end is nearer, so both ends are exact.
    combined = torch.lerp(first, second, alpha)
    if not bool(torch.isfinite(combined).all()):
        _explain(first, second, alpha)
    return combined


def require_alpha(alpha: float) -> None:
    """Refuse an alpha that is not finite, or beyond what float32 holds.

    Raises:
        BadInput: it is NaN, infinite or too large.
    """
    if not abs(alpha) <= torch.finfo(torch.float32).max:
        raise BadInput(f"alpha: expected a finite number that float32 holds, got {alpha}")


def require_same_size(first: int, second: int) -> None:
    """Refuse models with different numbers of logits.

    Raises:
        BadInput: the message gives both.
    """
    if first != second:
        raise BadInput(
            f"incompatible vocabularies: one model has {first} logits, the other {second}; decoding two "
            "in output space takes checkpoints of one model"
        )


def require_same_vocabulary(first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase) -> None:
    """Refuse two tokenizers that give any id another text, or end a completion differently.

    Raises:
        BadInput: the message names a token that differs.
    """
    one, another = first.get_vocab(), second.get_vocab()
    if one != another:
        differing = [token for token in {**one, **another} if one.get(token) != another.get(token)]
        token = min(
            differing, key=lambda name: (min(one.get(name, math.inf), another.get(name, math.inf)), name)
        )
        raise BadInput(
            f"incompatible vocabularies: {len(one)} tokens and {len(another)}, of which {len(differing)} differ; "
            f"{token!r} is {_place(one, token)} in the first and {_place(another, token)} in the second"
        )
    if first.eos_token_id != second.eos_token_id:
        raise BadInput(
            f"incompatible vocabularies: a completion ends with {first.eos_token!r} in one and with "
            f"{second.eos_token!r} in the other"
        )


@dataclass
class PairState:
    """States of both sources; None for one whose logits are not needed."""

    first: Any
    second: Any


class Extrapolated:
    """`LogitSource` over two sources, each with a key-value cache of its own; see the module.

    At alpha 0 or 1 only the one that counts is run. Tokenizers are not known here: compare them with
    `require_same_vocabulary`.

    Args:
        first: logits l_a.
        second: logits l_b; both see the same tokens, on the same device.
        alpha: how far along the line.

    Raises:
        BadInput: alpha is not finite.
    """

    def __init__(self, first: LogitSource, second: LogitSource, alpha: float) -> None:
        require_alpha(alpha)
        self.first = first
        self.second = second
        self.alpha = float(alpha)
        # A source that stands for both must not be advanced twice: on a GPU its buffers hold one state at a time.
        self._needs_first = self.alpha != 1 and first is not second
        self._needs_second = self.alpha != 0 or first is second

    def start(self, ids: Tensor, mask: Tensor) -> tuple[PairState, Tensor]:
        """See `LogitSource.start`.

        Raises:
            BadInput: see `extrapolate_logits`.
        """
        one = self.first.start(ids, mask) if self._needs_first else (None, None)
        another = self.second.start(ids, mask) if self._needs_second else (None, None)
        return PairState(one[0], another[0]), self._combine(one[1], another[1])

    def advance(self, state: PairState, tokens: Tensor) -> tuple[PairState, Tensor]:
        """See `LogitSource.advance`.

        Raises:
            BadInput: see `extrapolate_logits`.
        """
        one = self.first.advance(state.first, tokens) if self._needs_first else (None, None)
        another = self.second.advance(state.second, tokens) if self._needs_second else (None, None)
        return PairState(one[0], another[0]), self._combine(one[1], another[1])

    def select(self, state: PairState, rows: Tensor) -> PairState:
        """See `LogitSource.select`."""
        return PairState(
            self.first.select(state.first, rows) if self._needs_first else None,
            self.second.select(state.second, rows) if self._needs_second else None,
        )

    def _combine(self, first: Tensor | None, second: Tensor | None) -> Tensor:
        if first is not None and second is not None:
            return extrapolate_logits(first, second, self.alpha)
        alone = second if first is None else first
        assert alone is not None
        return alone


def _explain(first: Tensor, second: Tensor, alpha: float) -> None:
    for which, logits in (("first", first), ("second", second)):
        if not bool(torch.isfinite(logits).all()):
            raise BadInput(f"the logits of the {which} model are not finite, so they cannot be extrapolated")
    reach = float((second - first).abs().max())
    raise BadInput(
        f"alpha: {alpha:g} times logits that differ by up to {reach:.3g} overflows float32; choose it nearer to 1"
    )


def _place(vocabulary: dict[str, int], token: str) -> str:
    return f"number {vocabulary[token]}" if token in vocabulary else "absent"
