"""The header of a safetensors file: where each tensor lies, checked before a single weight is read.

Format (https://github.com/huggingface/safetensors#format): eight bytes, the header's length as little-endian
unsigned integer; the header, a JSON object of `name: {dtype, shape, data_offsets}` and optional `__metadata__`; then
the data, without gaps or overlaps, little-endian and row-major. The `safetensors` library reads whole slices of the
first axis as new arrays; ranges of elements straight into a given buffer are what a pass over all weights needs.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lab.errors import BadInput
from lab.trajectory.readers.source_file import SourceFile
from lab.trajectory.readers.stored import FileTensor, OtherTensor

LONGEST_HEADER = 100_000_000
"""Bytes; the library refuses longer ones too."""

FLOATS = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
BITS = {
    **{"F64": 64, "F32": 32, "BF16": 16, "F16": 16, "BOOL": 8, "C64": 64},
    **{f"{sign}{bits}": bits for sign in "IU" for bits in (8, 16, 32, 64)},
    **{"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8},
    **{"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
"""Bits of one element of every type that the format knows."""


def read_header(path: Path) -> dict[str, FileTensor | OtherTensor]:
    """Return where each tensor of a safetensors file lies.

    Raises:
        BadInput: the file cannot be read, is truncated, or its header is not a valid one; the message names the
            file, and the tensor where it is about one.
    """
    file = SourceFile(path)
    if file.size < 8:
        raise BadInput(f"{path}: {file.size} bytes, too short for a safetensors file; copy it again")
    start = file.read(0, min(file.size, 200))
    if start.startswith(b"version https://git-lfs"):
        raise BadInput(f"{path}: a Git LFS pointer, not the weights; run `git lfs pull` in its repository")
    length = int.from_bytes(start[:8], "little")
    if length > LONGEST_HEADER:
        raise BadInput(
            f"{path}: not a safetensors file, or damaged: its first bytes promise a header of {length} bytes"
        )
    if 8 + length > file.size:
        raise BadInput(
            f"{path}: truncated: a header of {length} bytes is promised, the file has {file.size}; copy it again"
        )
    entries = _parse(path, file.read(8, length))
    data = 8 + length
    tensors = {name: _tensor(file, name, entry, data) for name, entry in entries.items()}
    _check_layout(file, entries, data)
    return tensors


def _parse(path: Path, header: bytes) -> dict[str, dict[str, Any]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise BadInput(f"{path}: damaged header: {max(names, key=names.count)} appears twice")
        return found

    try:
        entries = json.loads(header.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: damaged header, not valid JSON ({error}); copy the file again") from None
    if not isinstance(entries, dict):
        raise BadInput(f"{path}: damaged header: expected an object of tensors; copy the file again")
    entries.pop("__metadata__", None)
    return entries


def _tensor(file: SourceFile, name: str, entry: Any, data: int) -> FileTensor | OtherTensor:
    where = f"{file.path}: damaged header: tensor {name}"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise BadInput(f"{where} lacks dtype, shape or data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise BadInput(f"{where} has the unknown type {dtype!r}; known: {', '.join(sorted(BITS))}")
    if not _naturals(shape):
        raise BadInput(f"{where} has the impossible shape {shape!r}")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise BadInput(f"{where} has the impossible data_offsets {offsets!r}")
    start, stop = offsets
    if math.prod(shape) * BITS[dtype] != 8 * (stop - start):
        raise BadInput(
            f"{where} of type {dtype} and shape {shape} needs {math.prod(shape) * BITS[dtype] // 8} bytes, "
            f"its offsets give {stop - start}"
        )
    if dtype not in FLOATS:
        return OtherTensor(file.path, dtype, tuple(shape))
    return FileTensor(file, data + start, FLOATS[dtype], tuple(shape))


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_layout(file: SourceFile, entries: dict[str, dict[str, Any]], data: int) -> None:
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        if data + stop > file.size:
            raise BadInput(
                f"{file.path}: truncated: tensor {name} ends at byte {data + stop}, the file at {file.size}; "
                "copy it again"
            )
        if start != end:
            raise BadInput(
                f"{file.path}: damaged header: tensor {name} "
                f"{'overlaps the one before it' if start < end else 'leaves a gap before it'}"
            )
        end = stop
    if data + end != file.size:
        raise BadInput(
            f"{file.path}: {file.size - data - end} bytes follow the last tensor; the file is damaged, copy it again"
        )
