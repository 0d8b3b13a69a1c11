"""What a model directory holds beside weights, and which of it an extrapolated model takes over."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lab.files import write_json

CONFIG = "config.json"
TOKENIZER = (
    "tokenizer*",
    "*.tiktoken",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "sentencepiece*.model",
    "chat_template*",
    "additional_chat_templates",
    "processor_config.json",
    "preprocessor_config.json",
)
"""Files of a tokenizer or processor, as Transformers names them."""
MODEL = ("generation_config.json", "*.py")
"""Files that belong to the architecture; code is copied, never run."""

BLOCKS, BLOCK_BYTES = 64, 4096


def copy_beside_weights(
    directories: Sequence[Path], config: Mapping[str, Any], dtype: str, target: Path
) -> list[str]:
    """Write configuration and tokenizer into `target` and return what was copied from where.

    Generation settings come from the last directory; the tokenizer from the last that has one, since many
    frameworks save it only once.

    Args:
        directories: of the checkpoints, the last one last.
        config: parsed config.json of the last checkpoint.
        dtype: stored type to be named in the configuration, or "same".
        target: directory to fill.
    """
    write_json(target / CONFIG, config if dtype == "same" else _with_dtype(config, dtype))
    copied = _copy(directories[-1], MODEL, target)
    for directory in reversed(directories):
        found = _copy(directory, TOKENIZER, target)
        if any(name.startswith(("tokenizer", "vocab", "spiece")) for name in found):
            return [*copied, *found]
    return copied


def describe_file(path: Path, whole: bool) -> dict[str, Any]:
    """Return name, size and a SHA-256 of a file of weights, which says what it was taken over.

    A hash of the header alone would be the same for all checkpoints of a model, so the quick one also takes in blocks
    spread evenly over the file.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if whole:
            digest = hashlib.file_digest(file, "sha256")
        else:
            length = int.from_bytes(file.read(8), "little") if path.suffix == ".safetensors" else 0
            file.seek(0)
            digest.update(file.read(8 + min(length, size)))
            for number in range(BLOCKS):
                file.seek(number * max(size - BLOCK_BYTES, 0) // (BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    taken = "whole file" if whole else f"header and {BLOCKS} blocks of {BLOCK_BYTES} bytes, evenly spread"
    return {"name": path.name, "bytes": size, "sha256": digest.hexdigest(), "sha256_of": taken}


def _copy(source: Path, patterns: Iterable[str], target: Path) -> list[str]:
    copied = []
    for item in sorted(source.iterdir()) if source.is_dir() else []:
        if not any(fnmatch(item.name, pattern) for pattern in patterns):
            continue
        if item.is_dir():
            shutil.copytree(item, target / item.name)
        else:
            shutil.copyfile(item, target / item.name)
        copied.append(item.name)
    return copied


def _with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return the configuration with the stored type replaced wherever it is named, and named at the top."""

    def replaced(node: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: dtype
            if key in ("dtype", "torch_dtype") and isinstance(value, str)
            else replaced(value)
            if isinstance(value, Mapping)
            else value
            for key, value in node.items()
        }

    result = replaced(config)
    return result if "torch_dtype" in result else {**result, "dtype": dtype}
