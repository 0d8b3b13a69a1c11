"""Every layout leads to the same series: numeric order of steps, step 0 explicit, what is left out said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lab.errors import BadInput
from lab.trajectory.readers import open_series
from lab.trajectory.series import RunSeries

STEPS = (100, 20, 3)


@pytest.fixture
def model(write: Any) -> Callable[[Path, int], Path]:
    """Write a model whose weights are all its step."""

    def make(directory: Path, step: int) -> Path:
        path: Path = write(directory, {"w": np.full(3, step, dtype=np.float32)})
        return path

    return make


def values(series: Any) -> list[float]:
    return [float(value) for value in series.read("w", 0, 1)[:, 0]]


def assert_in_order(series: Any, *before: int) -> None:
    """Each checkpoint's weights are its step, and the steps are `before` and STEPS in numeric order."""
    expected = [*before, *sorted(STEPS)]
    assert series.steps.tolist() == expected and values(series) == expected


FOLDERS = {
    "checkpoint-{}": "Transformers, TRL",
    "global_step_{}": "merged by hand",
    "global_step_{}/actor/huggingface": "verl",
    "global_step_{}/actor/hf_model": "verl, merged beside the shards",
    "global_step_{}/hf_model": "scripts around verl",
    "global_step_{}/actor": "verl, merged into actor",
    "global_steps_{}/actor/huggingface": "verl's documentation",
    "step_{}": "revisions downloaded by hand",
    "step-{}": "",
}


@pytest.mark.parametrize("pattern", FOLDERS)
@pytest.mark.parametrize("with_base", [False, True])
def test_a_folder_of_steps(tmp_path: Path, model: Any, pattern: str, with_base: bool) -> None:
    for step in STEPS:
        directory = model(tmp_path / "run" / pattern.format(step), step)
        (directory / "tokenizer.json").write_text("{}")
    (tmp_path / "run" / "latest_checkpointed_iteration.txt").write_text("100")
    base = model(tmp_path / "base", 0) if with_base else None
    series: Any = open_series(tmp_path / "run", base)
    assert_in_order(series, *([0] if with_base else []))
    assert series.directories[-1] == tmp_path / "run" / pattern.format(100)
    assert series.config["model_type"] == "llama" and not series.notes


def test_verl_beside_its_shards(tmp_path: Path, model: Any) -> None:
    for step in STEPS:
        actor = tmp_path / f"global_step_{step}" / "actor"
        model(actor / "hf_model", step)  # merged later; huggingface/ holds config and tokenizer only
        (actor / "huggingface").mkdir()
        (actor / "huggingface" / "config.json").write_text("{}")
        (actor / "model_world_size_2_rank_0.pt").write_bytes(b"")
        model(tmp_path / f"global_step_{step}" / "critic" / "huggingface", -1)
    assert_in_order(open_series(tmp_path))


def test_what_has_no_step_is_left_out_and_said(tmp_path: Path, model: Any) -> None:
    for step in STEPS:
        model(tmp_path / f"checkpoint-{step}", step)
    model(tmp_path / "checkpoint-final", 7)
    model(tmp_path, 8)
    (tmp_path / "checkpoint-99").write_text("a file")
    (tmp_path / "runs").mkdir()
    series: Any = open_series(tmp_path)
    assert_in_order(series)
    text = "\n".join(series.notes)
    assert "checkpoint-final: no step number" in text and "checkpoint-99: not a directory" in text
    assert f"{tmp_path}: the weights beside its checkpoint-N directories have no step" in text


