"""Policies: teacher-forced log-probabilities, encoding, loading, and what each refusal says."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from lab.draw import Draw
from lab.errors import BadInput
from lab.noise import TokenSignNoise
from lab.objectives.settings import EvaluationSettings, GenerationSettings, ProbeSettings, SFTSettings
from lab.objectives.sft import SFT
from lab.policies import build_policy_settings, load_policy
from lab.policies.policy import Policy
from lab.policies.tokenizer import CHARACTERS, build_tokenizer
from lab.tasks import build_task

EQUAL = ["12+34=", "56+78=", "90+11="]
MIXED = ["1+2=", "max(12,34,56)=", "12+34="]
CHAT_TEMPLATE = (
    "{% for m in messages %}q {{ m['content'] }}{% endfor %}{% if add_generation_prompt %} a {% endif %}"
)
SCRATCH = {"name": "scratch", "layers": 2, "width": 32, "heads": 2, "mlp_width": 48, "context": 40}


def roughen(model: torch.nn.Module) -> None:
    """Large random weights, so that the distributions depend on the context."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator))


def make(kind: str) -> Policy:
    """A random Llama or GPT-2 with the built-in tokenizer."""
    if kind == "llama":
        made = load_policy(build_policy_settings(SCRATCH), seed=0)
    else:
        tokenizer = build_tokenizer(40)
        end = tokenizer.eos_token_id
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=40,
            n_embd=32,
            n_layer=2,
            n_head=2,
            bos_token_id=end,
            eos_token_id=end,
        )
        made = Policy(GPT2LMHeadModel(config), tokenizer, "test")
    roughen(made.model)
    return made


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def policy(request: pytest.FixtureRequest) -> Policy:
    """Rotary and learned absolute positions."""
    return make(request.param)


HF_NODE = {"name": "hf", "dtype": "float32", "chat_template": False, "gradient_checkpointing": False}


def load_hf(path: Path, **changes: Any) -> Policy:
    """policy=hf on a directory."""
    node = {
        "name": "hf",
        "path": str(path),
        "dtype": "float32",
        "chat_template": False,
        "gradient_checkpointing": False,
        **changes,
    }
    return load_policy(build_policy_settings(node), seed=0)


def completions(policy: Policy) -> tuple[Tensor, Tensor, Tensor]:
    """Owner, tokens and mask of rows of unequal length for three prompts, not in order and not evenly."""
    texts = ["46", "1", "134", "7+5", "", "99"]
    tokens, mask = policy.encode_completions(texts)
    return torch.tensor([2, 0, 1, 1, 0, 2]), tokens, mask


def plain_log_probs(
    policy: Policy, texts: list[str], owner: Tensor, tokens: Tensor, mask: Tensor, temperature: float
) -> Tensor:
    """One forward pass a row, without padding and without a cache."""
    result = torch.zeros(tokens.shape)
    for row in range(len(tokens)):
        prompt = policy.tokenizer(texts[int(owner[row])])["input_ids"]
        length = int(mask[row].sum())
        sequence = prompt + tokens[row, :length].tolist()
        logits = policy.model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0]
        scaled = torch.log_softmax(logits[len(prompt) - 1 : -1] / temperature, -1)
        picked = torch.stack([scaled[i, token] for i, token in enumerate(sequence[len(prompt) :])])
        result = result.index_put((torch.full((length,), row), torch.arange(length)), picked)
    return result


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("texts", [EQUAL, MIXED], ids=["equal", "mixed"])
def test_log_probs_equal_a_plain_forward_pass(policy: Policy, texts: list[str], temperature: float) -> None:
    owner, tokens, mask = completions(policy)
    actual = policy.completion_log_probs(policy.encode(texts), owner, tokens, mask, temperature)
    expected = plain_log_probs(policy, texts, owner, tokens, mask, temperature)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    assert bool((actual[~mask] == 0).all()) and bool((actual[mask] < 0).all())


@pytest.mark.parametrize("texts", [EQUAL, MIXED], ids=["equal", "mixed"])
def test_the_gradient_of_every_parameter_flows_through_the_shared_prefix(
    policy: Policy, texts: list[str]
) -> None:
    owner, tokens, mask = completions(policy)
    weights = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(1))
    parameters = list(policy.model.parameters())
    actual = policy.completion_log_probs(policy.encode(texts), owner, tokens, mask, 0.8)
    expected = plain_log_probs(policy, texts, owner, tokens, mask, 0.8)
    gradients = torch.autograd.grad((actual * weights).sum(), parameters)
    references = torch.autograd.grad((expected * weights).sum(), parameters)
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5 * float(reference.abs().max()))
    assert all(float(reference.abs().max()) > 0 for reference in references)


