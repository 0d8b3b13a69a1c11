"""The nucleus: against Transformers' own filter, exact small cases, frequencies, and the engine without it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import TopPLogitsWarper

from lab.draw import Draw
from lab.policies import build_policy_settings, load_policy
from lab.policies.policy import Policy
from lab.policies.rollout import Rollouts, nucleus, rollout, sample_tokens

PROMPTS = ["1+2=", "12+34=", "max(12,34,56)="]


@pytest.fixture(scope="module")
def policy() -> Policy:
    """The built-in model: far from uniform, and not certain."""
    return load_policy(build_policy_settings({"name": "tiny"}), seed=0)


def run(policy: Policy, top_p: float | None, temperature: float = 1.3) -> Rollouts:
    """Sixteen completions of each prompt; None leaves the argument out."""
    prompts = policy.encode(PROMPTS)
    uniforms = torch.from_numpy(Draw(2).uniform("rollout", 0, (16 * len(PROMPTS), 6)))
    more = {} if top_p is None else {"top_p": top_p}
    return rollout(
        policy.logit_source(6),
        prompts.ids,
        prompts.mask,
        uniforms,
        temperature=temperature,
        eos_id=policy.eos_id,
        pad_id=policy.pad_id,
        **more,
    )


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
def test_the_nucleus_is_the_one_that_transformers_keeps(top_p: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(200, 50, generator=generator)
    kept = torch.isfinite(TopPLogitsWarper(top_p)(torch.zeros(200, 1, dtype=torch.long), logits))
    assert torch.equal(nucleus(torch.softmax(logits, -1), top_p), kept)


@pytest.mark.parametrize(
    ("top_p", "members"),
    [(0.001, [2]), (0.5, [2]), (0.51, [0, 2]), (0.75, [0, 2]), (0.76, [0, 1, 2]), (1.0, [0, 1, 2, 3])],
)
def test_the_nucleus_of_a_small_distribution(top_p: float, members: list[int]) -> None:
    probabilities = torch.tensor(
        [[0.25, 0.125, 0.5, 0.125]]
    )  # exact in binary; of the equal two, the lower id first
    assert nucleus(probabilities, top_p)[0].nonzero()[:, 0].tolist() == members


def test_a_top_p_of_one_changes_no_bit(policy: Policy) -> None:
    without, with_all = run(policy, None), run(policy, 1.0)
    for name in ("tokens", "mask", "log_probs", "entropies", "finished"):
        assert torch.equal(getattr(without, name), getattr(with_all, name))


def test_a_tiny_top_p_takes_the_most_likely_token(policy: Policy) -> None:
    assert torch.equal(run(policy, 1e-6).tokens, run(policy, None, temperature=0.0).tokens)


def test_frequencies_log_probs_and_entropy_are_of_the_renormalised_nucleus() -> None:
    rows, temperature = 40_000, 0.5
    probabilities = np.array([0.2, 0.05, 0.3, 0.1, 0.35])
    sharpened = probabilities ** (1 / temperature) / (probabilities ** (1 / temperature)).sum()
    # sharpened: .151 .009 .340 .038 .462; the two most likely reach .8, unsharpened it takes three
    expected = np.where(np.isin(np.arange(5), [2, 4]), sharpened, 0.0)
    expected /= expected.sum()
    logits = torch.from_numpy(np.log(probabilities)).float().expand(rows, -1)
    uniforms = torch.from_numpy(Draw(4).uniform("rollout", 0, (rows,)))
    tokens, chosen, entropies = sample_tokens(logits, uniforms, temperature, top_p=0.8)
    observed = np.bincount(tokens.numpy(), minlength=5)
    assert observed[[0, 1, 3]].sum() == 0
    assert stats.binomtest(int(observed[4]), rows, expected[4]).pvalue > 1e-5
    torch.testing.assert_close(chosen.double().exp(), torch.from_numpy(expected)[tokens], rtol=1e-5, atol=0)
    exact = -sum(p * math.log(p) for p in expected if p > 0)
    torch.testing.assert_close(entropies, torch.full_like(entropies, exact), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 0), (0.3999, 0), (0.4001, 3), (0.9999, 3), (1 - 2.0**-53, 3)]
)
def test_the_uniform_is_spread_over_the_nucleus_in_the_order_of_the_vocabulary(
    uniform: float, token: int
) -> None:
    logits = torch.tensor([[0.32, 0.12, 0.08, 0.48]]).log()
    tokens, _, _ = sample_tokens(logits, torch.tensor([uniform], dtype=torch.float64), 1.0, top_p=0.8)
    assert int(tokens) == token


def test_greedy_decoding_knows_no_nucleus(policy: Policy) -> None:
    plain, cut = run(policy, None, temperature=0.0), run(policy, 0.3, temperature=0.0)
    assert torch.equal(plain.tokens, cut.tokens) and torch.equal(plain.log_probs, cut.log_probs)


@pytest.mark.parametrize("top_p", [0.0, -0.1, 1.1, float("nan")])
def test_an_impossible_top_p_is_refused(policy: Policy, top_p: float) -> None:
    with pytest.raises(ValueError, match="top_p"):
        run(policy, top_p)


def test_what_was_sampled_lay_in_the_nucleus_of_its_step(policy: Policy) -> None:
    sampled = run(policy, 0.7)
    prompts = policy.encode(PROMPTS)
    for row, length in enumerate(sampled.lengths.tolist()):
        prompt = prompts.ids[row // 16][prompts.mask[row // 16] == 1].tolist()
        tokens = sampled.tokens[row, :length]
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([prompt + tokens.tolist()]), use_cache=False).logits
        probabilities = torch.softmax(logits[0, len(prompt) - 1 : -1].double() / 1.3, -1)
        chosen = probabilities.gather(-1, tokens[:, None])
        above = torch.where(probabilities > chosen, probabilities, 0.0).sum(-1)
        assert bool((above < 0.7 + 1e-5).all())
        ordered = probabilities.sort(descending=True).values
        inside = torch.arange(ordered.shape[1]) <= (ordered.cumsum(-1) < 0.7).sum(-1, keepdim=True)
        reached = torch.where(inside, ordered, 0.0).sum(-1)
        expected = (chosen[:, 0] / reached).log()
        torch.testing.assert_close(sampled.log_probs[row, :length].double(), expected, rtol=0, atol=1e-4)
