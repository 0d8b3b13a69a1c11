"""What a person may hand in by mistake: one message that names the file and the tensor, and what to do."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lab.errors import BadInput
from lab.trajectory.readers import open_series, require_checkpoints, require_finite

Build = Callable[["Kit"], Any]


class Kit:
    """A run of three good checkpoints, and ways to spoil it."""

    def __init__(self, folder: Path, write: Any, arrays: Any) -> None:
        self.folder, self.write, self.arrays = folder, write, arrays
        self.base: Path | None = None

    def run(self, layout: str = "safetensors", steps: tuple[int, ...] = (1, 2, 3)) -> Path:
        for step in steps:
            self.write(self.folder / f"checkpoint-{step}", self.arrays(step), layout=layout)
        return self.folder

    def file(self, name: str = "model.safetensors", step: int = 2) -> Path:
        return self.folder / f"checkpoint-{step}" / name

    def change(self, name: str, change: Callable[[bytes], bytes], step: int = 2) -> None:
        self.file(name, step).write_bytes(change(self.file(name, step).read_bytes()))

    def change_header(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Rewrite the header of step 2, keeping the data."""

        def rewrite(content: bytes) -> bytes:
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            changed = change(header)
            text = changed if isinstance(changed, bytes) else json.dumps(header).encode()
            return struct.pack("<Q", len(text)) + text + content[8 + length :]

        self.change("model.safetensors", rewrite)

    def change_index(self, change: Callable[[dict[str, Any]], Any], ending: str = "safetensors") -> None:
        name = "model.safetensors.index.json" if ending == "safetensors" else "pytorch_model.bin.index.json"
        content = json.loads(self.file(name).read_text())
        change(content)
        self.file(name).write_text(json.dumps(content))

    def replace(self, change: Callable[[dict[str, np.ndarray]], Any], **how: Any) -> Path:
        """Write step 2 again with other tensors."""
        self.run()
        tensors = self.arrays(2)
        change(tensors)
        self.write(self.folder / "checkpoint-2", tensors, **how)
        return self.folder

    def with_adapter(self, **config: Any) -> Path:
        directory = self.folder / "run" / "checkpoint-5"
        directory.mkdir(parents=True)
        (directory / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "lora_alpha": 1, **config})
        )
        return directory.parent


CASES: dict[str, tuple[Build, list[str]]] = {}


def case(*words: str) -> Callable[[Build], Build]:
    """Add a mistake to the table, with what its message must say."""

    def add(build: Build) -> Build:
        CASES[build.__name__] = (build, list(words))
        return build

    return add


# Paths


@case("nowhere: no such file or directory")
def no_such_path(kit: Kit) -> Any:
    return kit.folder / "nowhere"


@case("base: ", "nowhere: no such file or directory")
def no_such_base(kit: Kit) -> Any:
    kit.base = kit.folder / "nowhere"
    return kit.run()


@case("an empty directory", "expected model.safetensors", "checkpoint-N, global_step_N or step_N")
def empty_folder(kit: Kit) -> Any:
    (kit.folder / "empty").mkdir()
    return kit.folder / "empty"


@case("no weights; looked for model.safetensors", "found notes.txt")
def folder_of_other_things(kit: Kit) -> Any:
    (kit.folder / "notes.txt").write_text("x")
    return kit.folder


@case("a.log: a file, neither weights nor a list", ".safetensors", ".yaml")
def a_file_instead_of_a_folder(kit: Kit) -> Any:
    (kit.folder / "a.log").write_text("x")
    return kit.folder / "a.log"


@case("base: ", "a.log: a file, but none of weights")
def a_file_as_base(kit: Kit) -> Any:
    kit.base = kit.folder / "a.log"
    kit.base.write_text("x")
    return kit.run()


@case("base: ", "no weights", "base is one model's directory or file")
def a_folder_of_checkpoints_as_base(kit: Kit) -> Any:
    kit.base = kit.run()
    return kit.run()


@case("checkpoint-2: a loop of symbolic links")
def loop_of_links(kit: Kit) -> Any:
    kit.run(steps=(1,))
    (kit.folder / "checkpoint-2").symlink_to(kit.folder / "checkpoint-2")
    return kit.folder


@case("model.safetensors: a loop of symbolic links")
def loop_of_file_links(kit: Kit) -> Any:
    kit.run()
    kit.file().unlink()
    kit.file().symlink_to(kit.file())
    return kit.folder


