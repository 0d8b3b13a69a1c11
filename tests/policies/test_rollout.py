"""The rollout engine against plain forward passes: no cache, no shared prefix, no row ever removed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from lab.draw import Draw
from lab.policies import build_policy_settings, load_policy
from lab.policies.policy import EncodedPrompts, Policy
from lab.policies.rollout import Rollouts, rollout, sample_tokens
from lab.policies.static_source import StaticSource
from lab.policies.tokenizer import build_tokenizer

EQUAL = ["12+34=", "56+78=", "90+11="]
MIXED = ["1+2=", "max(12,34,56)=", "12+34=", "9="]
NEW_TOKENS = 12


def roughen(model: torch.nn.Module) -> None:
    """Large random weights, so that the distributions are far from uniform and depend on the context."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def policy(request: pytest.FixtureRequest) -> Policy:
    """A random Llama (rotary positions) and a random GPT-2 (learned absolute positions)."""
    if request.param == "llama":
        node = {"name": "scratch", "layers": 2, "width": 32, "heads": 2, "mlp_width": 48, "context": 40}
        made = load_policy(build_policy_settings(node), seed=0)
    else:
        tokenizer = build_tokenizer(40)
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=40,
            n_embd=32,
            n_layer=2,
            n_head=2,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        made = Policy(GPT2LMHeadModel(config), tokenizer, "test")
    roughen(made.model)
    return made


def uniforms_for(rows: int, seed: int = 0) -> Tensor:
    """Fixed uniforms, float64 [row, token]."""
    return torch.from_numpy(Draw(seed).uniform("rollout", 0, (rows, NEW_TOKENS)))


def run(
    policy: Policy, prompts: EncodedPrompts, uniforms: Tensor, temperature: float = 1.0, **ids: int
) -> Rollouts:
    """The engine under test."""
    return rollout(
        policy.logit_source(NEW_TOKENS),
        prompts.ids,
        prompts.mask,
        uniforms,
        temperature=temperature,
        **{"eos_id": policy.eos_id, "pad_id": policy.pad_id, **ids},
    )


def plain_logits(policy: Policy, sequence: list[int]) -> Tensor:
    """Next-token logits after every token of one unpadded sequence, float64."""
    with torch.no_grad():
        return policy.model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0].double()


def unpadded(prompts: EncodedPrompts, index: int) -> list[int]:
    """The tokens of one prompt."""
    return prompts.ids[index][prompts.mask[index] == 1].tolist()


