"""A process that may open fewer files than a series has."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lab.trajectory.readers import source_file
from lab.trajectory.readers.source_file import SourceFile
from lab.trajectory.readers.stored import FileTensor, plain_rows, read_rows

FILES, FREE = 100, 30


@pytest.fixture
def few_files() -> Iterator[None]:
    """Let this process open about `FREE` more files."""
    source_file._descriptor.cache_clear()  # what other tests have left open
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + FREE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def tensors(folder: Path, count: int) -> list[FileTensor]:
    """Files of eight numbers, those of file k from 10 k on."""
    paths = [folder / str(index) for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes((10 * index + np.arange(8, dtype=np.float32)).tobytes())
    return [FileTensor(SourceFile(path), 0, "float32", (8,)) for path in paths]


def test_files_that_cannot_all_be_open_are_read_one_by_one(few_files: None, tmp_path: Path) -> None:
    stored = tensors(tmp_path, FILES)
    assert plain_rows(stored) is None
    values = np.empty((FILES, 3), np.float32)
    read_rows(stored, 2, 5, values)
    assert np.array_equal(values, 10 * np.arange(FILES)[:, None] + [2, 3, 4])


def test_files_that_can_all_be_open_are_whatever_was_open_before(few_files: None, tmp_path: Path) -> None:
    stored = tensors(tmp_path, FILES)
    rows = plain_rows(stored[: FREE // 2])
    assert rows is not None
    assert [os.pread(number, 4, 0) for number in rows.descriptors] == [
        np.float32(10 * index).tobytes() for index in range(FREE // 2)
    ]
