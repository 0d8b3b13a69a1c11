"""Sliced log-probabilities equal the plain computation, value and gradient, whatever the slice."""

from __future__ import annotations

import pytest
import torch

from lab.policies.chosen_log_probs import chosen_log_probs


def plain(
    hidden: torch.Tensor, weight: torch.Tensor, tokens: torch.Tensor, temperature: float
) -> torch.Tensor:
    table = torch.log_softmax((hidden @ weight.T) / temperature, dim=-1)
    return table[torch.arange(len(tokens)), tokens]


@pytest.mark.parametrize("slice_elements", [1, 7 * 29, 10**6])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_value_and_gradient_equal_the_plain_computation(slice_elements: int, temperature: float) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(23, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(29, 5, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(0, 29, (23,))
    upstream = torch.randn(23, dtype=torch.float64)
    expected = plain(hidden, weight, tokens, temperature)
    expected_gradients = torch.autograd.grad((expected * upstream).sum(), [hidden, weight])
    found = chosen_log_probs(hidden, weight, tokens, temperature, slice_elements)
    gradients = torch.autograd.grad((found * upstream).sum(), [hidden, weight])
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_sum_over_the_vocabulary_vanishes() -> None:
    """sum over tokens of p(token) d log p(token) = 0: probabilities always sum to one."""
    torch.manual_seed(1)
    hidden = torch.randn(1, 4, requires_grad=True)
    weight = torch.randn(11, 4)
    tokens = torch.arange(11)
    log_probs = chosen_log_probs(hidden.expand(11, 4).contiguous(), weight, tokens, 1.0, 33)
    (gradient,) = torch.autograd.grad((log_probs * log_probs.detach().exp()).sum(), hidden)
    assert log_probs.exp().sum().item() == pytest.approx(1.0, rel=1e-6)
    assert gradient.abs().max().item() < 1e-6


def test_bfloat16_hidden_states_are_summed_in_float32() -> None:
    torch.manual_seed(2)
    hidden, weight = torch.randn(6, 8), torch.randn(4000, 8)
    tokens = torch.randint(0, 4000, (6,))
    found = chosen_log_probs(hidden.bfloat16(), weight, tokens, 1.0)
    expected = plain(hidden.bfloat16().float(), weight.bfloat16().float(), tokens, 1.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)
