"""Which architectures may be sampled from and trained: told by what they compute, not by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    RwkvConfig,
)

from lab.errors import BadInput
from lab.policies.huggingface import load_directory
from lab.policies.policy import Policy
from lab.policies.tokenizer import build_tokenizer
from lab.policies.trial import require_causal_and_cached

TOKENIZER = build_tokenizer(40)
SHARED: dict[str, Any] = {
    "vocab_size": len(TOKENIZER),
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "pad_token_id": TOKENIZER.pad_token_id,
    "bos_token_id": None,
    "eos_token_id": TOKENIZER.eos_token_id,
}
STATE = {"vocab_size": len(TOKENIZER), "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}
GPT2 = GPT2Config(vocab_size=len(TOKENIZER), n_positions=40, n_embd=16, n_layer=2, n_head=2)

NO_CACHE = "keeps no key-value cache that completions can share; not supported"
ENCODER = "is an encoder: earlier positions see later ones; a causal LM is needed"
REFUSED: dict[str, tuple[PreTrainedConfig, str]] = {
    "mamba": (MambaConfig(**STATE), f"MambaForCausalLM {NO_CACHE}"),
    "mamba2": (
        Mamba2Config(**STATE, num_heads=4, head_dim=8, n_groups=1, chunk_size=4),
        f"Mamba2ForCausalLM {NO_CACHE}",
    ),
    "rwkv": (
        RwkvConfig(
            vocab_size=len(TOKENIZER),
            hidden_size=16,
            attention_hidden_size=16,
            num_hidden_layers=2,
            context_length=40,
        ),
        f"RwkvForCausalLM {NO_CACHE}",
    ),
    "hybrid": (
        Lfm2Config(
            **SHARED,
            num_key_value_heads=1,
            layer_types=["conv", "full_attention"],
            block_auto_adjust_ff_dim=False,
        ),
        f"Lfm2ForCausalLM {NO_CACHE} (IndexError",
    ),
    "encoder": (BertConfig(**SHARED), f"BertLMHeadModel {ENCODER}"),
}
ACCEPTED: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SHARED),
    "gpt2": GPT2,
    "qwen2": Qwen2Config(**SHARED, num_key_value_heads=1),
    "sliding window": MistralConfig(**SHARED, num_key_value_heads=1, sliding_window=3),
    "decoder": BertConfig(**SHARED, is_decoder=True),
}


def build(config: PreTrainedConfig, large: bool = True) -> PreTrainedModel:
    """A random model; with the weights that it starts from, or with such that context decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        if large:
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim > 1:
                        parameter.copy_(0.25 * torch.randn(parameter.shape))
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("large", [False, True], ids=["fresh", "large"])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused_when_it_is_loaded(
    kind: str, large: bool, dtype: str, tmp_path: Path
) -> None:
    config, reason = REFUSED[kind]
    build(config, large).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(BadInput) as refusal:
        load_directory(str(tmp_path), dtype, chat_template=False)
    assert str(refusal.value).startswith(f"policy.path: {tmp_path}: {reason}")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("large", [False, True], ids=["fresh", "large"])
@pytest.mark.parametrize("kind", ACCEPTED)
def test_what_can_be_used_is_loaded(kind: str, large: bool, dtype: str, tmp_path: Path) -> None:
    build(ACCEPTED[kind], large).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    policy = load_directory(str(tmp_path), dtype, chat_template=False)
    assert policy.model.dtype == getattr(torch, dtype)


@pytest.mark.parametrize("verb", ["train", "evaluate"])
@pytest.mark.parametrize("kind", ["mamba", "encoder", "hybrid"])
def test_a_refusal_leaves_no_run_behind(
    kind: str,
    verb: str,
    lab: Callable[..., Any],
    assert_refused: Callable[[Any, Sequence[str]], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("model")
    build(REFUSED[kind][0]).save_pretrained(directory)
    TOKENIZER.save_pretrained(directory)
    assert_refused(lab(verb, "policy=hf", f"policy.path={directory}"), ["policy.path", REFUSED[kind][1]])


class Spoilt(GPT2LMHeadModel):
    """GPT-2 without one of its inputs, or with another fault."""

    fault = ""

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """Forget what the fault says."""
        if self.fault == "out of memory":
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        if self.fault == "internal":
            raise ZeroDivisionError("integer modulo by zero")
        inputs.pop(self.fault, None)
        return super().forward(*args, **inputs)


def spoilt(fault: str) -> Policy:
    """A policy on a model with a fault."""
    model = Spoilt(GPT2)
    model.load_state_dict(build(GPT2).state_dict())
    policy = Policy(model, TOKENIZER, "test")
    model.fault = fault
    return policy


@pytest.mark.parametrize("fault", ["attention_mask", "position_ids", "past_key_values"])
def test_an_input_that_is_not_used_is_noticed(fault: str) -> None:
    require_causal_and_cached(spoilt("nothing"))
    with pytest.raises(BadInput, match=rf"^policy\.path: test: Spoilt {NO_CACHE}"):
        require_causal_and_cached(spoilt(fault))


def test_a_model_that_cannot_be_run_is_refused_with_its_error() -> None:
    with pytest.raises(
        BadInput, match=r"^policy\.path: test: Spoilt fails on a few tokens \(ZeroDivisionError: int"
    ):
        require_causal_and_cached(spoilt("internal"))


def test_running_out_of_memory_is_no_fault_of_the_model() -> None:
    with pytest.raises(RuntimeError, match="allocate memory"):
        require_causal_and_cached(spoilt("out of memory"))


def test_weights_that_are_not_finite_are_refused() -> None:
    policy = spoilt("nothing")
    with torch.no_grad():
        policy.model.transformer.h[1].mlp.c_fc.weight[0, 0] = torch.nan
    with pytest.raises(BadInput, match="logits that are not finite"):
        require_causal_and_cached(policy)


def test_nothing_of_the_model_is_changed() -> None:
    policy = spoilt("nothing")
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    state = torch.random.get_rng_state()
    require_causal_and_cached(policy)
    assert all(torch.equal(value, before[name]) for name, value in policy.model.state_dict().items())
    assert all(parameter.grad is None for parameter in policy.model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state) and not policy.model.training