def test_completions_of_one_token_need_no_second_pass(policy: Policy) -> None:
    prompts, owner = policy.encode(MIXED), torch.tensor([0, 1, 2, 2])
    tokens, mask = torch.tensor([[5], [6], [7], [8]]), torch.ones(4, 1, dtype=torch.bool)
    actual = policy.completion_log_probs(prompts, owner, tokens, mask)
    expected = plain_log_probs(policy, MIXED, owner, tokens, mask, 1.0)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_dropout_is_off(policy: Policy) -> None:
    owner, tokens, mask = completions(policy)
    prompts = policy.encode(EQUAL)
    first, second = (policy.completion_log_probs(prompts, owner, tokens, mask) for _ in range(2))
    assert torch.equal(first, second) and not policy.model.training


def test_every_character_survives_encoding_and_decoding() -> None:
    policy = make("llama")
    texts = [CHARACTERS, CHARACTERS[::-1], "a  b", " 1 ", ""]
    assert policy.decode(*policy.encode_completions(texts)) == texts


def test_prompts_are_padded_on_the_left(policy: Policy) -> None:
    encoded = policy.encode(["1=", "12="])
    assert encoded.mask.tolist() == [[0, 1, 1], [1, 1, 1]]
    assert encoded.lengths.tolist() == [2, 3]
    assert int(encoded.ids[0, 0]) == policy.pad_id


def test_completions_end_with_the_end_token(policy: Policy) -> None:
    tokens, mask = policy.encode_completions(["12", ""])
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    assert int(tokens[0, 2]) == int(tokens[1, 0]) == policy.eos_id


@pytest.mark.parametrize("special", ["<pad>", "<unk>"])
def test_a_special_token_within_a_completion_is_not_hidden(special: str) -> None:
    """A policy that samples it has not written the answer, and must not be paid for it."""
    policy = make("llama")
    ids = policy.tokenizer.convert_tokens_to_ids(["8", special, "2", "<eos>"])
    text = policy.decode(torch.tensor([ids]), torch.ones(1, 4, dtype=torch.bool))[0]
    assert text != "82" and text.startswith("8") and text.endswith("2")


def test_a_character_without_a_token_is_refused(policy: Policy) -> None:
    with pytest.raises(BadInput, match=r"^task\.prompt: the tokenizer has no token for part of 'A\+1='"):
        policy.encode(["1+1=", "A+1="])