@case("checkpoint-9: no such file or directory")
def link_to_nothing(kit: Kit) -> Any:
    kit.run()
    (kit.folder / "checkpoint-9").symlink_to(kit.folder / "gone")
    return kit.folder


@case("model.safetensors: no such file or directory")
def link_to_a_removed_blob(kit: Kit) -> Any:
    kit.run()
    kit.file().unlink()
    kit.file().symlink_to(kit.folder / "blobs" / "gone")
    return kit.folder


@case("model.safetensors")
def a_directory_where_a_file_is_expected(kit: Kit) -> Any:
    kit.run()
    kit.file().unlink()
    kit.file().mkdir()
    return kit.folder


# Steps


@case("two checkpoints of step 2", "checkpoint-02", "checkpoint-2")
def one_step_twice(kit: Kit) -> Any:
    kit.write(kit.folder / "checkpoint-02", kit.arrays(2))
    return kit.run()


@case("two checkpoints of step 7", "a and ", "b; leave one out")
def one_step_twice_in_a_list(kit: Kit) -> Any:
    return [f"{kit.write(kit.folder / name, kit.arrays(0))}@7" for name in "ab"]


@case("a: given as step 7 and as step 8")
def one_directory_twice(kit: Kit) -> Any:
    path = kit.write(kit.folder / "a", kit.arrays(0))
    return [f"{path}@7", f"{path}/../a@8"]


@case("base: ", "checkpoint-0 is step 0 already")
def base_beside_a_step_0(kit: Kit) -> Any:
    kit.base = kit.write(kit.folder / "base", kit.arrays(9))
    return kit.run(steps=(0, 1, 2))


@case("base: ", "some-model is step 0 already")
def base_beside_a_model_without_a_step(kit: Kit) -> Any:
    kit.base = kit.write(kit.folder / "base", kit.arrays(9))
    return kit.write(kit.folder / "some-model", kit.arrays(1))


@case("checkpoint-final: no step number in the name", "PATH@STEP")
def no_step_in_any_name(kit: Kit) -> Any:
    kit.write(kit.folder / "checkpoint-final", kit.arrays(1))
    return kit.folder


@case("holds checkpoint-N and global_step_N", "PATH@STEP")
def two_kinds_of_names(kit: Kit) -> Any:
    kit.write(kit.folder / "global_step_4", kit.arrays(1))
    return kit.run()


@case("measuring needs at least 3, got 2 (step 1, 2)", "base=DIRECTORY")
def too_few_checkpoints(kit: Kit) -> Any:
    require_checkpoints(open_series(kit.run(steps=(1, 2))), 3)


# Lists


@case("an empty list")
def empty_list(kit: Kit) -> Any:
    return []


@case("my-model: no step number in the name; write", "my-model@STEP")
def a_listed_path_without_a_step(kit: Kit) -> Any:
    return [str(kit.write(kit.folder / "my-model", kit.arrays(0)))]


@case("my-model: the step must be a whole number", "'last'")
def a_listed_step_that_is_no_number(kit: Kit) -> Any:
    return [f"{kit.write(kit.folder / 'my-model', kit.arrays(0))}@last"]


@case("the step must be a whole number", "-3")
def a_negative_step(kit: Kit) -> Any:
    return [(-3, kit.write(kit.folder / "my-model", kit.arrays(0)))]


@case("expected PATH@STEP", "got 5")
def a_number_in_a_list(kit: Kit) -> Any:
    return [5]


@case("nowhere: no such file or directory")
def a_listed_path_that_does_not_exist(kit: Kit) -> Any:
    return [f"{kit.folder}/nowhere@3"]


@case("steps.txt: line 2: expected a step and a path", "checkpoint-1")
def a_line_without_a_step(kit: Kit) -> Any:
    (kit.folder / "steps.txt").write_text("# steps\ncheckpoint-1\n")
    return kit.folder / "steps.txt"


@case("steps.txt: lists no checkpoints")
def a_list_of_comments(kit: Kit) -> Any:
    (kit.folder / "steps.txt").write_text("# nothing\n")
    return kit.folder / "steps.txt"


@case("steps.yaml: not valid YAML")
def a_broken_yaml_list(kit: Kit) -> Any:
    (kit.folder / "steps.yaml").write_text("1: [")
    return kit.folder / "steps.yaml"


