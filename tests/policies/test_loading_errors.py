"""Directories and chat templates with something wrong in them: named in one line, whatever a library raises."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lab.errors import BadInput
from lab.policies import huggingface
from lab.policies.error_text import in_words
from lab.policies.huggingface import load_directory
from lab.policies.scratch import load as load_scratch
from lab.policies.settings import ScratchSettings


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound model of two layers."""
    directory = tmp_path_factory.mktemp("saved")
    load_scratch(ScratchSettings("scratch", 2, 16, 2, 16, 40), seed=0).save(directory)
    return directory


@pytest.fixture
def copied(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(saved, tmp_path_factory.mktemp("spoilt") / "a model"))


def config(**changes: Any) -> Callable[[Path], None]:
    """Change the model's config."""
    return lambda directory: edit(directory / "config.json", lambda content: content.update(changes))


def tokenizer(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the tokenizer's own file."""
    return lambda directory: edit(directory / "tokenizer.json", change)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def remove_tokenizer(directory: Path) -> None:
    """Leave config and weights, as `model.save_pretrained` alone does."""
    for path in directory.glob("*token*"):
        path.unlink()


SPOILT: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "type": (config(hidden_size="sixteen"), ["its config", "Field 'hidden_size' expected int, got str"]),
    "heads": (
        config(num_attention_heads=3),
        ["its config", "not a multiple of the number of attention heads"],
    ),
    "no heads": (config(num_attention_heads=0), ["its config: ZeroDivisionError"]),
    "activation": (config(hidden_act="nosuch"), ["its model: KeyError: 'nosuch'"]),
    "architecture": (config(model_type="nosuch"), ["its config", "model type `nosuch`"]),
    "own code": (
        config(model_type="mine", auto_map={"AutoConfig": "a.C", "AutoModelForCausalLM": "b.M"}),
        ["its config", "contains custom code"],
    ),
    "quantised": (config(quantization_config={"quant_method": "gptq", "bits": 4}), ["its model", "GPTQ"]),
    "tokenizer model": (
        tokenizer(lambda content: content["model"].update(type="Nope")),
        ["its tokenizer", "ModelU"],
    ),
    "no tokenizer model": (
        tokenizer(lambda content: content.pop("model")),
        ["its tokenizer", "Model missing"],
    ),
    "no tokenizer": (remove_tokenizer, ["has no tokenizer files", "save_pretrained"]),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_directory_is_named_with_what_is_wrong(kind: str, copied: Path) -> None:
    spoil, parts = SPOILT[kind]
    spoil(copied)
    with pytest.raises(BadInput) as refusal:
        load_directory(str(copied), "float32", chat_template=False)
    message = str(refusal.value)
    assert message.startswith("policy.path: ") and str(copied) in message and "\n" not in message
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("verb", ["train", "evaluate"])
@pytest.mark.parametrize("kind", ["no heads", "no tokenizer", "quantised"])
def test_nothing_is_left_behind(
    kind: str,
    verb: str,
    copied: Path,
    lab: Callable[..., Any],
    assert_refused: Callable[[Any, Sequence[str]], None],
) -> None:
    spoil, parts = SPOILT[kind]
    spoil(copied)
    assert_refused(lab(verb, "policy=hf", f"policy.path={copied}"), parts)


def test_running_out_of_memory_is_no_fault_of_the_directory(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(huggingface.AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(RuntimeError, match="allocate memory"):
        load_directory(str(copied), "float32", chat_template=False)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("nosuch"), "KeyError: 'nosuch'"),
        (ValueError("first\nsecond"), "ValueError: first"),
        (ValueError("\n several of:\n\n  (1) this:\n that\nmore"), "ValueError: several of: (1) this: that"),
        (ImportError(""), "ImportError: (no message)"),
        (RuntimeError("x" * 1000), f"RuntimeError: {'x' * 300}..."),
    ],
)
def test_an_error_is_put_into_one_line(error: Exception, words: str) -> None:
    assert in_words(error) == words


# --- weights that are not asked for -------------------------------------------------------------------


def add_tensors(directory: Path, *names: str) -> None:
    """Put further tensors into the file."""
    path = directory / "model.safetensors"
    tensors = load_file(path) | {name: torch.ones(3) for name in names}
    save_file(tensors, path, metadata={"format": "pt"})


def test_weights_of_more_layers_than_the_config_asks_for_are_refused(copied: Path) -> None:
    config(num_hidden_layers=1)(copied)
    held = [name for name in load_file(copied / "model.safetensors") if ".layers.1." in name]
    with pytest.raises(BadInput) as refusal:
        load_directory(str(copied), "float32", chat_template=False)
    message = str(refusal.value)
    assert message.startswith(f"policy.path: {copied}: the weights hold 2 layers, the config asks for 1, so ")
    assert f"{len(held)} tensors ({min(held)}, ...)" in message and len(held) == 9


@pytest.mark.parametrize(
    "name",
    [
        "lm_head.weight",  # tied in the config
        "model.layers.1.self_attn.rotary_emb.inv_freq",
        "model.layers.7.self_attn.rotary_emb.inv_freq",
        "model.layers.0.self_attn.masked_bias",
        "model.rotary_emb.inv_freq",
        "value_head.0.weight",
    ],
)
def test_tensors_that_do_no_harm_are_passed_over(name: str, copied: Path) -> None:
    expected = load_directory(str(copied), "float32", chat_template=False).model.state_dict()
    add_tensors(copied, name)
    if name == "lm_head.weight":
        path = copied / "model.safetensors"
        tensors = load_file(path)
        save_file(
            tensors | {name: tensors["model.embed_tokens.weight"].clone()}, path, metadata={"format": "pt"}
        )
    actual = load_directory(str(copied), "float32", chat_template=False).model.state_dict()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


# --- chat templates -----------------------------------------------------------------------------------

TEMPLATES = {
    "syntax": ("{% for m in messages %}{{ m['content'] }", ["fails (TemplateSyntaxError"]),
    "raises": ("{{ raise_exception('no system message') }}", ["fails (TemplateError: no system message)"]),
    "filter": ("{{ messages[0]['content']|nosuch }}", ["fails (Template", "nosuch"]),
    "undefined": ("{{ messages[0]['content'] + nothing }}", ["fails (UndefinedError", "nothing"]),
    "python": ("{{ messages[0]['content'] + 3 }}", ["fails (TypeError"]),
    "nothing": ("{% if false %}{% endif %}", ["renders nothing"]),
}


@pytest.mark.parametrize("verb", ["train", "evaluate"])
@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_chat_template_that_fails_is_refused(
    kind: str,
    verb: str,
    copied: Path,
    lab: Callable[..., Any],
    assert_refused: Callable[[Any, Sequence[str]], None],
) -> None:
    template, parts = TEMPLATES[kind]
    (copied / "chat_template.jinja").write_text(template)
    outcome = lab(verb, "policy=hf", f"policy.path={copied}", "policy.chat_template=true")
    assert_refused(
        outcome, ["policy.chat_template: ", str(copied), "set it to false or mend the template", *parts]
    )
