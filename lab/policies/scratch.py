"""A small Llama-architecture model with random weights: where the built-in policy came from."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lab.draw import stable_hash
from lab.policies.policy import Policy
from lab.policies.settings import ScratchSettings
from lab.policies.tokenizer import build_tokenizer


def load(settings: ScratchSettings, seed: int) -> Policy:
    """Build the model from `settings`; `seed` decides its weights."""
    tokenizer = build_tokenizer(settings.context)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=settings.mlp_width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_hash("init", seed) % 2**63)
        model = LlamaForCausalLM(config)
    return Policy(model, tokenizer, source="scratch")
