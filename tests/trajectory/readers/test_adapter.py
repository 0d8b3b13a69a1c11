"""LoRA adapters: the merged weight against W + scale B A written out densely, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lab.errors import BadInput
from lab.trajectory.readers import adapter, open_series

RANK = 2
LAYER = "model.layers.0.q_proj"
OTHER = "model.layers.1.q_proj"
EMBEDDING = "model.embed_tokens"


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


BASE = {
    f"{EMBEDDING}.weight": random(1, 6, 4),
    f"{LAYER}.weight": random(2, 5, 4),
    f"{OTHER}.weight": random(3, 5, 4),
    "model.norm.weight": random(4, 4),
}
A, B = random(5, RANK, 4), random(6, 5, RANK)


def write_adapter(
    directory: Path, tensors: dict[str, np.ndarray] | None = None, binary: bool = False, **changed: Any
) -> Path:
    directory.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 3,
        "base_model_name_or_path": "someone/model",
        **changed,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    if tensors is None:
        tensors = {f"{LAYER}.lora_A.weight": A, f"{LAYER}.lora_B.weight": B}
    stored = {f"base_model.model.{name}": torch.from_numpy(values) for name, values in tensors.items()}
    if binary:
        torch.save(stored, directory / "adapter_model.bin")
    else:
        save_file(stored, directory / "adapter_model.safetensors")
    return directory


@pytest.fixture
def base(tmp_path: Path, write: Any) -> Path:
    directory: Path = write(tmp_path / "base", BASE)
    return directory


def merged(run: Path, base: Path | None, name: str) -> np.ndarray:
    series: Any = open_series(run, base)
    last: np.ndarray = series.read(name, 0, series.tensors[name].size)[-1]
    return last.reshape(series.tensors[name].shape)


@pytest.mark.parametrize("binary", [False, True])
def test_plain(tmp_path: Path, base: Path, binary: bool) -> None:
    write_adapter(tmp_path / "run" / "checkpoint-7", binary=binary)
    series: Any = open_series(tmp_path / "run", base)
    assert series.steps.tolist() == [0, 7] and series.merged == (False, True)
    assert series.directories == (base, tmp_path / "run" / "checkpoint-7")
    assert set(series.tensors) == set(BASE)
    expected = BASE[f"{LAYER}.weight"] + 3 / RANK * (B.astype(np.float64) @ A)
    np.testing.assert_allclose(merged(tmp_path / "run", base, f"{LAYER}.weight"), expected, rtol=1e-6)
    for name in (f"{OTHER}.weight", "model.norm.weight"):
        np.testing.assert_array_equal(merged(tmp_path / "run", base, name), BASE[name])


@pytest.mark.parametrize(
    ("changed", "scale"),
    [
        ({"use_rslora": True}, 3 / math.sqrt(RANK)),
        ({"alpha_pattern": {"q_proj": 8}}, 8 / RANK),
        ({"alpha_pattern": {"layers.1.q_proj": 8}}, 3 / RANK),
        ({"alpha_pattern": {"proj": 8}}, 3 / RANK),  # a pattern is of whole parts of the name
        ({"alpha_pattern": {r"layers\.[0-3]\.q_proj": 8}, "use_rslora": True}, 8 / math.sqrt(RANK)),
        ({"init_lora_weights": "gaussian", "use_dora": False, "lora_bias": False}, 3 / RANK),
    ],
)
def test_scale(tmp_path: Path, base: Path, changed: dict[str, Any], scale: float) -> None:
    write_adapter(tmp_path / "run" / "checkpoint-7", **changed)
    expected = BASE[f"{LAYER}.weight"] + scale * (B.astype(np.float64) @ A)
    np.testing.assert_allclose(merged(tmp_path / "run", base, f"{LAYER}.weight"), expected, rtol=1e-6)


def test_rank_is_that_of_the_factors(tmp_path: Path, base: Path) -> None:
    a, b = random(7, 3, 4), random(8, 5, 3)  # rank_pattern gave this layer another rank than r
    write_adapter(tmp_path / "checkpoint-7", {f"{LAYER}.lora_A.weight": a, f"{LAYER}.lora_B.weight": b})
    expected = BASE[f"{LAYER}.weight"] + 3 / 3 * (b.astype(np.float64) @ a)
    np.testing.assert_allclose(
        merged(tmp_path / "checkpoint-7", base, f"{LAYER}.weight"), expected, rtol=1e-6
    )


def test_embedding_and_transposed_layers(tmp_path: Path, base: Path) -> None:
    a, b = random(7, RANK, 6), random(8, 4, RANK)
    embedding = {f"{EMBEDDING}.lora_embedding_A": a, f"{EMBEDDING}.lora_embedding_B": b}
    write_adapter(tmp_path / "e" / "checkpoint-7", embedding)
    expected = BASE[f"{EMBEDDING}.weight"] + 3 / RANK * (b.astype(np.float64) @ a).T
    np.testing.assert_allclose(merged(tmp_path / "e", base, f"{EMBEDDING}.weight"), expected, rtol=1e-6)
    # GPT-2's Conv1D keeps [in, out]
    a, b = random(9, RANK, 5), random(10, 4, RANK)
    tensors = {f"{LAYER}.lora_A.weight": a, f"{LAYER}.lora_B.weight": b}
    write_adapter(tmp_path / "c" / "checkpoint-7", tensors, fan_in_fan_out=True)
    expected = BASE[f"{LAYER}.weight"] + 3 / RANK * (b.astype(np.float64) @ a).T
    np.testing.assert_allclose(merged(tmp_path / "c", base, f"{LAYER}.weight"), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["embedding", "head"])
def test_an_adapted_embedding_or_head_is_saved_with_the_weight_that_it_is_added_to(
    tmp_path: Path, base: Path, kind: str
) -> None:
    a, b, kept = random(7, RANK, 6), random(8, 4, RANK), random(9, 6, 4)
    factors = {f"{EMBEDDING}.lora_embedding_A": a, f"{EMBEDDING}.lora_embedding_B": b}
    if kind == "head":
        factors = {f"{EMBEDDING}.lora_A.weight": b.T.copy(), f"{EMBEDDING}.lora_B.weight": a.T.copy()}
    # peft writes the untrained weight as well, under the name of the layer inside its own.
    write_adapter(tmp_path / "run" / "checkpoint-7", {f"{EMBEDDING}.base_layer.weight": kept, **factors})
    expected = kept + 3 / RANK * (b.astype(np.float64) @ a).T
    np.testing.assert_allclose(merged(tmp_path / "run", base, f"{EMBEDDING}.weight"), expected, rtol=1e-6)


def test_modules_trained_in_full_replace_the_base(tmp_path: Path, base: Path) -> None:
    norm = random(11, 4)
    write_adapter(tmp_path / "run" / "checkpoint-7", {"model.norm.weight": norm})
    np.testing.assert_array_equal(merged(tmp_path / "run", base, "model.norm.weight"), norm)


def test_the_base_that_the_adapter_names(tmp_path: Path, base: Path) -> None:
    write_adapter(tmp_path / "run" / "checkpoint-7", base_model_name_or_path=str(base))
    series = open_series(tmp_path / "run")
    assert series.steps.tolist() == [7]  # named for merging, not as a step of the run
    expected = BASE[f"{LAYER}.weight"] + 3 / RANK * (B.astype(np.float64) @ A)
    np.testing.assert_allclose(merged(tmp_path / "run", None, f"{LAYER}.weight"), expected, rtol=1e-6)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, np.ndarray]:
    """A layer of many blocks of rows."""
    folder = tmp_path_factory.mktemp("wide")
    weight, a, b = random(1, 300, 1000), random(2, RANK, 1000), random(3, 300, RANK)
    (folder / "base").mkdir()
    save_file({"w.weight": torch.from_numpy(weight)}, folder / "base" / "model.safetensors")
    write_adapter(folder / "checkpoint-1", {"w.lora_A.weight": a, "w.lora_B.weight": b})
    series = open_series(folder, folder / "base")
    assert adapter.BLOCK // 1000 > 1
    return series, (weight + 1.5 * (b.astype(np.float64) @ a)).reshape(-1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bounds=st.tuples(st.integers(0, 300_000), st.integers(0, 300_000)).map(sorted))
def test_an_element_is_the_same_in_every_range(wide: tuple[Any, np.ndarray], bounds: list[int]) -> None:
    series, expected = wide
    start, stop = bounds
    whole = series.read("w.weight", 0, 300_000)[1]
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(series.read("w.weight", start, stop)[1], whole[start:stop])
    out = np.empty((2, stop - start), dtype=np.float32)
    series.read_into("w.weight", start, stop, out)
    np.testing.assert_array_equal(out[1], whole[start:stop].astype(np.float32))


FACTORS = {f"{LAYER}.lora_A.weight": A, f"{LAYER}.lora_B.weight": B}
REFUSED: list[tuple[dict[str, np.ndarray] | None, dict[str, Any], list[str]]] = [
    (None, {"peft_type": "IA3"}, ["type IA3", "only LORA"]),
    (None, {"use_dora": True}, ["use_dora", "DoRA", "merge it with peft"]),
    (None, {"layer_replication": [[0, 1]]}, ["layer_replication", "repeats layers"]),
    (None, {"target_parameters": ["experts"]}, ["target_parameters", "experts"]),
    (None, {"trainable_token_indices": [3]}, ["trainable_token_indices"]),
    (None, {"lora_bias": True}, ["lora_bias"]),
    (None, {"init_lora_weights": "pissa_niter_4"}, ["init_lora_weights=pissa_niter_4", "changes the base"]),
    (None, {"lora_alpha": None}, ["adapter_config.json: lora_alpha", "None"]),
    (None, {"lora_alpha": True}, ["lora_alpha", "True"]),
    ({f"{LAYER}.lora_A.weight": A}, {}, [LAYER, "lora_A without its partner"]),
    (
        {**FACTORS, f"{LAYER}.lora_magnitude_vector": random(12, 5)},
        {},
        ["lora_magnitude_vector", "no plain LoRA factor"],
    ),
    (
        {f"{LAYER}.lora_A.weight": A, f"{LAYER}.lora_B.weight": random(1, 5, 3)},
        {},
        [LAYER, "(2, 4) and (5, 3)"],
    ),
    (
        {f"{LAYER}.lora_A.weight": A, f"{LAYER}.lora_B.weight": random(1, 7, 2)},
        {},
        ["(7, 4)", "(5, 4)", "right base"],
    ),
    ({"nowhere.lora_A.weight": A, "nowhere.lora_B.weight": B}, {}, ["nowhere.weight", "does not have"]),
    ({"nowhere.weight": A}, {}, ["nowhere.weight", "does not have"]),
    (
        {"model.norm.lora_A.weight": A, "model.norm.lora_B.weight": B},
        {},
        ["model.norm", "not those of a linear"],
    ),
]


@pytest.mark.parametrize(("tensors", "changed", "words"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused(
    tmp_path: Path,
    base: Path,
    tensors: dict[str, np.ndarray] | None,
    changed: dict[str, Any],
    words: list[str],
) -> None:
    write_adapter(tmp_path / "run" / "checkpoint-7", tensors, **changed)
    with pytest.raises(BadInput) as refusal:
        open_series(tmp_path / "run", base)
    for word in (*words, "checkpoint-7"):
        assert word in str(refusal.value)