@case("steps.json: expected steps with paths")
def a_json_list_of_another_kind(kit: Kit) -> Any:
    (kit.folder / "steps.json").write_text('"checkpoint-1"')
    return kit.folder / "steps.json"


@case("steps.txt: not text")
def a_binary_list(kit: Kit) -> Any:
    (kit.folder / "steps.txt").write_bytes(b"\xff\xfe\x00")
    return kit.folder / "steps.txt"


# Directories without weights


@case("checkpoint-2: a config but no weights", "save_pretrained")
def config_but_no_weights(kit: Kit) -> Any:
    kit.run()
    kit.file().unlink()
    return kit.folder


@case(
    "global_step_5: verl's training shards and a config but no weights",
    "python -m verl.model_merger merge --backend fsdp --local_dir",
    "global_step_5/actor --target_dir",
)
def verl_shards_only(kit: Kit) -> Any:
    actor = kit.folder / "global_step_5" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "huggingface" / "config.json").write_text("{}")
    (actor / "model_world_size_8_rank_0.pt").write_bytes(b"")
    return kit.folder


@case("verl's training shards", "--backend megatron")
def verl_megatron_shards_only(kit: Kit) -> Any:
    (kit.folder / "global_step_5" / "actor" / "dist_ckpt").mkdir(parents=True)
    return kit.folder


@case("huggingface: a config but no weights")
def verl_config_only(kit: Kit) -> Any:
    folder = kit.folder / "global_step_5" / "actor" / "huggingface"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return kit.folder


@case("DeepSpeed shards", "zero_to_fp32.py")
def deepspeed_shards_only(kit: Kit) -> Any:
    kit.run()
    kit.file().unlink()
    kit.file("zero_to_fp32.py").write_text("")
    return kit.folder


@case("shards such as model-00001-of-00002.safetensors without model.safetensors.index.json")
def shards_without_an_index(kit: Kit) -> Any:
    kit.run("sharded")
    kit.file("model.safetensors.index.json").unlink()
    return kit.folder


@case("checkpoint-2: an empty directory")
def an_empty_checkpoint(kit: Kit) -> Any:
    kit.run(steps=(1, 3))
    (kit.folder / "checkpoint-2").mkdir()
    return kit.folder


# Damaged safetensors


@case("checkpoint-2/model.safetensors: truncated: tensor", "copy it again")
def truncated_data(kit: Kit) -> Any:
    kit.run()
    kit.change("model.safetensors", lambda content: content[:-1])
    return kit.folder


@case("model.safetensors: truncated: a header of")
def truncated_header(kit: Kit) -> Any:
    kit.run()
    kit.change("model.safetensors", lambda content: content[:40])
    return kit.folder


@case("model.safetensors: 0 bytes, too short")
def empty_file(kit: Kit) -> Any:
    kit.run()
    kit.change("model.safetensors", lambda content: b"")
    return kit.folder


@case("model.safetensors: 1 bytes follow the last tensor")
def bytes_too_many(kit: Kit) -> Any:
    kit.run()
    kit.change("model.safetensors", lambda content: content + b"x")
    return kit.folder


@case("model.safetensors: not a safetensors file, or damaged")
def flipped_header_length(kit: Kit) -> Any:
    kit.run()
    kit.change("model.safetensors", lambda content: content[:6] + b"\x01" + content[7:])
    return kit.folder


@case("model.safetensors: damaged header, not valid JSON")
def flipped_header(kit: Kit) -> Any:
    kit.run()
    kit.change("model.safetensors", lambda content: content[:8] + b"\xff" + content[9:])
    return kit.folder


