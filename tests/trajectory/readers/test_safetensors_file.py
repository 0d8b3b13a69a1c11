"""The header of a safetensors file: whatever happened to it, a message or a layout that lies inside the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lab.errors import BadInput
from lab.trajectory.readers.safetensors_file import read_header
from lab.trajectory.readers.stored import FileTensor

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=np.int64)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    return path


def test_every_truncation_is_refused(file: Path) -> None:
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(BadInput, match="model.safetensors: .*(truncated|too short)"):
            read_header(file)


def test_every_flipped_bit_of_the_header_is_refused_or_harmless(file: Path) -> None:
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    refused = 0
    for position in range(header):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            file.write_bytes(damaged)
            try:
                tensors = read_header(file)
            except BadInput as refusal:
                assert "model.safetensors" in str(refusal)
                refused += 1
                continue
            for (
                tensor
            ) in tensors.values():  # a name, a type or the metadata changed: what is read lies in the file
                if isinstance(tensor, FileTensor):
                    assert header <= tensor.offset <= tensor.offset + tensor.nbytes <= len(content)
    assert refused > header * 8 / 2


def test_bytes_after_the_last_tensor_are_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0" * 3)
    with pytest.raises(BadInput, match="3 bytes follow the last tensor"):
        read_header(file)
