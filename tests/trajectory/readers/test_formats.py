"""Every format gives back exactly what another library wrote, whatever range is asked for."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.errors import BadInput
from lab.trajectory.readers import open_series, torch_file
from lab.trajectory.readers.source_file import OPEN_FILES
from lab.trajectory.series import CheckpointSeries

FORMATS = ["safetensors", "sharded", "bin", "sharded bin", "pt"]
TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def rounded(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """What is left of float32 values after they were stored as `dtype`, float64."""
    return torch.from_numpy(values).to(dtype).double().numpy()


def all_of(series: CheckpointSeries, name: str) -> np.ndarray:
    size = series.tensors[name].size
    out = np.full((len(series.steps), size), np.nan, dtype=np.float32)
    series.read_into(name, 0, size, out)
    return out


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("layout", FORMATS)
def test_what_was_written_is_read(
    tmp_path: Path, arrays: Any, write: Any, layout: str, dtype: torch.dtype
) -> None:
    written = [arrays(seed) for seed in range(3)]
    paths = []
    for step, tensors in zip((10, 20, 5), written, strict=True):
        directory = write(tmp_path / f"m{step}", tensors, dtype, layout)
        paths.append(f"{directory / 'weights.pt' if layout == 'pt' else directory}@{step}")
    series = open_series(paths)
    assert series.steps.tolist() == [5, 10, 20]
    for name, info in series.tensors.items():
        expected = np.stack([rounded(written[index][name], dtype).reshape(-1) for index in (2, 0, 1)])
        assert info.shape == written[0][name].shape and info.size == expected.shape[1]
        assert info.dtype == str(dtype).removeprefix("torch.")
        assert info.nbytes == written[0][name].size * torch.tensor([], dtype=dtype).element_size()
        np.testing.assert_array_equal(series.read(name, 0, info.size), expected)
        np.testing.assert_array_equal(all_of(series, name), expected.astype(np.float32))


def test_every_bfloat16_and_float16_is_widened_exactly(tmp_path: Path, write: Any) -> None:
    bits = np.arange(65_536, dtype=np.uint16).repeat(3)  # longer than a chunk
    tensors = {
        "bf16": torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16),
        "fp16": torch.from_numpy(bits.view(np.int16).copy()).view(torch.float16),
    }
    series = open_series(write(tmp_path / "step_1", tensors))
    for name, tensor in tensors.items():
        expected = tensor.float().numpy()[None]
        np.testing.assert_array_equal(all_of(series, name), expected)
        np.testing.assert_array_equal(series.read(name, 0, len(bits)), tensor.double().numpy()[None])
    negative_zero = 0x8000
    assert np.signbit(series.read("bf16", 3 * negative_zero, 3 * negative_zero + 1)).all()


@pytest.fixture(scope="module")
def long_series(tmp_path_factory: pytest.TempPathFactory) -> tuple[CheckpointSeries, np.ndarray]:
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("long")
    values = np.random.default_rng(0).normal(size=(3, 150_000)).astype(np.float32)
    types = (torch.float32, torch.bfloat16, torch.float16)
    for step, (row, dtype) in enumerate(zip(values, types, strict=True)):
        directory = folder / f"checkpoint-{step}"
        directory.mkdir()
        save_file(
            {"before": torch.zeros(3), "w": torch.from_numpy(row).to(dtype)}, directory / "model.safetensors"
        )
    stored = np.stack([rounded(row, dtype) for row, dtype in zip(values, types, strict=True)])
    return open_series(folder), stored


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bounds=st.tuples(st.integers(0, 150_000), st.integers(0, 150_000)).map(sorted))
def test_a_range_is_that_part_of_the_whole(
    long_series: tuple[CheckpointSeries, np.ndarray], bounds: list[int]
) -> None:
    series, stored = long_series
    start, stop = bounds
    out = np.full((3, stop - start), np.nan, dtype=np.float32)
    series.read_into("w", start, stop, out)
    np.testing.assert_array_equal(out, stored[:, start:stop].astype(np.float32))
    np.testing.assert_array_equal(series.read("w", start, stop), stored[:, start:stop])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("scratch", [1, 100, 1000])
def test_blocks_of_the_scratch_array_join(
    tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, scratch: int
) -> None:
    monkeypatch.setattr("lab.trajectory.readers.stored.SCRATCH_BYTES", scratch)
    values = np.random.default_rng(0).normal(size=(3, 100)).astype(np.float32)
    for step, row in enumerate(values):
        write(tmp_path / f"checkpoint-{step}", {"before": np.zeros(3), "w": row}, dtype)
    series = open_series(tmp_path)
    out = np.empty((3, 90), dtype=np.float32)
    series.read_into("w", 7, 97, out)
    np.testing.assert_array_equal(out, rounded(values, dtype)[:, 7:97].astype(np.float32))
    np.testing.assert_array_equal(series.read("w", 7, 97), rounded(values, dtype)[:, 7:97])


def test_mixed_types_are_allowed_and_said(long_series: tuple[Any, np.ndarray]) -> None:
    series, _ = long_series
    assert series.tensors["w"].dtype == "bfloat16"
    assert series.element_bytes("w") == 4 + 2 + 2
    assert series.total_bytes == 150_000 * 8 + 3 * 3 * 4
    (note,) = series.notes
    assert "w" in note and "float32" in note and "bfloat16" in note and "rounding" in note


def test_reading_allocates_no_copy(long_series: tuple[CheckpointSeries, np.ndarray]) -> None:
    series, stored = long_series
    out = np.empty(stored.shape, dtype=np.float32)
    series.read_into("w", 0, stored.shape[1], out)
    tracemalloc.start()
    series.read_into("w", 0, stored.shape[1], out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < out.nbytes / 4


def test_threads_read_the_same(long_series: tuple[CheckpointSeries, np.ndarray]) -> None:
    series, stored = long_series

    def read(start: int) -> np.ndarray:
        out = np.empty((3, 1000), dtype=np.float32)
        series.read_into("w", start, start + 1000, out)
        return out

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(read, range(0, 150_000, 1000)))
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), stored.astype(np.float32))


@pytest.mark.parametrize(
    ("bounds", "out"),
    [
        ((0, 3), np.empty((3, 3))),
        ((0, 3), np.empty((3, 4), dtype=np.float32)),
        ((0, 3), np.empty((3, 3), dtype=np.float32, order="F")),
        ((2, 1), np.empty((3, 0), dtype=np.float32)),
        ((-1, 2), np.empty((3, 3), dtype=np.float32)),
        ((149_999, 150_001), np.empty((3, 2), dtype=np.float32)),
    ],
)
def test_what_does_not_fit_is_refused(
    long_series: tuple[Any, Any], bounds: tuple[int, int], out: np.ndarray
) -> None:
    with pytest.raises(ValueError, match="out must be|elements"):
        long_series[0].read_into("w", *bounds, out)


def test_an_unknown_tensor_is_refused_with_the_nearest(long_series: tuple[Any, Any]) -> None:
    with pytest.raises(BadInput, match="befor: no such tensor.*did you mean 'before'"):
        long_series[0].read("befor", 0, 1)


def test_mapped_files_are_let_go(
    tmp_path: Path, write: Any, arrays: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    load = torch_file._load
    monkeypatch.setattr(torch_file, "MAPPED_BYTES", 200)
    monkeypatch.setattr(torch_file, "_load", lambda file: loads.append(file.path) or load(file))
    written = arrays(1)
    series = open_series(write(tmp_path / "step_1", written, layout="bin"))
    for _ in range(5):
        for name, values in written.items():
            np.testing.assert_array_equal(all_of(series, name), values.reshape(1, -1))
    assert len(loads) > 5


def test_a_tensor_stored_transposed_is_read_in_row_major_order(tmp_path: Path, write: Any) -> None:
    values = torch.arange(12.0).reshape(3, 4)
    series = open_series(write(tmp_path / "step_1", {"w": values.t()}, layout="bin"))
    assert series.tensors["w"].shape == (4, 3)
    np.testing.assert_array_equal(series.read("w", 0, 12)[0], values.t().reshape(-1))


def test_more_files_than_may_be_open(tmp_path: Path, write: Any) -> None:
    count = OPEN_FILES + 5
    for step in range(count):
        write(tmp_path / f"checkpoint-{step}", {"w": np.full(3, step, dtype=np.float32)})
    series = open_series(tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(series.read("w", 1, 2)[:, 0], np.arange(count))


def test_a_file_that_changes_meanwhile_is_named(tmp_path: Path, write: Any, arrays: Any) -> None:
    directory = write(tmp_path / "step_1", arrays(0))
    series = open_series(directory)
    file = directory / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-40])
    with pytest.raises(BadInput, match="model.safetensors: (ends at byte|the file changed)"):
        for name, info in series.tensors.items():
            series.read(name, 0, info.size)


def test_what_transformers_writes(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    models = []
    for step, tied in ((1, True), (2, True), (3, False)):
        torch.manual_seed(step)
        config = LlamaConfig(
            vocab_size=32,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            tie_word_embeddings=tied,
        )
        model: Any = LlamaForCausalLM(config).to(torch.bfloat16)
        model.save_pretrained(tmp_path / f"m{step}", max_shard_size="1KB" if step == 2 else "5GB")
        models.append(model)
    assert (tmp_path / "m2" / "model.safetensors.index.json").exists()
    series: Any = open_series([f"{tmp_path}/m1@1", f"{tmp_path}/m2@2"])
    parameters = dict(models[0].named_parameters())  # tied ones once
    assert set(series.tensors) == set(parameters) and series.tied == {
        "lm_head.weight": "model.embed_tokens.weight"
    }
    assert sum(info.size for info in series.tensors.values()) == sum(p.numel() for p in parameters.values())
    for name, info in series.tensors.items():
        expected = [dict(model.named_parameters())[name].detach().float().reshape(-1) for model in models[:2]]
        np.testing.assert_array_equal(series.read(name, 0, info.size), np.stack(expected))
    untied: Any = open_series(f"{tmp_path}/m3@3")
    assert "lm_head.weight" in untied.tensors and not untied.tied


def test_names_are_in_the_order_of_layers(tmp_path: Path, arrays: Any, write: Any) -> None:
    series = open_series(write(tmp_path / "step_1", arrays(0)))
    layers = [name for name in series.tensors if "layers" in name]
    assert layers == [f"model.layers.{layer}.mlp.weight" for layer in (0, 2, 10)]
