"""Probes against plain forward passes of unpadded sequences and of models whose layers were swapped by hand."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.errors import BadInput
from lab.probing.probe_file import Probe, read_probes

PROBES = [Probe("12+34=", "64"), Probe("5+6=", "011"), Probe("90+9=", "99")]


def tiny(seed: int = 0, scale: float = 0.0, only: str = "") -> Any:
    """The built-in model, its parameters whose name holds `only` moved by noise."""
    import torch

    from lab.policies import build_policy_settings, load_policy

    policy = load_policy(build_policy_settings({"name": "tiny"}), 0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if only in name:
                parameter += scale * torch.randn(parameter.shape, generator=generator)
    return policy


def alone(policy: Any, probe: Probe) -> tuple[Any, int]:
    """Token ids [1, position] of one probe, unpadded, and the number of prompt tokens."""
    import torch

    prompt = policy.tokenizer(probe.prompt)["input_ids"]
    response = policy.tokenizer(probe.response, add_special_tokens=False)["input_ids"]
    return torch.tensor([[*prompt, *response, policy.eos_id]]), len(prompt)


# ---- outputs -------------------------------------------------------------------------------------------


def test_log_probs_and_activations_are_those_of_each_sequence_alone() -> None:
    import torch

    from lab.probing.outputs import outputs
    from lab.probing.sequences import encode

    policy = tiny()
    found = outputs(policy, encode(policy, PROBES), seed=0)
    log_probs, states = [], []
    for probe in PROBES:
        ids, prompt = alone(policy, probe)
        with torch.no_grad():
            run = policy.model(ids, output_hidden_states=True)
        all_log_probs = torch.log_softmax(run.logits[0].double(), dim=-1)
        log_probs += [float(all_log_probs[at - 1, ids[0, at]]) for at in range(prompt, ids.shape[1])]
        states.append(run.hidden_states[1][0, prompt - 1 : -1])
    assert found.log_probs == pytest.approx(log_probs, abs=1e-4)
    everything = torch.cat(states).numpy()  # Output of the first layer.
    assert everything.size < 4000  # So all of it is in the sample, in order.
    np.testing.assert_allclose(found.activations[0], everything.ravel(), atol=1e-4)


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import lab.probing.sequences as module
    from lab.probing.outputs import outputs

    policy = tiny()
    together = outputs(policy, module.encode(policy, PROBES), seed=0)
    monkeypatch.setattr(module, "_TOKENS_TOGETHER", 1)
    batches = module.encode(policy, PROBES)
    assert len(batches) == 3
    apart = outputs(policy, batches, seed=0)
    np.testing.assert_allclose(apart.log_probs, together.log_probs, atol=1e-5)
    np.testing.assert_allclose(apart.activations, together.activations, atol=1e-4)


# ---- source of each layer's change ---------------------------------------------------------------------


def source_of(first: Any, last: Any) -> Any:
    from lab.probing.layer_source import layer_source
    from lab.probing.sequences import encode

    return layer_source(lambda: first, lambda: last, encode(first, PROBES))


def test_one_layer_changed() -> None:
    found = source_of(tiny(), tiny(1, 0.02, only="layers.1."))
    assert found.total[0] == 0 and found.total[1] > 0
    assert found.from_weights[1] == pytest.approx(found.total[1], rel=1e-4)
    assert found.from_input[1] == pytest.approx(0, abs=1e-6 * found.total[1])
    assert found.probes == 3


def test_only_the_embedding_changed() -> None:
    found = source_of(tiny(), tiny(1, 0.02, only="embed_tokens"))
    for layer in range(len(found.total)):
        assert found.from_input[layer] == pytest.approx(found.total[layer], rel=1e-4)
        assert found.from_weights[layer] == 0
        assert found.second_order[layer] == pytest.approx(0, abs=1e-6 * found.total[layer])


def test_parts_are_those_of_models_with_one_layer_swapped() -> None:
    """f_b(x_a) is what model a gives after layer l once that layer is b's, and the other way round."""
    import torch

    first, last = tiny(), tiny(2, 0.03)
    found = source_of(first, last)
    layers = len(found.total)

    def after(model: Any, layer: int, probe: Probe) -> Any:
        ids, prompt = alone(first, probe)
        seen = []
        handle = model.model.layers[layer].register_forward_hook(
            lambda module, words, result: seen.append(result[0] if isinstance(result, tuple) else result)
        )
        with torch.no_grad():
            model(ids)
        handle.remove()
        return seen[0][0, prompt - 1 : -1].double()

    for layer in range(layers):
        a_with_b, b_with_a = copy.deepcopy(first.model), copy.deepcopy(last.model)
        a_with_b.model.layers[layer].load_state_dict(last.model.model.layers[layer].state_dict())
        b_with_a.model.layers[layer].load_state_dict(first.model.model.layers[layer].state_dict())
        sums = np.zeros(4)
        for probe in PROBES:
            start, end = after(first.model, layer, probe), after(last.model, layer, probe)
            weights = after(a_with_b, layer, probe) - start
            inputs = after(b_with_a, layer, probe) - start
            total = end - start
            sums += [
                float(part.square().sum()) for part in (total, inputs, weights, total - inputs - weights)
            ]
        mine = [found.total, found.from_input, found.from_weights, found.second_order]
        assert [each[layer] for each in mine] == pytest.approx(sums, rel=1e-3)