def slow_engine(
    policy: Policy, prompts: EncodedPrompts, uniforms: Tensor, temperature: float, eos: int
) -> list[list[int]]:
    """Sample every row to the full length from full forward passes; cut at the end token afterwards."""
    rows = []
    group = len(uniforms) // len(prompts.ids)
    for row, line in enumerate(uniforms.tolist()):
        sequence = unpadded(prompts, row // group)
        start = len(sequence)
        for uniform in line:
            probabilities = torch.softmax(plain_logits(policy, sequence)[-1] / temperature, -1).tolist()
            reached, token = 0.0, 0
            for token, probability in enumerate(probabilities):  # noqa: B007
                reached += probability
                if reached > uniform:
                    break
            sequence.append(token)
        completion = sequence[start:]
        rows.append(completion[: completion.index(eos) + 1] if eos in completion else completion)
    return rows


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("texts", [EQUAL, MIXED], ids=["equal", "mixed"])
def test_log_probs_and_entropies_equal_a_plain_forward_pass(
    policy: Policy, texts: list[str], temperature: float
) -> None:
    prompts = policy.encode(texts)
    sampled = run(policy, prompts, uniforms_for(4 * len(texts)), temperature)
    for row in range(4 * len(texts)):
        prompt, length = unpadded(prompts, row // 4), int(sampled.lengths[row])
        completion = sampled.tokens[row, :length].tolist()
        logits = plain_logits(policy, prompt + completion)[len(prompt) - 1 : -1] / temperature
        expected = torch.log_softmax(logits, -1)
        chosen = expected[torch.arange(length), completion]
        torch.testing.assert_close(sampled.log_probs[row, :length].double(), chosen, rtol=0, atol=1e-5)
        entropies = torch.distributions.Categorical(logits=logits).entropy()
        torch.testing.assert_close(sampled.entropies[row, :length].double(), entropies, rtol=0, atol=1e-5)


@pytest.mark.parametrize("texts", [EQUAL, MIXED], ids=["equal", "mixed"])
def test_removing_finished_rows_changes_no_token(policy: Policy, texts: list[str]) -> None:
    prompts, uniforms = policy.encode(texts), uniforms_for(4 * len(texts))
    # The commonest first token ends a completion, so that many rows leave, at different times.
    first = run(policy, prompts, uniforms, eos_id=-1)
    eos = int(first.tokens.flatten().mode().values)
    sampled = run(policy, prompts, uniforms, eos_id=eos)
    expected = slow_engine(policy, prompts, uniforms, 1.0, eos)
    actual = [sampled.tokens[row, : sampled.lengths[row]].tolist() for row in range(len(uniforms))]
    assert actual == expected
    assert len({len(row) for row in expected}) > 2, "the case must have rows that leave at different times"
    assert sampled.finished.tolist() == [row[-1] == eos for row in expected]


def test_mask_holds_the_end_token_and_nothing_after_it(policy: Policy) -> None:
    prompts, uniforms = policy.encode(MIXED), uniforms_for(16)
    eos = int(run(policy, prompts, uniforms, eos_id=-1).tokens.flatten().mode().values)
    sampled = run(policy, prompts, uniforms, eos_id=eos)
    for tokens, mask, finished in zip(sampled.tokens, sampled.mask, sampled.finished, strict=True):
        length = int(mask.sum())
        assert mask.tolist() == [True] * length + [False] * (len(mask) - length)
        assert (eos in tokens[:length].tolist()) == bool(finished)
        assert eos not in tokens[: length - 1].tolist()
        assert set(tokens[length:].tolist()) <= {policy.pad_id}
        assert bool(finished) or length == NEW_TOKENS
    assert bool(sampled.mask.any(0).all()), "no column is empty"
    assert float(sampled.log_probs[~sampled.mask].abs().sum()) == 0
    assert float(sampled.entropies[~sampled.mask].abs().sum()) == 0


def test_the_order_of_the_prompts_changes_nothing(policy: Policy) -> None:
    uniforms = uniforms_for(16)
    straight = run(policy, policy.encode(MIXED), uniforms)
    order = [2, 0, 3, 1]
    rows = torch.tensor([4 * prompt + index for prompt in order for index in range(4)])
    permuted = run(policy, policy.encode([MIXED[prompt] for prompt in order]), uniforms[rows])
    assert torch.equal(permuted.tokens, straight.tokens[rows])
    assert torch.equal(permuted.mask, straight.mask[rows])
    torch.testing.assert_close(permuted.log_probs, straight.log_probs[rows], rtol=0, atol=1e-5)


def test_splitting_the_batch_changes_nothing(policy: Policy) -> None:
    uniforms = uniforms_for(16)
    whole = run(policy, policy.encode(MIXED), uniforms)
    for index, text in enumerate(MIXED):
        rows = slice(4 * index, 4 * index + 4)
        part = run(policy, policy.encode([text]), uniforms[rows])
        width = part.tokens.shape[1]
        assert torch.equal(part.tokens, whole.tokens[rows, :width])
        assert not bool(whole.mask[rows, width:].any())
        torch.testing.assert_close(part.log_probs, whole.log_probs[rows, :width], rtol=0, atol=1e-5)


def test_fewer_rollouts_of_a_prompt_are_the_first_of_more(policy: Policy) -> None:
    prompts, uniforms = policy.encode(EQUAL[:1]), uniforms_for(8)
    many, few = run(policy, prompts, uniforms), run(policy, prompts, uniforms[:3])
    width = few.tokens.shape[1]
    assert torch.equal(few.tokens, many.tokens[:3, :width])


def test_temperature_zero_takes_the_most_likely_token(policy: Policy) -> None:
    prompts = policy.encode(MIXED)
    sampled = run(policy, prompts, uniforms_for(len(MIXED)), temperature=0.0)
    for row in range(len(MIXED)):
        sequence = unpadded(prompts, row)
        for token in sampled.tokens[row, : sampled.lengths[row]].tolist():
            logits = plain_logits(policy, sequence)[-1]
            assert token == int(logits.argmax())
            sequence.append(token)


def test_rows_that_are_no_multiple_of_the_prompts_are_refused(policy: Policy) -> None:
    with pytest.raises(ValueError, match="7 rows are no multiple of 3 prompts"):
        run(policy, policy.encode(EQUAL), uniforms_for(7))


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_sampling_frequencies_follow_the_softmax(temperature: float) -> None:
    rows, logits = 40_000, torch.tensor([0.3, -1.0, 2.0, -30.0, 0.0, 1.1])
    uniforms = torch.from_numpy(Draw(4).uniform("rollout", 0, (rows,)))
    tokens, chosen, _ = sample_tokens(logits.expand(rows, -1), uniforms, temperature)
    weights = np.exp(logits.double().numpy() / temperature)
    expected = rows * weights / weights.sum()
    observed = np.bincount(tokens.numpy(), minlength=6).astype(float)
    likely = expected > 5
    assert observed[~likely].sum() == 0
    statistic = ((observed - expected)[likely] ** 2 / expected[likely]).sum()
    assert stats.chi2.sf(statistic, likely.sum() - 1) > 1e-5
    torch.testing.assert_close(
        chosen.double().exp(), torch.from_numpy(expected / rows)[tokens], rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("look_every", [2, 5, 8, 20])
def test_looking_more_rarely_at_which_rows_are_done_changes_nothing(policy: Policy, look_every: int) -> None:
    prompts, uniforms = policy.encode(MIXED), uniforms_for(16)
    eos = int(run(policy, prompts, uniforms, eos_id=-1).tokens.flatten().mode().values)
    often, rarely = (
        run(policy, prompts, uniforms, eos_id=eos, look_every=every) for every in (1, look_every)
    )
    assert torch.equal(rarely.tokens, often.tokens)
    assert torch.equal(rarely.mask, often.mask)
    assert torch.equal(rarely.finished, often.finished)
    torch.testing.assert_close(rarely.log_probs, often.log_probs, rtol=0, atol=1e-5)
    torch.testing.assert_close(rarely.entropies, often.entropies, rtol=0, atol=1e-5)


@pytest.mark.parametrize("vocabulary", [257, 512, 5000])
def test_a_large_vocabulary_is_inverted_as_a_small_one(vocabulary: int) -> None:
    """Against a cumulative sum over all of it, for flat, peaked and cut distributions."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(300, vocabulary, generator=generator) * torch.rand(300, 1, generator=generator) * 8
    logits[100:200, : vocabulary // 2] = -math.inf
    logits[200:, 3:] = -math.inf
    uniforms = torch.rand(300, dtype=torch.float64, generator=generator)
    tokens, _, _ = sample_tokens(logits, uniforms, 1.0)
    cumulative = np.cumsum(torch.log_softmax(logits, -1).exp().double().numpy(), axis=1)
    for row, (line, uniform) in enumerate(zip(cumulative, uniforms.tolist(), strict=True)):
        assert int(tokens[row]) == int(np.searchsorted(line, uniform * line[-1], side="right"))


@pytest.mark.parametrize("first", [0, 255, 256, 300, 511])
def test_the_edges_of_blocks_hold_no_token_without_probability(first: int) -> None:
    logits = torch.full((1, 600), -math.inf)
    logits[0, first], logits[0, 599] = 0.0, 0.0
    for uniform, token in [(0.0, first), (0.4999, first), (0.5, 599), (1 - 2.0**-53, 599)]:
        tokens, _, _ = sample_tokens(logits, torch.tensor([uniform], dtype=torch.float64), 1.0)
        assert int(tokens) == token


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 0), (0.2499, 0), (0.2501, 2), (0.7499, 2), (0.7501, 3), (1 - 2.0**-53, 3)]
)
def test_a_uniform_picks_the_cell_it_lies_in(uniform: float, token: int) -> None:
    logits = torch.tensor([[math.log(0.25), -math.inf, math.log(0.5), math.log(0.25)]])
    tokens, _, _ = sample_tokens(logits, torch.tensor([uniform], dtype=torch.float64), 1.0)
    assert int(tokens) == token


@pytest.mark.parametrize("uniform", [0.0, 0.5])
def test_a_token_without_probability_is_never_sampled_on_the_edge_of_its_cell(uniform: float) -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0]])  # cumulative 0, 1/2, 1/2, 1: exact in binary
    tokens, _, _ = sample_tokens(logits, torch.tensor([uniform], dtype=torch.float64), 1.0)
    assert int(tokens) == (1 if uniform < 0.5 else 3)


@pytest.mark.parametrize(
    ("probabilities", "entropy"),
    [([0.25] * 4, math.log(4)), ([0.5, 0.5, 0.0, 0.0], math.log(2)), ([1.0, 0.0, 0.0, 0.0], 0.0)],
)
def test_the_entropy_is_that_of_the_distribution(probabilities: list[float], entropy: float) -> None:
    logits = torch.tensor([probabilities]).log()
    _, _, measured = sample_tokens(logits, torch.tensor([0.1], dtype=torch.float64), 1.0)
    assert float(measured) == pytest.approx(entropy, abs=1e-6)


def test_the_shared_prefix_is_read_once(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, ...]] = []
    forward = policy.model.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        read.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    advance = StaticSource.advance

    def counting_packed(source: StaticSource, state: Any, tokens: Tensor) -> Any:
        read.append((len(tokens), 1))
        return advance(source, state, tokens)

    prompts = policy.encode(EQUAL)
    policy.logit_source(NEW_TOKENS)  # the first tries the model out
    monkeypatch.setattr(policy.model, "forward", counting)
    monkeypatch.setattr(StaticSource, "advance", counting_packed)
    run(policy, prompts, uniforms_for(12), eos_id=-1)
    assert read == [(3, 6)] + [(12, 1)] * (NEW_TOKENS - 1)