def test_lists(tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {step: model(tmp_path / f"a@b, c={step}", step) for step in STEPS}
    assert_in_order(open_series([f"{path}@{step}" for step, path in paths.items()]))
    assert_in_order(open_series([(step, path) for step, path in paths.items()]))
    assert_in_order(open_series(paths))
    assert_in_order(open_series([{"step": step, "path": str(path)} for step, path in paths.items()]))
    monkeypatch.chdir(tmp_path)
    assert_in_order(open_series([f"{path.name}@{step}" for step, path in paths.items()]))
    assert open_series(f"{paths[20]}@20").steps.tolist() == [20]
    assert open_series([f"{paths[20]}/model.safetensors@20"]).steps.tolist() == [20]


def test_a_list_may_leave_out_steps_that_names_carry(tmp_path: Path, model: Any) -> None:
    listed = [
        str(model(tmp_path / name / f"global_step_{step}", step))
        for name, step in zip("abc", STEPS, strict=True)
    ]
    assert_in_order(open_series(listed))


LISTS: dict[str, Callable[[dict[int, str]], str]] = {
    "steps.txt": lambda paths: (
        "# step path\n\n" + "\n".join(f"{step} {path}  # it" for step, path in paths.items())
    ),
    "steps.csv": lambda paths: "\n".join(f"{step},{path}" for step, path in paths.items()),
    "steps.json": lambda paths: json.dumps({str(step): path for step, path in paths.items()}),
    "pairs.json": lambda paths: json.dumps(list(paths.items())),
    "steps.yaml": lambda paths: "\n".join(f"{step}: '{path}'" for step, path in paths.items()),
    "items.yml": lambda paths: "\n".join(
        f"- {{step: {step}, path: '{path}'}}" for step, path in paths.items()
    ),
    "at.yaml": lambda paths: "\n".join(f"- '{path}@{step}'" for step, path in paths.items()),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_file_that_lists_checkpoints(tmp_path: Path, model: Any, name: str) -> None:
    paths = {step: model(tmp_path / "lists" / f"my model {step}", step).name for step in STEPS}
    file = tmp_path / "lists" / name
    file.write_text(LISTS[name](paths))
    assert_in_order(open_series(file, model(tmp_path / "base", 0)), 0)


def test_one_model(tmp_path: Path, model: Any) -> None:
    assert open_series(model(tmp_path / "some-model", 0)).steps.tolist() == [0]
    assert open_series(model(tmp_path / "checkpoint-40", 40)).steps.tolist() == [40]
    model(tmp_path / "global_step_60" / "actor" / "huggingface", 60)
    series = open_series(tmp_path / "global_step_60", tmp_path / "some-model")
    assert series.steps.tolist() == [0, 60] and values(series) == [0, 60]


def test_relative_and_linked_paths(tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in STEPS:
        model(tmp_path / "elsewhere" / str(step), step)
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / f"checkpoint-{step}").symlink_to(tmp_path / "elsewhere" / str(step))
    monkeypatch.chdir(tmp_path)
    assert_in_order(open_series("run"))


def test_some_of_the_checkpoints(tmp_path: Path, model: Any) -> None:
    for step in STEPS:
        model(tmp_path / f"checkpoint-{step}", step)
    series: Any = open_series(tmp_path)
    chosen = series.select([0, 2])
    assert chosen.steps.tolist() == [3, 100] and values(chosen) == [3, 100]
    assert chosen.directories == (series.directories[0], series.directories[2])
    assert chosen.total_bytes == 2 * 3 * 4


def test_a_run_of_the_lab(lab: Any) -> None:
    small = (
        "steps=2",
        "recorder.every=1",
        "evaluation.problems=4",
        "objective.prompts=2",
        "objective.rollouts=2",
    )
    few = ("evaluation.rollouts=1", "probes.prompts=2", "probes.responses=2", "logger=none", "task=maximum")
    assert lab("train", "name=full", "recorder.checkpoint_every=1", *small, *few).code == 0
    sampled: Any = open_series("runs/train/full")
    assert sampled.directories[-1].name == "checkpoint-2" and sampled.steps.tolist() == [0, 1, 2]
    store = RunSeries("runs/train/full")
    assert set(store.tensors) == set(sampled.tensors)
    coordinates = store.tree["weights"]
    for name in store.tensors:
        flat = coordinates["flat_index"].values[coordinates["tensor"].values == name]
        whole = sampled.read(name, 0, sampled.tensors[name].size)
        np.testing.assert_array_equal(store.read(name, 0, len(flat)), whole[:, flat])
    for step in range(3):
        shutil.rmtree(f"runs/train/full/checkpoint-{step}")
    only_sampled = open_series("runs/train/full")
    assert isinstance(only_sampled, RunSeries)
    name, info = next(iter(only_sampled.tensors.items()))
    out = np.empty((3, info.size), dtype=np.float32)
    only_sampled.read_into(name, 0, info.size, out)
    np.testing.assert_array_equal(out, only_sampled.read(name, 0, info.size))
    with pytest.raises(BadInput, match="leave base out"):
        open_series("runs/train/full", base="runs/train/full")


class FakeHub:
    """A repository on the Hub whose revisions are directories of this machine."""

    def __init__(
        self, folder: Path, branches: list[str], tags: list[str] | None = None, size: int = 1
    ) -> None:
        self.folder, self.branches, self.tags, self.size = folder, branches, tags or [], size
        self.downloaded: list[str] = []

    def list_repo_refs(self, repo_id: str) -> Any:
        if repo_id != "owner/run":
            raise ConnectionError("404: no such repository\nwith a long trace")
        named = [[SimpleNamespace(name=name) for name in names] for names in (self.branches, self.tags)]
        return SimpleNamespace(branches=named[0], tags=named[1])

    def repo_info(self, repo_id: str, *, revision: str, files_metadata: bool) -> Any:
        assert files_metadata
        files = [("model.safetensors", self.size), ("config.json", 10**30), ("pytorch_model.bin", 10**30)]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in files])

    def snapshot_download(self, repo_id: str, *, revision: str, allow_patterns: list[str]) -> str:
        assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in allow_patterns)
        self.downloaded.append(revision)
        return str(self.folder / revision)


