"""Settings of how an extrapolated model is written, without the libraries that writing needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from lab.errors import BadInput
from lab.settings import Invalid, require

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}


@dataclass(frozen=True)
class OutputSettings:
    """How the model is written."""

    dtype: Literal["same", "float32", "bfloat16", "float16"]
    """Stored type; `same` as in the checkpoints, the least precise where they differ (float64 as float32)."""
    shard_size: str | int
    """Largest file of weights, such as 5GB."""
    hash: Literal["quick", "whole"]
    """What the recorded SHA-256 of each source file is taken over: header and some blocks, or every byte."""
    workers: int
    """Slices handled at a time, each by a thread; the result does not depend on it."""

    def __post_init__(self) -> None:
        try:
            parse_size(self.shard_size, "shard_size")
        except BadInput as error:
            raise Invalid("shard_size", str(error).partition(": ")[2]) from None
        require(self.workers >= 1, "workers", f"must be at least 1, got {self.workers}")


def parse_size(text: str | int, key: str) -> int:
    """Return the bytes that `5GB`, `500MiB` or a plain number stand for.

    Raises:
        BadInput: it is no size, or not positive; the message names `key`.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmgt]?i?b?)\s*", str(text), re.IGNORECASE)
    unit = match[2].upper() if match else ""
    if match is None or unit not in _UNITS or float(match[1]) * _UNITS[unit] < 1:
        raise BadInput(f"{key}: expected a size such as 5GB or 500MiB, got {text!r}")
    return int(float(match[1]) * _UNITS[unit])
