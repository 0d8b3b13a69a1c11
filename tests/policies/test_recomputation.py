"""Activations computed again in the backward pass: the plain gradient, dropout off, and memory that is saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from lab.errors import BadInput
from lab.policies.decoder_layers import decoder_layers
from lab.policies.policy import Policy
from lab.policies.recomputation import recomputing
from lab.policies.tokenizer import build_tokenizer

TOKENIZER = build_tokenizer(40)
SIZE = len(TOKENIZER)
IDS = torch.tensor([[5, 9, 3, 30, 7], [6, 3, 8, 12, 20]])
SHARED: dict[str, Any] = {
    "vocab_size": SIZE,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
}
KINDS: dict[str, PreTrainedConfig] = {
    "opt": OPTConfig(**SHARED, ffn_dim=24, word_embed_proj_dim=16, dropout=0.5, attention_dropout=0.5),
    "falcon": FalconConfig(**SHARED, multi_query=True, hidden_dropout=0.5, attention_dropout=0.5),
    "bloom": BloomConfig(
        vocab_size=SIZE, hidden_size=16, n_layer=3, n_head=2, hidden_dropout=0.5, attention_dropout=0.5
    ),
    "gpt2": GPT2Config(vocab_size=SIZE, n_positions=40, n_embd=16, n_layer=3, n_head=2, resid_pdrop=0.5),
    "llama": LlamaConfig(**SHARED, intermediate_size=24, attention_dropout=0.5),
}


def build(kind: str) -> PreTrainedModel:
    """A random model in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(KINDS[kind])
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.copy_(0.25 * torch.randn(parameter.shape))
    return model.eval()


def loss_and_gradients(model: PreTrainedModel) -> list[Tensor]:
    """A loss that every logit enters, and its gradient with respect to every parameter."""
    logits = model(input_ids=IDS, use_cache=False).logits
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    loss = (torch.log_softmax(logits, -1) * weights).sum()
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_plain_one_where_layers_have_dropout(kind: str) -> None:
    model = build(kind)
    plain = loss_and_gradients(model)
    with recomputing(model):
        again = loss_and_gradients(model)
        assert not any(module.training for module in model.modules())
    assert len(plain) == len(again) > 10
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_keeps_only_what_it_is_given(kind: str) -> None:
    """Tensors saved for the backward pass, weights left out: a few a layer, not all that is inside."""

    def saved() -> int:
        sizes: dict[int, int] = {}
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                sizes[tensor.untyped_storage().data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden = model.base_model(input_ids=IDS, use_cache=False).last_hidden_state
        assert hidden.requires_grad
        return sum(sizes.values())

    model = build(kind)
    plain = saved()
    with recomputing(model):
        assert saved() < plain / 2


@pytest.mark.parametrize("kind", KINDS)
def test_each_layer_runs_twice_and_afterwards_once_again(kind: str) -> None:
    model, runs = build(kind), [0]
    layers = decoder_layers(model)
    assert layers is not None and len(layers) == 3
    inner = next(
        module for module in layers[0].modules() if isinstance(module, torch.nn.LayerNorm | torch.nn.Linear)
    )
    inner.register_forward_hook(lambda *_: runs.__setitem__(0, runs[0] + 1))
    with recomputing(model):
        loss_and_gradients(model)
    assert runs == [2]
    loss_and_gradients(model)
    assert runs == [3]
    assert not any("forward" in layer.__dict__ for layer in layers)


def test_a_forward_of_the_layers_own_is_put_back_even_after_an_error() -> None:
    model = build("gpt2")
    layers = decoder_layers(model)
    assert layers is not None
    layers[1].forward = own = layers[1].forward
    with pytest.raises(ValueError), recomputing(model):
        raise ValueError
    assert layers[1].__dict__["forward"] is own and "forward" not in layers[0].__dict__


def test_a_model_that_cannot_do_it_is_refused_at_once() -> None:
    model = build("gpt2")
    model.config.num_hidden_layers = 7  # no list is so long
    with pytest.raises(
        BadInput, match=r"^policy\.gradient_checkpointing: GPT2LMHeadModel cannot do it; set it to"
    ):
        Policy(model, TOKENIZER, "test", gradient_checkpointing=True)
    Policy(model, TOKENIZER, "test")


def test_opt_trains_with_its_usual_dropout(
    lab: Callable[..., Any], small_run: Sequence[str], tmp_path: Path
) -> None:
    build("opt").save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    words = ["policy=hf", f"policy.path={tmp_path / 'model'}", "policy.gradient_checkpointing=true"]
    outcome = lab(*small_run, *words, "generation.max_new_tokens=4")
    assert outcome.code == 0, outcome.err
