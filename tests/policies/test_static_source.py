"""The packed step with its preallocated cache against the model's own forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from lab.policies.graphed_source import GraphedSource, _graphs_agree, graphed_source
from lab.policies.logit_source import ModelSource
from lab.policies.static_source import StaticSource, is_supported

VOCABULARY = 23
PROMPTS = torch.tensor([[0, 0, 5, 6], [3, 4, 7, 8], [0, 9, 10, 11]])
MASK = (PROMPTS > 0).long()


Make = Callable[[LlamaForCausalLM, int], StaticSource]


def llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A small Llama with weights large enough for logits to depend on the context."""
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0 if parameter.ndim > 1 else 1.0).add_(0.1 * torch.randn_like(parameter))
    return model


def plain(model: LlamaForCausalLM, prompt: int, appended: list[int]) -> Tensor:
    """Logits after an unpadded sequence, from one forward pass without a cache."""
    sequence = [*PROMPTS[prompt][MASK[prompt] == 1].tolist(), *appended]
    with torch.no_grad():
        return model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, -1]


def uncaptured(model: LlamaForCausalLM, new_tokens: int) -> GraphedSource:
    """The source that replays CUDA graphs, its steps run as they are."""
    return GraphedSource(model, new_tokens, capture=False)


SOURCES = pytest.mark.parametrize("make", [StaticSource, uncaptured], ids=["sliced", "fixed shapes"])


@SOURCES
@pytest.mark.parametrize(
    "changes", [{}, {"num_key_value_heads": 4}, {"num_key_value_heads": 1, "tie_word_embeddings": False}]
)
def test_every_step_equals_a_forward_pass_while_rows_leave(changes: dict[str, Any], make: Make) -> None:
    model = llama(**changes)
    source = make(model, 6)
    with torch.inference_mode():
        state, logits = source.start(PROMPTS, MASK)
        owner = torch.tensor([0, 0, 1, 1, 2, 2])
        state, appended = source.select(state, owner), [[] for _ in owner]
        rows = list(range(len(owner)))
        for index, row in enumerate(rows):
            torch.testing.assert_close(
                logits[owner][index], plain(model, int(owner[row]), []), rtol=1e-4, atol=1e-4
            )
        # one row leaves, then two, then none: below and above the share at which the cache is packed
        for stays in ([0, 1, 3, 4, 5], [1, 3], [0, 1], [1]):
            rows = [rows[index] for index in stays]
            state = source.select(state, torch.tensor(stays))
            tokens = torch.tensor([(7 * row + len(appended[row]) + 1) % VOCABULARY for row in rows])
            for row, token in zip(rows, tokens.tolist(), strict=True):
                appended[row].append(token)
            state, logits = source.advance(state, tokens)
            for index, row in enumerate(rows):
                torch.testing.assert_close(
                    logits[index], plain(model, int(owner[row]), appended[row]), rtol=1e-4, atol=1e-4
                )


@SOURCES
def test_weights_changed_in_place_are_seen(make: Make) -> None:
    model = llama()
    source = make(model, 2)
    owner, token = torch.arange(3), torch.tensor([1, 2, 3])
    for _ in range(2):
        with torch.inference_mode():
            state, _ = source.start(PROMPTS, MASK)
            _, logits = source.advance(source.select(state, owner), token)
        for row in range(3):
            torch.testing.assert_close(
                logits[row], plain(model, row, [int(token[row])]), rtol=1e-4, atol=1e-4
            )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))


@SOURCES
def test_longer_prompts_later_and_another_type(make: Make) -> None:
    model = llama()
    source = make(model, 1)
    long = torch.arange(1, 41)[None] % VOCABULARY
    for ids in (long[:, :3], long):
        with torch.inference_mode():
            state, _ = source.start(ids, torch.ones_like(ids))
            _, logits = source.advance(source.select(state, torch.tensor([0])), torch.tensor([4]))
            expected = model(input_ids=torch.cat([ids, torch.tensor([[4]])], dim=1)).logits[:, -1]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    model.to(torch.bfloat16)
    with torch.inference_mode():
        generic, packed = ModelSource(model), source
        _, expected = generic.start(long, torch.ones_like(long))
        state, logits = packed.start(long, torch.ones_like(long))
        torch.testing.assert_close(logits, expected)
        _, logits = packed.advance(packed.select(state, torch.tensor([0])), torch.tensor([4]))
    assert logits.dtype == torch.bfloat16 and bool(torch.isfinite(logits).all())


