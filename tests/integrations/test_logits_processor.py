"""The processor inside `generate`, against the rollout engine and against a processor that has no cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    PreTrainedModel,
)

from lab.errors import BadInput
from lab.integrations.logits_processor import ExtrapolatedLogits
from lab.policies.extrapolated_source import Extrapolated
from lab.policies.policy import EncodedPrompts, Policy
from lab.policies.rollout import rollout
from lab.policies.tokenizer import build_tokenizer

PROMPTS = ["1+2=", "max(12,34,56)=", "12+34=", "9="]
NEW_TOKENS = 8
ALPHA = 1.6


def llama(size: int) -> PreTrainedModel:
    """Rotary positions."""
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
    """Learned absolute positions, so that wrong positions of padded rows show."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=size, n_positions=40, n_embd=32, n_layer=2, n_head=2))


def make(build: Callable[[int], PreTrainedModel], seed: int) -> Policy:
    """Random weights, far from uniform."""
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
    """The earlier and the later checkpoint."""
    return make(request.param, 1), make(request.param, 2)


class WithoutCache(LogitsProcessor):
    """The same combination from full forward passes, row by row and without padding."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = []
        for row in input_ids.tolist():
            start = next(place for place, token in enumerate(row) if token != self.policy.pad_id)
            with torch.no_grad():
                rows.append(
                    self.policy.model(input_ids=torch.tensor([row[start:]]), use_cache=False).logits[0, -1]
                )
        earlier = torch.stack(rows)
        return earlier + ALPHA * (scores - earlier)


def generate(policy: Policy, prompts: EncodedPrompts, processor: LogitsProcessor, **options: Any) -> Tensor:
    """New tokens, [row, position]."""
    made = policy.model.generate(
        input_ids=prompts.ids,
        attention_mask=prompts.mask,
        logits_processor=LogitsProcessorList([processor]),
        max_new_tokens=NEW_TOKENS,
        pad_token_id=policy.pad_id,
        **{"eos_token_id": policy.eos_id, "do_sample": False, **options},
    )
    return made[:, prompts.ids.shape[1] :]


@pytest.mark.parametrize("alpha", [-0.5, 0.4, ALPHA])
@pytest.mark.parametrize("given", ["mask", "pad"])
def test_greedy_generation_equals_the_rollout_engine(
    pair: tuple[Policy, Policy], alpha: float, given: str
) -> None:
    earlier, later = pair
    prompts = later.encode(PROMPTS)
    assert bool((prompts.mask == 0).any()), "the case must have padding"

    def ours(eos_id: int) -> Tensor:
        source = Extrapolated(earlier.logit_source(NEW_TOKENS), later.logit_source(NEW_TOKENS), alpha)
        return rollout(
            source,
            prompts.ids,
            prompts.mask,
            torch.zeros(len(PROMPTS), NEW_TOKENS, dtype=torch.float64),
            temperature=0.0,
            eos_id=eos_id,
            pad_id=later.pad_id,
        ).tokens

    eos = int(ours(-1)[0, 2])  # so that a row ends early
    how: dict[str, Any] = {"attention_mask": prompts.mask} if given == "mask" else {"pad_id": later.pad_id}
    processor = ExtrapolatedLogits(
        earlier.model, alpha, tokenizers=(earlier.tokenizer, later.tokenizer), **how
    )
    assert torch.equal(generate(later, prompts, processor, eos_token_id=eos), ours(eos))


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "num_return_sequences": 3, "temperature": 0.7, "top_p": 0.9, "top_k": 0},
        {"num_beams": 3, "renormalize_logits": True, "num_return_sequences": 2},
        {"do_sample": True, "num_beams": 2, "renormalize_logits": True},
    ],
    ids=["sampled", "beams", "sampled beams"],
)
def test_any_way_of_generating_equals_full_forward_passes(
    pair: tuple[Policy, Policy], options: dict[str, Any]
) -> None:
    earlier, later = pair
    prompts = later.encode(PROMPTS)
    found = []
    for processor in (
        ExtrapolatedLogits(earlier.model, ALPHA, attention_mask=prompts.mask),
        WithoutCache(earlier),
    ):
        torch.manual_seed(0)
        found.append(generate(later, prompts, processor, eos_token_id=None, **options))
    assert torch.equal(*found)


def test_each_token_is_read_once_and_a_new_batch_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    earlier, later = make(llama, 1), make(llama, 2)
    read: list[tuple[int, ...]] = []
    forward = earlier.model.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        read.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(earlier.model, "forward", counting)
    processor = ExtrapolatedLogits(earlier.model, ALPHA, pad_id=later.pad_id)
    for texts, length in ((PROMPTS, 14), (PROMPTS[2:], 6), (PROMPTS[2:], 6)):
        read.clear()
        generate(later, later.encode(texts), processor, eos_token_id=None)
        assert read == [(len(texts), length)] + [(len(texts), 1)] * (NEW_TOKENS - 1)


def test_what_another_processor_has_forbidden_stays_so(pair: tuple[Policy, Policy]) -> None:
    """Also at an alpha between 0 and 1, where -inf minus -inf would otherwise come up."""
    earlier, later = pair
    prompts = later.encode(PROMPTS)
    mask = prompts.mask
    later_logits = later.model(input_ids=prompts.ids, attention_mask=mask).logits[:, -1].detach().float()
    bar = MinNewTokensLengthLogitsProcessor(prompts.ids.shape[1], 3, later.eos_id, device="cpu")
    for alpha in (0.7, ALPHA):
        free = ExtrapolatedLogits(earlier.model, alpha, attention_mask=mask)(prompts.ids, later_logits)
        barred = ExtrapolatedLogits(earlier.model, alpha, attention_mask=mask)(
            prompts.ids, bar(prompts.ids, later_logits)
        )
        expected = free.clone()
        expected[:, later.eos_id] = -torch.inf
        assert torch.equal(barred, expected)


def test_a_mask_of_another_batch_is_refused(pair: tuple[Policy, Policy]) -> None:
    prompts = pair[1].encode(PROMPTS)
    processor = ExtrapolatedLogits(pair[0].model, ALPHA, attention_mask=prompts.mask)
    with pytest.raises(BadInput, match="4 prompts of 14 tokens, but there are 2 rows of 6"):
        generate(pair[1], pair[1].encode(PROMPTS[2:]), processor)


def test_what_cannot_be_combined_is_refused() -> None:
    earlier = make(llama, 1)
    mask = torch.ones(1, 3, dtype=torch.long)
    with pytest.raises(BadInput, match="alpha"):
        ExtrapolatedLogits(earlier.model, math.nan, attention_mask=mask)
    with pytest.raises(BadInput, match="either attention_mask"):
        ExtrapolatedLogits(earlier.model, ALPHA)
    with pytest.raises(BadInput, match="either attention_mask"):
        ExtrapolatedLogits(earlier.model, ALPHA, attention_mask=mask, pad_id=0)
    other = build_tokenizer(40)
    other.add_tokens(["<think>"])
    with pytest.raises(BadInput, match="<think>"):
        ExtrapolatedLogits(earlier.model, ALPHA, pad_id=0, tokenizers=(earlier.tokenizer, other))
    processor = ExtrapolatedLogits(earlier.model, ALPHA, pad_id=0)
    with pytest.raises(BadInput, match="the other 9"):
        processor(torch.tensor([[5, 6]]), torch.zeros(1, 9))
