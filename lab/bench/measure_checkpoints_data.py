"""A series of checkpoints of random tensors in the shape of a language model, written in bounded memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from lab.draw import Draw
from lab.files import remove_tree, require_free_space
from lab.linearity import round_to_bfloat16

STEPS_APART = 200
_POOL, _PIECE = 2**22, 2**20


def shapes(weights: int) -> dict[str, tuple[int, ...]]:
    """Return tensors of a decoder of about `weights` weights, as Llama names and shapes them."""
    wide = weights >= 500_000_000
    width, key_width, inner = (2048, 512, 8192) if wide else (576, 192, 1536)
    vocabulary = 49_152 if weights >= 80_000_000 else 8_192
    layer = {
        "input_layernorm": (width,),
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (key_width, width),
        "self_attn.v_proj": (key_width, width),
        "self_attn.o_proj": (width, width),
        "post_attention_layernorm": (width,),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    of_layer = sum(int(np.prod(shape)) for shape in layer.values())
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    for index in range(max(1, round((weights - vocabulary * width) / of_layer))):
        found |= {f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    return found | {"model.norm.weight": (width,)}


@contextmanager
def random_checkpoints(
    folder: Path, tensors: dict[str, tuple[int, ...]], checkpoints: int, dtype: str, seed: int
) -> Iterator[list[Path]]:
    """Write `folder/checkpoint-N/model.safetensors` of random walks with drift; removed when the block ends.

    Args:
        folder: made, and removed with all in it.
        tensors: shape by name.
        checkpoints: how many.
        dtype: `float32` or `bfloat16`.
        seed: of the values, which come from one pool of normal numbers read at random places.

    Yields:
        The files.

    Raises:
        BadInput: the disk has no room.
    """
    size = {"float32": 4, "bfloat16": 2}[dtype]
    total = sum(int(np.prod(shape)) for shape in tensors.values()) * size * checkpoints
    require_free_space(folder.parent, total + 2**30, "the benchmark")
    folder.mkdir()
    try:
        files = []
        for index in range(checkpoints):
            directory = folder / f"checkpoint-{index * STEPS_APART}"
            directory.mkdir()
            (directory / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
            files.append(directory / "model.safetensors")
        _write(files, tensors, dtype, size, seed)
        yield files
    finally:
        remove_tree(folder)


def _write(files: list[Path], tensors: dict[str, tuple[int, ...]], dtype: str, item: int, seed: int) -> None:
    header: dict[str, object] = {}
    start = 0
    for name, shape in tensors.items():
        stop = start + int(np.prod(shape)) * item
        stored = {"float32": "F32", "bfloat16": "BF16"}[dtype]
        header[name] = {"dtype": stored, "shape": shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = Draw(seed).generator("random_checkpoints")
    pool = generator.standard_normal(_POOL + _PIECE, dtype=np.float32)
    with ExitStack() as stack:
        streams = [stack.enter_context(file.open("wb")) for file in files]
        for stream in streams:
            stream.write(len(text).to_bytes(8, "little") + text)
        for shape in tensors.values():
            size = int(np.prod(shape))
            for left in range(0, size, _PIECE):
                count = min(_PIECE, size - left)

                def normal(scale: float, count: int = count) -> np.ndarray:
                    place = int(generator.integers(_POOL))
                    return pool[place : place + count] * np.float32(scale)

                values, drift = normal(0.02), normal(3e-5)
                for stream in streams:
                    narrow = dtype == "bfloat16"
                    stream.write(
                        (round_to_bfloat16(values).view(np.uint32) >> 16).astype(np.uint16).tobytes()
                        if narrow
                        else values.tobytes()
                    )
                    values = values + drift + normal(1e-4)
        for stream in streams:
            stream.flush()
            os.fsync(stream.fileno())