def test_scratch_weights_follow_from_the_seed_alone() -> None:
    settings = build_policy_settings(SCRATCH)
    torch.manual_seed(1)
    first = load_policy(settings, seed=3).model.state_dict()
    torch.manual_seed(2)
    again, other = (load_policy(settings, seed=seed).model.state_dict() for seed in (3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_building_a_policy_leaves_torchs_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    load_policy(build_policy_settings(SCRATCH), seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("texts", [EQUAL, MIXED], ids=["equal", "mixed"])
def test_a_saved_policy_loads_and_computes_the_same(policy: Policy, texts: list[str], tmp_path: Path) -> None:
    policy.save(tmp_path)
    loaded = load_hf(tmp_path)
    owner, tokens, mask = completions(policy)
    with torch.no_grad():
        expected = policy.completion_log_probs(policy.encode(texts), owner, tokens, mask)
        actual = loaded.completion_log_probs(loaded.encode(texts), owner, tokens, mask)
    assert torch.equal(actual, expected)
    assert (loaded.eos_id, loaded.pad_id, loaded.context) == (policy.eos_id, policy.pad_id, 40)


def test_the_chat_template_surrounds_the_prompt(tmp_path: Path) -> None:
    policy = make("llama")
    policy.tokenizer.chat_template = CHAT_TEMPLATE
    policy.save(tmp_path)
    chat, plain = load_hf(tmp_path, chat_template=True), load_hf(tmp_path)
    assert torch.equal(chat.encode(["1+2="]).ids, plain.encode(["q 1+2= a "]).ids)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound directory, to be copied and spoilt."""
    directory = tmp_path_factory.mktemp("saved")
    make("llama").save(directory)
    return directory


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def truncate(directory: Path) -> None:
    """Cut the weights short, as a full disk does."""
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def drop_weights(directory: Path) -> None:
    """Leave the config without weights, as a sharded training checkpoint does."""
    (directory / "model.safetensors").unlink()


def rename_weights(directory: Path) -> None:
    """Put a prefix on every tensor's name, as a wrapped model's state does."""
    from safetensors.torch import load_file, save_file

    path = directory / "model.safetensors"
    tensors = {f"wrapped.{name}": tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def widen_config(directory: Path) -> None:
    """Say in the config that the weights have another shape."""
    edit(directory / "config.json", lambda config: config.update(intermediate_size=96))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda directory: shutil.rmtree(directory), ["not a directory"]),
        (lambda directory: (directory / "config.json").unlink(), ["no config.json"]),
        (lambda directory: (directory / "config.json").write_text("{"), ["cannot load"]),
        (lambda directory: (directory / "tokenizer.json").write_text("{"), ["cannot load"]),
        (drop_weights, ["no safetensors weights", "save_pretrained"]),
        (truncate, ["cannot load"]),
        (rename_weights, ["lack 21 tensors", "at random"]),
        (widen_config, ["another shape", "mlp"]),
    ],
    ids=["missing", "no config", "bad config", "bad tokenizer", "no weights", "cut", "renamed", "shape"],
)
def test_a_directory_that_cannot_be_used_is_named(
    saved: Path, tmp_path: Path, spoil: Callable[[Path], None], words: list[str]
) -> None:
    directory = tmp_path / "a model"
    shutil.copytree(saved, directory)
    spoil(directory)
    with pytest.raises(BadInput) as refusal:
        load_hf(directory)
    message = str(refusal.value)
    assert message.startswith("policy.path: ") and str(directory) in message and "\n" not in message
    assert all(word in message for word in words), message


def test_a_file_instead_of_a_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(BadInput, match=r"^policy\.path: .* is not a directory"):
        load_hf(path)


def test_no_path_at_all_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(BadInput, match=r"^policy\.path: give the directory"):
        build_policy_settings(
            {
                "name": "hf",
                "path": None,
                "dtype": "float32",
                "chat_template": False,
                "gradient_checkpointing": False,
            }
        )


@pytest.mark.parametrize("token", ["pad", "eos"])
def test_a_tokenizer_without_a_needed_token_is_refused(saved: Path, tmp_path: Path, token: str) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    setattr(tokenizer, f"{token}_token", None)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=rf"^policy: .* has no {token} token; set {token}_token") as refusal:
        load_hf(tmp_path)
    assert str(tmp_path) in str(refusal.value)


def test_a_chat_template_that_is_not_there_is_refused(saved: Path) -> None:
    with pytest.raises(BadInput, match=r"^policy\.chat_template: .* has none; set it to false"):
        load_hf(saved, chat_template=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, r"policy\.heads: twice 3 must divide width 32"),
        ({"layers": 0}, r"policy\.layers: must be at least 1"),
        ({"depth": 2}, r"policy\.depth: no code reads"),
        ({"name": "scrach"}, r"policy\.name: unknown 'scrach'; did you mean 'scratch'"),
    ],
)
def test_an_impossible_setting_is_refused_by_its_full_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        build_policy_settings({**SCRATCH, **changes})


def make_sft(policy: Policy, max_new_tokens: int, digits: int) -> SFT:
    """An objective on addition."""
    node = {"name": "addition", "prompt": "{expression}=", "held_out_share": 0.1}
    return SFT(
        SFTSettings("sft", 4, "token_mean", None, TokenSignNoise(1.0, 0.0)),
        policy,
        build_task({**node, "digits": digits, "terms": 5}),
        GenerationSettings(max_new_tokens, 1.0),
        EvaluationSettings(2, 1, 1.0),
        ProbeSettings(2, 1),
    )


def test_a_completion_that_could_overflow_the_context_is_refused(policy: Policy) -> None:
    objective = make_sft(policy, max_new_tokens=30, digits=2)  # a prompt of 15 tokens
    message = r"^generation\.max_new_tokens: a prompt of 15 tokens and 30 new ones exceed .* context of 40"
    with pytest.raises(BadInput, match=message):
        objective.evaluate(Draw(0))


def test_a_completion_that_just_fits_the_context_is_sampled(policy: Policy) -> None:
    assert make_sft(policy, max_new_tokens=25, digits=2).evaluate(Draw(0))["correct"].shape == (2, 1)


def test_an_example_longer_than_the_context_is_refused(policy: Policy) -> None:
    objective = make_sft(policy, max_new_tokens=2, digits=6)  # 35 tokens, an answer of 7 and the end
    with pytest.raises(BadInput, match=r"context of 40"):
        objective.collect(0, Draw(0))


def test_recomputed_activations_give_the_same_values_and_gradients(policy: Policy) -> None:
    texts = ["1+2=", "max(3,45)="]
    owner = torch.tensor([0, 0, 1])
    tokens, mask = policy.encode_completions(["3", "12", "45"])
    results = []
    for recompute in (False, True):
        other = copy.deepcopy(policy)
        other.gradient_checkpointing = recompute
        log_probs = other.completion_log_probs(other.encode(texts), owner, tokens, mask)
        log_probs.sum().backward()
        gradients = [value.grad for value in other.model.parameters() if value.grad is not None]
        results.append([log_probs.detach(), *gradients])
    assert len(results[0]) == len(results[1]) > 2
    for kept, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(recomputed, kept, rtol=1e-4, atol=1e-6)


def test_sampling_still_uses_its_cache_when_activations_are_recomputed(policy: Policy) -> None:
    other = copy.deepcopy(policy)
    other.gradient_checkpointing = True
    prompts = other.encode(["1+2="])
    other.completion_log_probs(prompts, torch.tensor([0]), *other.encode_completions(["3"])).sum().backward()
    uniforms = torch.rand(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = (each.sample(each.encode(["1+2="]), uniforms, 1.0) for each in (policy, other))
    assert torch.equal(first.tokens, second.tokens)
    torch.testing.assert_close(first.log_probs, second.log_probs)
