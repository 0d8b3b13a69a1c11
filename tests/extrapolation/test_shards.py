"""Files of weights written slice by slice are read back by the safetensors library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from lab.errors import BadInput
from lab.extrapolation.output_settings import parse_size
from lab.extrapolation.shards import Entry, ShardWriter, plan_shards, weight_entry


def test_slices_in_any_order_make_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(5, 7)).astype(np.float32)
    half = rng.normal(size=(3, 3)).astype(np.float16)
    counter = np.array([2**40], dtype=np.int64)
    entries = [
        weight_entry("half", "float16", (3, 3)),
        weight_entry("wide", "float32", (5, 7)),
        Entry("counter", "I64", (1,), 8),
        Entry("empty", "F32", (0, 4), 0),
        weight_entry("number", "float32", ()),
    ]
    path = tmp_path / "model.safetensors"
    with ShardWriter(path, entries) as shard:
        flat = wide.reshape(-1)
        shard.write("wide", 4 * 20, flat[20:])
        shard.write("counter", 0, counter)
        shard.write("half", 0, half)
        shard.write("wide", 0, flat[:20])
        shard.write("empty", 0, np.empty(0, dtype=np.uint8))
        shard.write("number", 0, np.array([1.5], dtype=np.float32))
    found = load_file(path)
    np.testing.assert_array_equal(found["wide"], wide)
    np.testing.assert_array_equal(found["half"], half)
    np.testing.assert_array_equal(found["counter"], counter)
    assert found["empty"].shape == (0, 4) and found["number"].shape == () and found["number"] == 1.5
    with safe_open(path, framework="np") as opened:
        assert opened.metadata() == {"format": "pt"}  # without it Transformers refuses the file


def test_every_tensor_is_aligned_to_its_own_width(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    entries = [
        weight_entry("odd", "bfloat16", (3,)),
        weight_entry("wide", "float32", (2,)),
        Entry("l", "I64", (1,), 8),
    ]
    with ShardWriter(path, entries):
        pass
    import json

    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    for name, width in (("odd", 2), ("wide", 4), ("l", 8)):
        assert header[name]["data_offsets"][0] % width == 0


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        ShardWriter(path, [weight_entry("w", "float32", (1,))])
    assert path.read_bytes() == b"mine"


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(1, 60))
def test_plans_hold_everything_once_and_no_file_is_needlessly_large(sizes: list[int], limit: int) -> None:
    entries = [Entry(str(i), "I8", (size,), size) for i, size in enumerate(sizes)]
    plan = plan_shards(entries, limit)
    assert [entry for shard in plan.values() for entry in shard] == entries
    for shard in plan.values():
        assert len(shard) == 1 or sum(entry.nbytes for entry in shard) <= limit
    if len(plan) == 1:
        assert list(plan) == ["model.safetensors"]
    else:
        assert list(plan)[0] == f"model-00001-of-{len(plan):05d}.safetensors"


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("1.5 MiB", 1572864), (1000, 1000), ("2kb", 2000), ("3B", 3)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text, "shard_size") == size


@pytest.mark.parametrize("text", ["", "GB", "5 potatoes", "-1GB", "0", "0.5B", "1e9", "5ib"])
def test_impossible_sizes(text: str) -> None:
    with pytest.raises(BadInput, match="shard_size: expected a size"):
        parse_size(text, "shard_size")
