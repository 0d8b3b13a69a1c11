"""Output-space extrapolation against full forward passes of both models, and what its formula implies exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lab.draw import Draw
from lab.errors import BadInput
from lab.policies.decoder import Decoder
from lab.policies.extrapolated_source import Extrapolated, extrapolate_logits, require_same_vocabulary
from lab.policies.logit_source import LogitSource, ModelSource
from lab.policies.policy import Policy
from lab.policies.rollout import Rollouts, rollout
from lab.policies.tokenizer import build_tokenizer

PROMPTS = ["1+2=", "max(12,34,56)=", "12+34=", "9="]
NEW_TOKENS = 10
ENGINE = ("tokens", "mask", "log_probs", "entropies", "finished")


def llama(size: int) -> PreTrainedModel:
    """Two layers, random weights."""
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=40,
    )
    return LlamaForCausalLM(config)


def gpt2(size: int) -> PreTrainedModel:
    """Another architecture, without packed decoding."""
    config = GPT2Config(vocab_size=size, n_positions=40, n_embd=32, n_layer=2, n_head=2)
    return GPT2LMHeadModel(config)


def make(build: Callable[[int], PreTrainedModel], seed: int) -> Policy:
    """A policy whose distributions are far from uniform and depend on the context."""
    tokenizer = build_tokenizer(40)
    policy = Policy(build(len(tokenizer)), tokenizer, f"test {seed}")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.fixture(scope="module", params=[llama, gpt2], ids=["llama", "gpt2"])
def pair(request: pytest.FixtureRequest) -> tuple[Policy, Policy]:
    """Two checkpoints."""
    return make(request.param, 1), make(request.param, 2)


def sample(
    source: LogitSource, policy: Policy, temperature: float = 1.0, eos_id: int | None = None
) -> Rollouts:
    """Three completions of each prompt."""
    prompts = policy.encode(PROMPTS)
    uniforms = torch.from_numpy(Draw(3).uniform("rollout", 0, (3 * len(PROMPTS), NEW_TOKENS)))
    return rollout(
        source,
        prompts.ids,
        prompts.mask,
        uniforms,
        temperature=temperature,
        eos_id=policy.eos_id if eos_id is None else eos_id,
        pad_id=policy.pad_id,
    )


def plain_logits(policy: Policy, sequence: list[int]) -> Tensor:
    """After every token, from a full forward pass without padding or cache, float64 [position, vocabulary]."""
    with torch.no_grad():
        return policy.model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0].double()


@pytest.mark.parametrize("alpha", [-0.5, 0.3, 1.7, 3.0])
def test_the_engine_samples_from_the_combined_logits(pair: tuple[Policy, Policy], alpha: float) -> None:
    """Every token, with its log-probability, is recomputed in float64 from scratch; rows leave on the way."""
    one, another = pair
    source = Extrapolated(one.logit_source(NEW_TOKENS), another.logit_source(NEW_TOKENS), alpha)
    eos = int(sample(source, another, eos_id=-1).tokens.flatten().mode().values)
    sampled = sample(source, another, temperature=0.8, eos_id=eos)
    uniforms = Draw(3).uniform("rollout", 0, (3 * len(PROMPTS), NEW_TOKENS))
    prompts = another.encode(PROMPTS)
    assert len(set(sampled.lengths.tolist())) > 2, "the case must have rows that leave at different times"
    for row, length in enumerate(sampled.lengths.tolist()):
        prompt = prompts.ids[row // 3][prompts.mask[row // 3] == 1].tolist()
        completion = sampled.tokens[row, :length].tolist()
        first, second = (plain_logits(policy, prompt + completion)[len(prompt) - 1 : -1] for policy in pair)
        log_probs = torch.log_softmax((first + alpha * (second - first)) / 0.8, -1)
        chosen = log_probs[torch.arange(length), completion]
        upper = log_probs.exp().cumsum(-1)[torch.arange(length), completion]
        uniform = torch.from_numpy(uniforms[row, :length])
        assert bool((uniform <= upper + 1e-4).all() and (uniform >= upper - chosen.exp() - 1e-4).all())
        torch.testing.assert_close(sampled.log_probs[row, :length].double(), chosen, rtol=0, atol=1e-3)
        assert (completion[-1] == eos) == bool(sampled.finished[row])


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_ends_are_the_models_themselves_to_the_bit(pair: tuple[Policy, Policy], alpha: float) -> None:
    alone = sample(pair[int(alpha)].logit_source(NEW_TOKENS), pair[1])
    source = Extrapolated(pair[0].logit_source(NEW_TOKENS), pair[1].logit_source(NEW_TOKENS), alpha)
    both = sample(source, pair[1])
    for name in ENGINE:
        assert torch.equal(getattr(alone, name), getattr(both, name))


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e30])
def test_the_formula_is_exact_at_both_ends(scale: float) -> None:
    first, second = scale * torch.randn(2, 5, 1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(extrapolate_logits(first, second, 0.0), first)
    assert torch.equal(extrapolate_logits(first, second, 1.0), second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("alpha", [-2.0, 0.25, 0.75, 1.5, 40.0])
def test_the_formula_is_computed_in_float32(dtype: torch.dtype, alpha: float) -> None:
    first, second = (10 * torch.randn(2, 4, 200, generator=torch.Generator().manual_seed(0))).to(dtype)
    combined = extrapolate_logits(first, second, alpha)
    exact = first.double() + alpha * (second.double() - first.double())
    assert combined.dtype == torch.float32
    bound = 4 * torch.finfo(torch.float32).eps * (abs(alpha) + 1) * 100
    assert float((combined.double() - exact).abs().max()) < bound


def test_from_a_flat_model_extrapolating_is_cooling(pair: tuple[Policy, Policy]) -> None:
    """l1 = 0 makes l = alpha l2: the second model at temperature 1 / alpha, here without any rounding."""

    class Flat:
        def start(self, ids: Tensor, mask: Tensor) -> tuple[None, Tensor]:
            return None, torch.zeros(len(ids), pair[1].model.config.vocab_size)

        def advance(self, state: None, tokens: Tensor) -> tuple[None, Tensor]:
            return self.start(tokens[:, None], tokens)

        def select(self, state: None, rows: Tensor) -> None:
            return None

    hot = sample(Extrapolated(Flat(), pair[1].logit_source(NEW_TOKENS), 2.0), pair[1])
    cold = sample(pair[1].logit_source(NEW_TOKENS), pair[1], temperature=0.5)
    for name in ENGINE:
        assert torch.equal(getattr(hot, name), getattr(cold, name))


@pytest.mark.parametrize("shared", [True, False])
def test_two_equal_models_give_that_model_at_any_alpha(shared: bool) -> None:
    one, another = make(llama, 1), make(llama, 1)
    first = one.logit_source(NEW_TOKENS)
    second = first if shared else another.logit_source(NEW_TOKENS)
    expected = sample(one.logit_source(NEW_TOKENS), one)
    assert torch.equal(sample(Extrapolated(first, second, 7.5), one).tokens, expected.tokens)


@pytest.mark.parametrize(("alpha", "passes"), [(1.5, (1, 1)), (1.0, (0, 1)), (0.0, (1, 0))])
def test_each_model_reads_each_token_once(alpha: float, passes: tuple[int, int]) -> None:
    policies = make(gpt2, 1), make(gpt2, 2)
    read = [0, 0]

    class Counting(ModelSource):
        def __init__(self, which: int) -> None:
            super().__init__(policies[which].model)
            self.which = which

        def _forward(self, state: Any, ids: Tensor, position_ids: Tensor) -> Tensor:
            read[self.which] += ids.numel()
            return super()._forward(state, ids, position_ids)

    sampled = sample(Extrapolated(Counting(0), Counting(1), alpha), policies[1], eos_id=-1)
    prompts = policies[1].encode(PROMPTS)
    once = prompts.ids.numel() + sampled.mask.sum() - len(sampled.tokens)  # the last token is not read
    assert read == [int(once) * count for count in passes]


# ---- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [math.nan, math.inf, -math.inf, 1e39])
def test_an_alpha_that_float32_does_not_hold_is_refused(pair: tuple[Policy, Policy], alpha: float) -> None:
    with pytest.raises(BadInput, match="alpha: expected a finite number"):
        Extrapolated(pair[0].logit_source(1), pair[1].logit_source(1), alpha)


def test_an_alpha_that_overflows_is_refused(pair: tuple[Policy, Policy]) -> None:
    source = Extrapolated(pair[0].logit_source(NEW_TOKENS), pair[1].logit_source(NEW_TOKENS), 3e38)
    with pytest.raises(BadInput, match=r"alpha: 3e\+38 times logits that differ by up to .* overflows"):
        sample(source, pair[1])


@pytest.mark.parametrize(("which", "word"), [(0, "first"), (1, "second")])
def test_a_model_with_broken_weights_is_named(which: int, word: str) -> None:
    logits = [torch.zeros(2, 3), torch.ones(2, 3)]
    logits[which][1, 1] = math.nan
    with pytest.raises(BadInput, match=f"logits of the {word} model are not finite"):
        extrapolate_logits(logits[0], logits[1], 1.5)


def test_vocabularies_of_different_size_are_refused() -> None:
    with pytest.raises(BadInput, match="one model has 5 logits, the other 7"):
        extrapolate_logits(torch.zeros(1, 5), torch.zeros(1, 7), 0.5)
    one, another = make(llama, 1), make(lambda size: llama(size + 3), 2)
    with pytest.raises(BadInput, match="incompatible vocabularies"):
        Decoder(another, one)


def test_the_same_vocabulary_is_accepted() -> None:
    require_same_vocabulary(build_tokenizer(20), build_tokenizer(60))


def test_another_order_of_the_same_tokens_is_refused() -> None:
    """Sizes agree, so that only the texts tell."""
    swapped = build_tokenizer(40)
    state = (
        swapped.backend_tokenizer.to_str()
        .replace('"3":', '"X":')
        .replace('"4":', '"3":')
        .replace('"X":', '"4":')
    )
    swapped._tokenizer = swapped.backend_tokenizer.from_str(state)
    assert len(swapped) == len(build_tokenizer(40))
    with pytest.raises(BadInput, match=r"2 differ; '3' is number 6 in the first and number 7 in the second"):
        require_same_vocabulary(build_tokenizer(40), swapped)


def test_a_token_more_is_refused() -> None:
    longer = build_tokenizer(40)
    longer.add_tokens(["<think>"])
    with pytest.raises(BadInput, match="'<think>' is absent in the first"):
        require_same_vocabulary(build_tokenizer(40), longer)


def test_another_end_token_is_refused() -> None:
    other = build_tokenizer(40)
    other.eos_token = "."
    with pytest.raises(BadInput, match="ends with '<eos>' in one and with '.' in the other"):
        require_same_vocabulary(build_tokenizer(40), other)


# ---- the decoder -------------------------------------------------------------------------------------


def test_the_decoder_alone_samples_what_its_policy_samples(pair: tuple[Policy, Policy]) -> None:
    uniforms = Draw(0).uniform("rollout", 0, (len(PROMPTS), 2, NEW_TOKENS))
    made = Decoder(pair[1]).complete(PROMPTS, uniforms, temperature=0.9)
    flat = torch.from_numpy(uniforms.reshape(-1, NEW_TOKENS))
    sampled = pair[1].sample(pair[1].encode(PROMPTS), flat, 0.9)
    assert made.texts == pair[1].decode(sampled.tokens, sampled.mask)
    assert np.array_equal(made.lengths, sampled.lengths.numpy())
    assert made.token_passes == int(sampled.lengths.sum())


def test_the_decoder_counts_both_models(pair: tuple[Policy, Policy]) -> None:
    uniforms = Draw(0).uniform("rollout", 0, (len(PROMPTS), 2, NEW_TOKENS))
    made = Decoder(pair[1], pair[0]).complete(PROMPTS, uniforms, temperature=0.9, alpha=1.5)
    assert made.token_passes == 2 * made.lengths.sum()
    with pytest.raises(ValueError, match="a first policy"):
        Decoder(pair[1]).complete(PROMPTS, uniforms, temperature=0.9, alpha=1.5)
