"""The language model that ships with the lab (`lab train experiment=tiny_base` rebuilds it)."""

from __future__ import annotations

from pathlib import Path

from lab.policies.huggingface import load_directory
from lab.policies.policy import Policy
from lab.policies.settings import TinySettings

ASSETS = Path(__file__).parent / "assets" / "tiny"


def load(settings: TinySettings, seed: int) -> Policy:
    """Load the shipped checkpoint; `seed` is not used."""
    return load_directory(str(ASSETS), dtype="float32", chat_template=False)