def test_revisions_of_the_hub(tmp_path: Path, model: Any) -> None:
    for step in STEPS:
        model(tmp_path / f"step_{step}", step)
    model(tmp_path / "main", 0)
    hub = FakeHub(tmp_path, ["main", "step_100", "step_3"], ["step_20", "step_3"])
    assert_in_order(open_series("hub:owner/run", hub=hub))
    assert_in_order(open_series("hub:owner/run", base="hub:owner/run", hub=hub), 0)
    hub.downloaded.clear()
    some = open_series("hub:owner/run@100,3", hub=hub)
    assert values(some) == [3, 100] and sorted(hub.downloaded) == ["step_100", "step_3"]


HUB_REFUSED = [
    ("hub:owner", {}, ["hub:OWNER/NAME"]),
    ("hub:other/run", {}, ["cannot be read from the Hub", "404: no such repository)"]),
    ("hub:owner/run", {"branches": ["main", "dev"]}, ["no revision is named step_N", "main, dev"]),
    ("hub:owner/run@4", {}, ["no step '4'", "there are 3, 20"]),
    ("hub:owner/run", {"branches": ["step_3", "step-3"]}, ["two revisions of step 3", "step_3 and step-3"]),
    ("hub:owner/run", {"size": 10**17}, ["hub:owner/run at 2 steps needs", "TiB of disk"]),
]


@pytest.mark.parametrize(("source", "changed", "words"), HUB_REFUSED)
def test_what_the_hub_lacks(tmp_path: Path, source: str, changed: dict[str, Any], words: list[str]) -> None:
    hub = FakeHub(tmp_path, **{"branches": ["step_3", "step_20"], **changed})
    with pytest.raises(BadInput) as refusal:
        open_series(source, hub=hub)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)
    assert hub.downloaded == []


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match="hub:owner/run: cannot be read from the Hub"):
        open_series("hub:owner/run")
