"""Text of any characters in a store, and a run whose model says what netCDF cannot hold."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from lab.policies.scratch import load as load_scratch
from lab.policies.settings import ScratchSettings
from lab.trajectory.storable_text import storable
from lab.trajectory.store import open_store, write_store

TEXTS = ["a\x00b", "\x00", "x\ud800y", "\udfff\x00", "\x01\ud7ff\ue000\ufffe\U0010ffff\n", "", "7"]
STORED = ["a␀b", "␀", "x\ufffdy", "\ufffd␀", "\x01\ud7ff\ue000\ufffe\U0010ffff\n", "", "7"]


def test_only_what_cannot_be_stored_is_replaced() -> None:
    assert [storable(text) for text in TEXTS] == STORED


@pytest.mark.parametrize("dtype", [object, str])
def test_every_text_of_a_tree_is_stored(dtype: type, tmp_path: Path) -> None:
    """Variables, coordinates and attributes; read back with another library than the one that wrote."""
    texts = np.array(TEXTS, dtype=dtype).reshape(7, 1)
    numbers = np.arange(7.0)
    weights = xr.Dataset(
        {"text": (("row", "one"), texts), "number": ("row", numbers)},
        coords={"label": ("row", texts[:, 0]), "row": np.arange(7)},
        attrs={"note": TEXTS[0], "count": 3},
    )
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"title": TEXTS[2], "seed": 1}), "weights": weights})
    write_store(tree, tmp_path / "a.nc")
    # NumPy's own text drops NULs at the end before anything is stored.
    expected = [storable(str(text)) for text in texts[:, 0].tolist()]
    with h5py.File(tmp_path / "a.nc") as file:
        assert (file.attrs["title"], int(file.attrs["seed"][0])) == (STORED[2], 1)
        group = file["weights"]
        assert (group.attrs["note"], int(group.attrs["count"][0])) == (STORED[0], 3)
        for name in ("text", "label"):
            assert [value.decode() for value in group[name][()].ravel()] == expected
        np.testing.assert_array_equal(group["number"][()], numbers)
    assert tree["weights"]["text"].values[0, 0] == TEXTS[0]  # what was handed in is as it was


def test_a_run_whose_model_samples_nul_is_stored(
    lab: Callable[..., Any],
    small_run: tuple[str, ...],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Each letter's token decodes to NUL and the letter, and the model has random weights."""
    directory = tmp_path_factory.mktemp("model")
    policy = load_scratch(ScratchSettings("scratch", 1, 16, 2, 16, 64), seed=0)
    policy.save(directory)
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    for letter in string.ascii_lowercase:
        vocabulary[f"\x00{letter}"] = vocabulary.pop(letter)
    path.write_text(json.dumps(content))
    words = [*small_run, "policy=hf", f"policy.path={directory}", "task.prompt='{expression}='"]
    outcome = lab(*words)
    assert outcome.code == 0, outcome.err
    responses = open_store(tmp_path / "runs" / "train" / "a")["logprobs"]["response_text"].values
    assert any("␀" in text for text in responses.ravel()) and not any(
        "\x00" in text for text in responses.ravel()
    )
