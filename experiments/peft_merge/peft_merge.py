"""Read LoRA adapters that peft has saved, and compare every weight with what peft itself merges.

    python experiments/peft_merge/peft_merge.py

It needs a Python that has peft (0.21) and the lab. Small random models get adapters of each kind that the lab merges,
with random factors, at two steps; the lab reads base and adapters as one series, peft loads the same folders and merges
them. Adapters of the kinds that the lab refuses have to be refused. The numbers go to result.json beside this file;
exit code 1 where one is off.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab.errors import BadInput
from lab.provenance import provenance
from lab.trajectory.readers import open_series

TINY = 1e-30  # biases of a fresh GPT-2 are all zero
RESULT = Path(__file__).with_name("result.json")
STEPS = (10, 20)
TOLERANCE = {"float32": 1e-6, "bfloat16": 2.0**-7}
"""Of the difference, over the largest weight of the tensor: a few roundings of float32; of bfloat16, to which peft
rounds both the product and the sum (at most half a unit each, 2^-8), while the lab keeps float32."""


def llama(tied: bool = False) -> torch.nn.Module:
    """Return a small Llama with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=96, num_key_value_heads=2, tie_word_embeddings=tied, **sizes)
    return LlamaForCausalLM(config)


def gpt2() -> torch.nn.Module:
    """Return a small GPT-2, whose linear layers store the transpose."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=96, n_positions=32, n_embd=48, n_layer=2, n_head=4))


@dataclass(frozen=True)
class Case:
    """A kind of adapter.

    Attributes:
        name: of the kind.
        lora: arguments of peft's `LoraConfig`.
        model: makes the base.
        dtype: stored type of the base.
        refused: what the refusal has to name; empty for a kind that is merged.
    """

    name: str
    lora: dict[str, Any]
    model: Callable[[], torch.nn.Module] = llama
    dtype: str = "float32"
    refused: str = ""


ATTENTION = ["q_proj", "v_proj"]
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = [
    Case("attention", {"target_modules": ATTENTION}),
    Case("rank-stabilised", {"target_modules": ATTENTION, "use_rslora": True}),
    Case("every linear layer", {"target_modules": EVERY, "r": 3, "lora_alpha": 7}),
    Case(
        "ranks and alphas of single layers",
        {
            "target_modules": EVERY,
            "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 6},
            "alpha_pattern": {"q_proj": 5, r"layers\.0\..*_proj": 11},
        },
    ),
    Case(
        "ranks and alphas, rank-stabilised",
        {
            "target_modules": EVERY,
            "rank_pattern": {"k_proj": 6},
            "alpha_pattern": {"v_proj": 5},
            "use_rslora": True,
        },
    ),
    Case("one layer of two", {"target_modules": ATTENTION, "layers_to_transform": [1]}),
    Case("a head trained in full", {"target_modules": ATTENTION, "modules_to_save": ["lm_head"]}),
    Case("norms trained in full", {"target_modules": ATTENTION, "modules_to_save": ["input_layernorm"]}),
    Case("embedding", {"target_modules": [*ATTENTION, "embed_tokens"]}),
    Case("head", {"target_modules": [*ATTENTION, "lm_head"]}),
    Case("tied embeddings", {"target_modules": ATTENTION}, lambda: llama(tied=True)),
    Case(
        "tied embeddings, adapted", {"target_modules": [*ATTENTION, "embed_tokens"]}, lambda: llama(tied=True)
    ),
    Case("transposed layers", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}, gpt2),
    Case("transposed square layers", {"target_modules": ["attn.c_proj"], "fan_in_fan_out": True}, gpt2),
    Case("transposed layers, not declared", {"target_modules": ["c_attn", "attn.c_proj"]}, gpt2),
    Case("bfloat16", {"target_modules": EVERY}, dtype="bfloat16"),
    Case("DoRA", {"target_modules": ATTENTION, "use_dora": True}, refused="use_dora"),
    Case(
        "biases",
        {"target_modules": ["c_attn"], "lora_bias": True, "fan_in_fan_out": True},
        gpt2,
        refused="lora_bias",
    ),
    Case("PiSSA", {"target_modules": ATTENTION, "init_lora_weights": "pissa"}, refused="pissa"),
]


def make(case: Case, folder: Path) -> None:
    """Write the base and an adapter for each step."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    dtype = getattr(torch, case.dtype)
    case.model().to(dtype).save_pretrained(folder / "base")
    for step in STEPS:
        base = _load(folder / "base", dtype)
        peft = get_peft_model(
            base, LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **case.lora})
        )
        with torch.no_grad():
            for parameter in peft.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        peft.save_pretrained(folder / "adapters" / f"checkpoint-{step}")


def _load(path: Path, dtype: torch.dtype) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    return model


def compare(case: Case, folder: Path) -> dict[str, Any]:
    """Return the largest difference from what peft merges, and how many weights an adapter has moved.

    Raises:
        BadInput: the lab refuses the adapters.
    """
    from peft import PeftModel

    series = open_series(folder / "adapters", folder / "base")
    worst, moved, seen = 0.0, 0, 0
    start = _load(folder / "base", torch.float32).state_dict()
    for place, step in enumerate(series.steps):
        if step == 0:
            continue
        base = _load(folder / "base", getattr(torch, case.dtype))
        adapted = PeftModel.from_pretrained(base, folder / "adapters" / f"checkpoint-{step:g}")
        merged = adapted.merge_and_unload().state_dict()
        for name, info in series.tensors.items():
            ours = series.read(name, 0, info.size)[place]
            theirs = merged[name].double().flatten().numpy()
            worst = max(worst, float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), TINY)))
            moved += int(np.count_nonzero(theirs != start[name].double().flatten().numpy()))
            seen += info.size
    names = set(series.tensors) | set(series.tied) | set(series.skipped)
    return {
        "largest_relative_difference": worst,
        "tolerance": TOLERANCE[case.dtype],
        "weights_compared": seen,
        "weights_moved": moved,
        "tensors_missing": sorted(set(start) - names),
    }


def run(case: Case) -> dict[str, Any]:
    """Return what came of one kind, with `holds`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make(case, folder)
        try:
            found = compare(case, folder)
        except BadInput as error:
            message = str(error).replace(scratch, "FOLDER")
            return {"refused": message, "holds": bool(case.refused) and case.refused in message}
    holds = found["largest_relative_difference"] <= found["tolerance"] and found["weights_moved"] > 0
    return {**found, "holds": holds and not case.refused and not found["tensors_missing"]}


def main() -> int:
    """Run all kinds, store what came out, and return the exit code."""
    torch.set_num_threads(1)
    found = {}
    for case in CASES:
        found[case.name] = run(case)
        print(f"{case.name}: {found[case.name]}", flush=True)
    held = sum(each["holds"] for each in found.values())
    result = (
        f"{held} of {len(found)} kinds of adapters are read as peft merges them, or refused as they should be"
    )
    stored = {"result": result, "peft": version("peft"), "cases": found, **provenance()}
    RESULT.write_text(json.dumps(stored, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(result)
    return 0 if held == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