@SOURCES
def test_mixed_precision_keeps_the_residual_stream_in_float32(make: Make) -> None:
    """Under autocast the packed step is as near to float32 as the model's own forward pass is."""
    model = llama()
    exact = torch.stack([plain(model, row, [2]) for row in range(3)])
    errors = []
    for source in (ModelSource(model), make(model, 1)):
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            state, _ = source.start(PROMPTS, MASK)
            state = source.select(state, torch.arange(3))
            _, logits = source.advance(state, torch.tensor([2, 2, 2]))
        errors.append(float((logits.float() - exact).abs().max()))
    assert 0 < errors[1] < 3 * errors[0]
    assert logits.dtype == torch.bfloat16
    assert all(cache.dtype == torch.bfloat16 for cache in state.caches)


def test_fixed_shapes_are_few_whatever_rows_leave() -> None:
    """As many shapes as there are powers of two, and one set of buffers for all rollouts of a length."""
    source, shapes = uncaptured(llama(), 12), set()
    step, generator = source._step, torch.Generator().manual_seed(0)

    def seen(buffers: Any, slots: int) -> Tensor:
        shapes.add((slots, buffers.caches[0].shape, buffers.caches[0].data_ptr()))
        return step(buffers, slots)

    source._step = seen  # type: ignore[method-assign]
    with torch.inference_mode():
        for rows in (70, 41, 64):
            state, _ = source.start(PROMPTS, MASK)
            state = source.select(state, torch.arange(rows) % 3)
            for _ in range(12):
                stays = torch.nonzero(torch.rand(len(state.slots), generator=generator) < 0.8)[:, 0]
                state = source.select(state, stays if len(stays) else torch.tensor([0]))
                state, _ = source.advance(state, torch.zeros(len(state.slots), dtype=torch.int64))
    assert {slots for slots, _, _ in shapes} <= {8, 16, 32, 64, 128}
    assert len({(shape, address) for _, shape, address in shapes}) == 1


def test_buffers_that_a_later_rollout_has_taken_over_are_refused() -> None:
    source = uncaptured(llama(), 2)
    with torch.inference_mode():
        states = [source.select(source.start(PROMPTS, MASK)[0], torch.arange(3)) for _ in range(2)]
        source.advance(states[1], torch.tensor([1, 2, 3]))
        with pytest.raises(RuntimeError, match="later rollout"):
            source.advance(states[0], torch.tensor([1, 2, 3]))


def test_a_value_that_is_not_finite_does_not_outlive_its_rollout() -> None:
    """Nothing of an earlier rollout shows through the mask of a later one."""
    source, found = uncaptured(llama(), 3), []
    with torch.inference_mode():
        for spoil in (False, True, False):
            state = source.select(source.start(PROMPTS, MASK)[0], torch.arange(3))
            if spoil:
                for cache in state.caches:
                    cache.fill_(torch.nan)
            found.append(source.advance(state, torch.tensor([1, 2, 3]))[1].clone())
    assert bool(found[1].isnan().all())
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=0)


@pytest.mark.parametrize("autocast", [False, True])
def test_graphs_are_tried_out_before_a_run_depends_on_them(autocast: bool) -> None:
    model = llama()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        assert _graphs_agree(model, capture=False)
        model.model.layers[1].mlp.forward = lambda hidden: torch.zeros_like(hidden)
        assert not _graphs_agree(model, capture=False)


def test_without_graphs_a_source_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing can be captured, as on this machine, every kernel is launched."""
    source = graphed_source(llama(), 2)
    assert not source.capture
    assert "without CUDA graphs" in capsys.readouterr().err
    with torch.inference_mode():
        state, _ = source.start(PROMPTS, MASK)
        _, logits = source.advance(source.select(state, torch.arange(3)), torch.tensor([1, 2, 3]))
    torch.testing.assert_close(logits[1], plain(source.model, 1, [2]), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_replayed_graphs_equal_forward_passes() -> None:
    model = llama().to("cuda")
    assert _graphs_agree(model)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert _graphs_agree(model)


def test_what_is_supported() -> None:
    assert is_supported(llama())
    assert is_supported(llama().to(torch.bfloat16))
    assert is_supported(llama(head_dim=16))
    assert not is_supported(llama(attention_bias=True))
    assert not is_supported(llama(mlp_bias=True))
    assert not is_supported(llama(hidden_act="gelu"))
    assert not is_supported(GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=1)))
    broken = llama()
    broken.model.layers[1].mlp.forward = lambda hidden: torch.zeros_like(hidden)  # what no config shows
    assert not is_supported(broken)