# ---- the file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no line"),
        ("\n\n", "holds no line"),
        ("{", "line 1: not valid JSON"),
        ('{"prompt": "a", "response": "b"}\n["a"]', "line 2: .* no prompt"),
        ('{"prompt": "a"}', "line 1: .* no response"),
        ('{"prompt": "", "response": "b"}', "no prompt"),
        ('{"prompt": "a", "response": 3}', "no response"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "probes.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=expected):
        read_probes(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere.jsonl cannot be read"):
        read_probes(tmp_path / "nowhere.jsonl")


def test_lines_in_order(tmp_path: Path) -> None:
    file = tmp_path / "probes.jsonl"
    lines = [json.dumps({"prompt": each.prompt, "response": each.response, "more": 1}) for each in PROBES]
    file.write_text("\n".join([lines[0], "", *lines[1:]]), encoding="utf-8")
    assert read_probes(file) == PROBES


# ---- the verb ------------------------------------------------------------------------------------------


def write_series(folder: Path, count: int = 4) -> None:
    for index in range(count):
        policy = tiny(7, 0.004 * index)  # A straight line in every weight.
        policy.save(folder / f"checkpoint-{index * 200}")


def write_probe_file(path: Path) -> Path:
    lines = [json.dumps({"prompt": each.prompt, "response": each.response}) for each in PROBES]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_verb_measures_probes(lab: Callable[..., Any], tmp_path: Path) -> None:
    import xarray as xr

    write_series(tmp_path / "series")
    probes = write_probe_file(tmp_path / "probes.jsonl")
    outcome = lab("measure", f"checkpoints={tmp_path / 'series'}", f"probes={probes}", "flips=19")
    assert outcome.code == 0, outcome.err
    held = tmp_path / "runs/measure/001"
    summary = json.loads((held / "summary.json").read_text(encoding="utf-8"))
    assert summary["weights"]["r2_median"] > 0.999
    tokens = sum(len(each.response) + 1 for each in PROBES)
    assert summary["logprobs"]["n"] == tokens
    layers = len(summary["activations"]["r2_median"])
    assert layers == len(summary["layer_source"]["from_input"]) >= 2
    assert all(share is not None for share in summary["layer_source"]["from_weights"])
    with xr.open_datatree(held / "measurement.nc", engine="h5netcdf") as tree:
        assert tree["logprobs"]["log_prob"].shape == (4, tokens)
        assert tree["logprobs"]["token_prompt"].values.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
        assert tree["activations"].sizes["layer"] == layers
    assert (held / "figures/layers.png").exists() and (held / "figures/r2_logprobs.png").exists()
    assert "logprobs" in (held / "report.html").read_text(encoding="utf-8")


def test_what_probes_need_is_asked_for_first(lab: Callable[..., Any], tmp_path: Path) -> None:
    write_series(tmp_path / "series", 3)
    probes = write_probe_file(tmp_path / "probes.jsonl")
    words = ("measure", f"checkpoints={tmp_path / 'series'}", f"probes={probes}")
    assert "chat_template: expected true or false" in lab(*words, "chat_template=3").err
    assert "nowhere cannot be read" in lab(*words[:2], "probes=nowhere").err
    for file in (tmp_path / "series/checkpoint-200").glob("token*"):
        file.unlink()
    outcome = lab(*words)
    assert outcome.code == 2 and "checkpoint-200 has no tokenizer" in outcome.err
    assert not (tmp_path / "runs").exists()
