"""Output heads that share their weights with the embedding: counted once, whether stored once or twice.

A head is tied where every checkpoint lacks it or stores it byte for byte as the embedding. Equal at one step alone
does not do: an untied head may start as a copy and then be trained on its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lab.trajectory.readers.checkpoint import Checkpoint
from lab.trajectory.readers.stored import StoredTensor

EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
)
HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
"""Endings of their names in the common architectures."""

PIECE = 65_536
"""Elements compared at a time."""
LOOKS = 16
"""Pieces looked at first, spread evenly: untied heads differ there already."""


def find_ties(checkpoints: Sequence[Checkpoint]) -> tuple[dict[str, str], list[str]]:
    """Return the embedding's name by the name of a head tied to it, and notes.

    Args:
        checkpoints: of one series, in order.
    """
    embeddings = sorted({name for item in checkpoints for name in item.tensors if name.endswith(EMBEDDINGS)})
    heads = sorted(
        {name for item in checkpoints for name in item.tensors if name.endswith(HEADS)} - set(embeddings)
    )
    if len(embeddings) != 1 or len(heads) > 1:
        return {}, []
    (embedding,) = embeddings
    declared = [item.config.get("tie_word_embeddings") for item in checkpoints]
    if not heads:
        tied = any(value is True for value in declared)
        return ({"lm_head.weight": embedding} if tied else {}), []
    (head,) = heads
    states = [_compare(item, embedding, head) for item in checkpoints]
    if False not in states:
        return {head: embedding}, []
    note = f"{head} differs from {embedding}, though config.json ties them: both are counted"
    return {}, [note] if True in declared else []


def _compare(checkpoint: Checkpoint, embedding: str, head: str) -> bool | None:
    """Return whether a checkpoint's head equals its embedding, None where it has none."""
    if head not in checkpoint.tensors or embedding not in checkpoint.tensors:
        return None
    one, other = checkpoint.tensors[embedding], checkpoint.tensors[head]
    return one.shape == other.shape and one.dtype == other.dtype and _equal(one, other)


def _equal(one: StoredTensor, other: StoredTensor) -> bool:
    size = math.prod(one.shape)
    starts = list(range(0, size, PIECE))
    first = starts[:: max(1, len(starts) // LOOKS)]
    values = np.empty((2, min(PIECE, size)))
    for start in (*first, *starts):
        stop = min(size, start + PIECE)
        for row, tensor in zip(values, (one, other), strict=True):
            tensor.read_into(start, stop, row[: stop - start])
        bits = values[:, : stop - start].view(np.uint64)
        if not np.array_equal(bits[0], bits[1]):
            return False
    return True