@case("model.safetensors: a Git LFS pointer", "git lfs pull")
def git_lfs_pointer(kit: Kit) -> Any:
    kit.run()
    kit.change(
        "model.safetensors", lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    return kit.folder


@case("tensor model.norm.weight has the unknown type 'F33'")
def flipped_type(kit: Kit) -> Any:
    kit.run()
    kit.change_header(lambda header: header["model.norm.weight"].update(dtype="F33"))
    return kit.folder


@case("tensor model.norm.weight", "needs 20 bytes, its offsets give 16")
def flipped_shape(kit: Kit) -> Any:
    kit.run()
    kit.change_header(lambda header: header["model.norm.weight"].update(shape=[5]))
    return kit.folder


@case("tensor model.norm.weight has the impossible shape [-4]")
def negative_shape(kit: Kit) -> Any:
    kit.run()
    kit.change_header(lambda header: header["model.norm.weight"].update(shape=[-4]))
    return kit.folder


@case("tensor model.norm.weight has the impossible data_offsets")
def backward_offsets(kit: Kit) -> Any:
    kit.run()
    kit.change_header(lambda header: header["model.norm.weight"]["data_offsets"].reverse())
    return kit.folder


@case("damaged header: tensor model.norm.weight overlaps the one before it")
def overlapping_tensors(kit: Kit) -> Any:
    kit.run()

    def overlap(header: dict[str, Any]) -> None:
        start, stop = header["model.norm.weight"]["data_offsets"]
        header["model.norm.weight"]["data_offsets"] = [start - 4, stop - 4]

    kit.change_header(overlap)
    return kit.folder


@case("truncated: tensor model.norm.weight ends at byte")
def offsets_beyond_the_file(kit: Kit) -> Any:
    kit.run()

    def beyond(header: dict[str, Any]) -> None:
        start, stop = header["model.norm.weight"]["data_offsets"]
        header["model.norm.weight"]["data_offsets"] = [start + 4000, stop + 4000]

    kit.change_header(beyond)
    return kit.folder


@case("tensor model.norm.weight lacks dtype, shape or data_offsets")
def header_without_offsets(kit: Kit) -> Any:
    kit.run()
    kit.change_header(lambda header: header["model.norm.weight"].pop("data_offsets"))
    return kit.folder


@case("damaged header: x appears twice")
def one_name_twice(kit: Kit) -> Any:
    kit.run()
    kit.change_header(lambda header: b'{"x": {}, "x": {}}')
    return kit.folder


@case("damaged header: expected an object")
def header_of_another_kind(kit: Kit) -> Any:
    kit.run()
    kit.change_header(lambda header: b"[1, 2]")
    return kit.folder


# Shards and indices


@case("model.safetensors.index.json: points to model-00002-of-00002.safetensors, which is not there")
def missing_shard(kit: Kit) -> Any:
    kit.run("sharded")
    kit.file("model-00002-of-00002.safetensors").unlink()
    return kit.folder


@case("model-00001-of-00002.safetensors: truncated")
def truncated_shard(kit: Kit) -> Any:
    kit.run("sharded")
    kit.change("model-00001-of-00002.safetensors", lambda content: content[:-8])
    return kit.folder


@case("index.json: lists extra.weight in model-00001-of-00002.safetensors, which does not hold it")
def index_lists_what_is_not_there(kit: Kit) -> Any:
    kit.run("sharded")
    kit.change_index(
        lambda index: index["weight_map"].update({"extra.weight": "model-00001-of-00002.safetensors"})
    )
    return kit.folder


@case("model-00002-of-00002.safetensors: holds model.norm.weight, which", "does not list")
def shard_holds_what_is_not_listed(kit: Kit) -> Any:
    kit.run("sharded")
    kit.change_index(lambda index: index["weight_map"].pop("model.norm.weight"))
    return kit.folder


@case("index.json: points to '../checkpoint-1/model.safetensors', outside its own directory")
def index_points_outside(kit: Kit) -> Any:
    kit.run("sharded")
    kit.change_index(lambda index: index["weight_map"].update({"x": "../checkpoint-1/model.safetensors"}))
    return kit.folder


@case("model.safetensors.index.json: no weight_map")
def index_without_a_map(kit: Kit) -> Any:
    kit.run("sharded")
    kit.change_index(lambda index: index.pop("weight_map"))
    return kit.folder


@case("model.safetensors.index.json: not valid JSON")
def index_that_is_no_json(kit: Kit) -> Any:
    kit.run("sharded")
    kit.change("model.safetensors.index.json", lambda content: content[:-10])
    return kit.folder


@case("pytorch_model.bin.index.json: points to", "which is not there")
def missing_binary_shard(kit: Kit) -> Any:
    kit.run("sharded bin")
    kit.file("pytorch_model-00001-of-00002.bin").unlink()
    return kit.folder


# PyTorch files


class Harmful:
    """Unpickling it would make a directory."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "unpickled"

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@case("pytorch_model.bin: holds Python objects beside tensors", "refused", "safetensors")
def pickle_with_code(kit: Kit) -> Any:
    kit.run("bin")
    torch.save({"w": Harmful(kit.folder)}, kit.file("pytorch_model.bin"))
    return kit.folder


@case("pytorch_model.bin: ", "safetensors")
def bare_pickle_with_code(kit: Kit) -> Any:
    kit.run("bin")
    kit.file("pytorch_model.bin").write_bytes(pickle.dumps({"w": Harmful(kit.folder)}))
    return kit.folder


@case("pytorch_model.bin: written in PyTorch's format from before 1.6, or damaged")
def old_format(kit: Kit) -> Any:
    kit.run("bin")
    torch.save({"w": torch.ones(2)}, kit.file("pytorch_model.bin"), _use_new_zipfile_serialization=False)
    return kit.folder


@case("pytorch_model.bin: ", "damaged")
def truncated_binary(kit: Kit) -> Any:
    kit.run("bin")
    kit.change("pytorch_model.bin", lambda content: content[: len(content) // 2])
    return kit.folder


@case("pytorch_model.bin: empty file")
def empty_binary(kit: Kit) -> Any:
    kit.run("bin")
    kit.change("pytorch_model.bin", lambda content: b"")
    return kit.folder


@case("pytorch_model.bin: no tensors by name")
def binary_without_tensors(kit: Kit) -> Any:
    kit.run("bin")
    torch.save([1, 2], kit.file("pytorch_model.bin"))
    return kit.folder


# Different models


@case("different tensors", "only in ", "checkpoint-2: extra.weight")
def one_tensor_more(kit: Kit) -> Any:
    return kit.replace(lambda tensors: tensors.update({"extra.weight": np.zeros(3, dtype=np.float32)}))


@case("different tensors", "checkpoint-1: model.norm.weight")
def one_tensor_less(kit: Kit) -> Any:
    return kit.replace(lambda tensors: tensors.pop("model.norm.weight"))


@case("model.norm.weight: shape [4] in ", "checkpoint-1 and [5] in ", "checkpoint-2")
def another_shape(kit: Kit) -> Any:
    return kit.replace(lambda tensors: tensors.update({"model.norm.weight": np.zeros(5, dtype=np.float32)}))


@case("the same names up to the prefix 'base_model.model.'")
def another_prefix(kit: Kit) -> Any:
    kit.run()
    renamed = {f"base_model.model.{name}": values for name, values in kit.arrays(2).items()}
    kit.write(kit.folder / "checkpoint-2", renamed)
    return kit.folder


@case("the same names up to the prefix 'model.'")
def a_prefix_less(kit: Kit) -> Any:
    kit.run()
    renamed = {name.removeprefix("model."): values for name, values in kit.arrays(2).items()}
    kit.write(kit.folder / "checkpoint-2", renamed)
    return kit.folder


@case("different architectures: config.json has model_type='llama' in ", "'qwen2' in ", "checkpoint-2")
def another_architecture(kit: Kit) -> Any:
    return kit.replace(lambda tensors: None, config={"model_type": "qwen2"})


@case("base", "different tensors", "only in ")
def another_base(kit: Kit) -> Any:
    kit.base = kit.write(kit.folder / "base", {"w": np.zeros(3, dtype=np.float32)})
    return kit.run()


# Types


@case("tensor model.norm.weight is stored as F8_E4M3", "dequantised")
def eight_bit_floats(kit: Kit) -> Any:
    kit.run()
    save_file({"model.norm.weight": torch.zeros(4).to(torch.float8_e4m3fn)}, kit.file())
    return kit.folder


@case("tensor layer.qweight is stored as I32", "dequantised")
def packed_integers(kit: Kit) -> Any:
    kit.run()
    save_file({"layer.qweight": torch.zeros(4, dtype=torch.int32)}, kit.file())
    return kit.folder


@case("tensor w is stored as complex64")
def complex_numbers(kit: Kit) -> Any:
    kit.run("bin")
    torch.save({"w": torch.zeros(4, dtype=torch.complex64)}, kit.file("pytorch_model.bin"))
    return kit.folder


@case("a quantised model (gptq)", "dequantised")
def quantised_by_config(kit: Kit) -> Any:
    return kit.replace(lambda tensors: None, config={"quantization_config": {"quant_method": "gptq"}})


@case("no floating-point tensors")
def nothing_but_buffers(kit: Kit) -> Any:
    kit.run()
    save_file({"position_ids": torch.arange(4)}, kit.file())
    return kit.folder


@case("config.json: not valid JSON")
def broken_config(kit: Kit) -> Any:
    kit.run()
    kit.file("config.json").write_text("{")
    return kit.folder


@case("config.json: expected a JSON object, got list")
def config_of_another_kind(kit: Kit) -> Any:
    kit.run()
    kit.file("config.json").write_text("[]")
    return kit.folder


# Values


@case("model.norm.weight: element 2 is nan at step 2 in ", "checkpoint-2/model.safetensors", "diverged")
def nan_weights(kit: Kit) -> Any:
    folder = kit.replace(lambda tensors: tensors["model.norm.weight"].__setitem__(2, np.nan))
    series = open_series(folder)
    require_finite(series, "model.norm.weight", 1, series.read("model.norm.weight", 1, 4))


@case("model.layers.2.mlp.weight: element 5 is -inf at step 2")
def infinite_weights(kit: Kit) -> Any:
    folder = kit.replace(lambda tensors: tensors["model.layers.2.mlp.weight"].__setitem__((1, 1), -np.inf))
    series = open_series(folder)
    for name, info in series.tensors.items():
        require_finite(series, name, 0, series.read(name, 0, info.size))


# Adapters


@case(
    "checkpoint-5: an adapter without its base model (someone/model is no directory here)", "base=DIRECTORY"
)
def adapter_without_base(kit: Kit) -> Any:
    return kit.with_adapter(base_model_name_or_path="someone/model")


@case("adapter_config.json but no adapter weights", "adapter_model.safetensors")
def adapter_without_weights(kit: Kit) -> Any:
    kit.base = kit.write(kit.folder / "base", kit.arrays(0))
    return kit.with_adapter()


@case("an adapter itself")
def adapter_on_an_adapter(kit: Kit) -> Any:
    run = kit.with_adapter(base_model_name_or_path=str(kit.folder / "run" / "checkpoint-5"))
    return run


@pytest.mark.parametrize("name", CASES)
def test_refused(tmp_path: Path, write: Any, arrays: Any, name: str) -> None:
    build, words = CASES[name]
    kit = Kit(tmp_path, write, arrays)
    with pytest.raises(BadInput) as refusal:
        open_series(build(kit), kit.base)
    message = str(refusal.value)
    for word in words:
        assert word in message, message
    assert "\n" not in message and not (tmp_path / "unpickled").exists()


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 50


@pytest.mark.parametrize("layout", ["safetensors", "bin", "folder"])
def test_permission_denied(
    tmp_path: Path, write: Any, arrays: Any, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """Denied by the system call: whoever may read everything would not be stopped by a file's mode."""
    kit = Kit(tmp_path, write, arrays)
    kit.run("bin" if layout == "bin" else "safetensors")
    forbidden = {"bin": "pytorch_model.bin", "safetensors": "model.safetensors", "folder": tmp_path.name}[
        layout
    ]
    for function in ("open", "listdir"):
        real = getattr(os, function)

        def denying(path: Any, *rest: Any, real: Any = real) -> Any:
            if Path(path).name == forbidden:
                raise PermissionError(13, "Permission denied")
            return real(path, *rest)

        monkeypatch.setattr(os, function, denying)
    with pytest.raises(BadInput, match=f"{forbidden}: permission denied"):
        open_series(tmp_path)


def test_a_finite_sum_that_overflows_is_no_reason_to_refuse(tmp_path: Path, write: Any) -> None:
    series = open_series(write(tmp_path / "step_1", {"w": np.full(4, 1e308)}))
    require_finite(series, "w", 0, series.read("w", 0, 4))


def test_buffers_and_empty_tensors_are_skipped_and_said(tmp_path: Path, write: Any, arrays: Any) -> None:
    extra = {
        "model.rotary_emb.inv_freq": np.ones(2, dtype=np.float32),
        "model.position_ids": np.arange(3),
        "h.0.attn.bias": np.ones((1, 1, 2, 2), dtype=np.float32),
        "h.0.mask": np.ones(3, dtype=bool),
        "nothing": np.empty((0, 4), dtype=np.float32),
    }
    series: Any = open_series(write(tmp_path / "step_1", {**arrays(0), **extra}))
    assert set(series.tensors) == set(arrays(0)) and set(series.skipped) == set(extra)
    assert series.skipped["nothing"] == "no elements" and "BOOL" in series.skipped["h.0.mask"]
