"""A tiny language model under `transformers.Trainer`, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

VOCABULARY = 16

MakeTrainer = Callable[..., Trainer]


class Sentences(Dataset[dict[str, torch.Tensor]]):
    """Random tokens in which the next is often the last plus one."""

    def __init__(self, count: int = 64, length: int = 6) -> None:
        generator = torch.Generator().manual_seed(0)
        start = torch.randint(VOCABULARY, (count, 1), generator=generator)
        self.tokens = (start + torch.arange(length)) % VOCABULARY
        noise = torch.rand(count, length, generator=generator) < 0.3
        self.tokens[noise] = torch.randint(VOCABULARY, (int(noise.sum()),), generator=generator)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def tiny_model(seed: int = 0) -> LlamaForCausalLM:
    """A Llama of a few thousand weights, its embeddings tied."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=16,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


@pytest.fixture
def make_trainer(tmp_path: Path) -> MakeTrainer:
    """Build a quiet trainer; keyword arguments go to its TrainingArguments."""

    def make(*callbacks: TrainerCallback, model: LlamaForCausalLM | None = None, **changes: Any) -> Trainer:
        arguments: dict[str, Any] = {
            "output_dir": str(tmp_path / "trainer"),
            "max_steps": 12,
            "per_device_train_batch_size": 4,
            "learning_rate": 0.01,
            "lr_scheduler_type": "linear",
            "weight_decay": 0.0,
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "logging_strategy": "steps",
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "seed": 3,
        }
        trainer = Trainer(
            model=tiny_model() if model is None else model,
            args=TrainingArguments(**{**arguments, **changes}),
            train_dataset=Sentences(),
            callbacks=list(callbacks),
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    return make
