"""Atomic writing: either the old file or the new one, and nothing left behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from lab import files
from lab.errors import BadInput


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_atomic_replaces_text_and_bytes(tmp_path: Path) -> None:
    target = tmp_path / "a,b=c [1].txt"
    files.write_atomic(target, "über")
    assert target.read_bytes() == "über".encode()
    files.write_atomic(str(target), b"\x00\x01")
    assert target.read_bytes() == b"\x00\x01"
    assert names(tmp_path) == [target.name]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "data"
    files.write_atomic(target, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomic(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["data"]


def test_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_atomic(tmp_path / "file", "x")
        with files.atomic_directory(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_json_keeps_order_and_makes_undefined_null(tmp_path: Path) -> None:
    value = {
        "z": float("nan"),
        "a": [np.float32("inf"), np.float64(0.5), np.int64(3), np.bool_(True)],
        "array": np.array([[1.0, np.nan]]),
        "path": tmp_path,
        "pair": (1, None),
    }
    target = tmp_path / "x.json"
    files.write_json(target, value)
    back = files.read_json(target)
    assert list(back) == list(value)
    assert back == {
        "z": None,
        "a": [None, 0.5, 3, True],
        "array": [[1.0, None]],
        "path": str(tmp_path),
        "pair": [1, None],
    }
    assert back["a"][3] is True


def test_json_refuses_what_has_no_plain_form(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="object"):
        files.write_json(tmp_path / "x.json", {"key": object()})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_read_json_names_a_corrupt_file(tmp_path: Path, content: bytes) -> None:
    target = tmp_path / "summary.json"
    target.write_bytes(content)
    with pytest.raises(BadInput, match=r"summary\.json.*not valid JSON"):
        files.read_json(target)


def test_read_json_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.json: no such file"):
        files.read_json(tmp_path / "none.json")


def test_directory_appears_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    with files.atomic_directory(target) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "x").write_text("1")
        assert not target.exists()
    assert (target / "deep" / "x").read_text() == "1"

    with pytest.raises(KeyboardInterrupt), files.atomic_directory(target) as folder:
        (folder / "y").write_text("half")
        raise KeyboardInterrupt
    assert names(target) == ["deep"]

    with files.atomic_directory(target) as folder:
        (folder / "z").write_text("2")
    assert names(target) == ["z"]
    assert names(tmp_path) == ["checkpoint"]


def test_remove_tree(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    files.remove_tree(tmp_path / "a")
    assert names(tmp_path) == []


def test_free_space_is_asked_of_the_disk_the_path_would_be_on(tmp_path: Path) -> None:
    target = tmp_path / "not" / "there" / "yet"
    files.require_free_space(target, 1, "a byte")
    with pytest.raises(BadInput) as refusal:
        files.require_free_space(target, 2**70, "this run")
    message = str(refusal.value)
    assert "this run needs" in message and str(tmp_path) in message and "runs_dir" in message
    assert not (tmp_path / "not").exists()
