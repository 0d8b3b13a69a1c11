"""TRL's side of the GRPO benchmark: a script for the Python of the peers' environment.

It takes the path of a JSON file (see `lab.bench.grpo_step`) and imports nothing of the lab but the clock
that lies beside it. Nothing is logged or saved; TRL generates within its training step, so a step lasts from
the end of one to the end of the next.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))  # last: nothing here may hide a library

from pace import Pace, claim_stdout

_NUMBER = re.compile(r"-?[0-9](?:[0-9,]*[0-9])?(?:\.[0-9]+)?")


def _answer(completion: str, kind: str) -> str:
    """The answer that a completion gives: all of it, or its last number."""
    if kind == "exact":
        return completion.strip()
    numbers = _NUMBER.findall(completion)
    return numbers[-1].replace(",", "") if numbers else ""


def main(path: str) -> None:
    """Train as the file says, block by block as the parent asks."""
    channel = claim_stdout()
    given = json.loads(Path(path).read_text(encoding="utf-8"))

    import torch

    torch.set_num_threads(given["threads"])
    from importlib.metadata import version

    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    disable_progress_bars()
    rewards: list[float] = []
    lengths: list[float] = []
    rows = given["prompts"] * given["rollouts"]

    def verify(
        completions: list[str], completion_ids: list[list[int]], answer: list[str], **_: Any
    ) -> list[float]:
        pairs = zip(completions, answer, strict=True)
        found = [float(_answer(text, given["answer"]) == right) for text, right in pairs]
        rewards.append(sum(found) / len(found))
        lengths.append(sum(map(len, completion_ids)) / len(completion_ids))
        return found

    def begin(mode: str) -> None:
        rewards.clear()
        lengths.clear()

    def end(mode: str, steps: int) -> dict[str, Any]:
        return {"reward": sum(rewards) / len(rewards), "length": sum(lengths) / len(lengths)}

    class Steps(TrainerCallback):
        def __init__(self, pace: Pace) -> None:
            self.pace = pace

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.pace.step_done()

    tokenizer = AutoTokenizer.from_pretrained(given["model"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32)
    optimizer = given["optimizer"]
    arguments = GRPOConfig(
        output_dir=given["directory"],
        max_steps=given["steps"],
        per_device_train_batch_size=given["rows_at_a_time"],
        gradient_accumulation_steps=rows // given["rows_at_a_time"],
        num_generations=given["rollouts"],
        num_iterations=1,
        max_completion_length=given["max_new_tokens"],
        temperature=given["temperature"],
        top_p=1.0,
        top_k=0,
        beta=0.0,
        epsilon=given["clip_low"],
        epsilon_high=given["clip_high"],
        loss_type="grpo",
        scale_rewards="group",
        shuffle_dataset=False,
        optim="adamw_torch_fused",
        learning_rate=optimizer["learning_rate"],
        adam_beta1=optimizer["beta1"],
        adam_beta2=optimizer["beta2"],
        adam_epsilon=optimizer["epsilon"],
        weight_decay=optimizer["weight_decay"],
        max_grad_norm=optimizer["clip_norm"],
        lr_scheduler_type="constant",
        warmup_steps=0,
        use_cpu=given["device"] == "cpu",
        bf16=given["device"] == "gpu",
        fp16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=given["seed"],
    )
    problems = given["problems"]
    prompts = [prompt for prompt, _ in problems]
    if given["chat"]:
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
        prompts = [
            tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns
        ]
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=verify,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": prompts, "answer": [answer for _, answer in problems]}),
    )
    packages = ("torch", "transformers", "trl", "accelerate", "datasets")
    ready = {"versions": {name: version(name) for name in packages}, "threads": torch.get_num_threads()}
    settle = {"settle": torch.cuda.synchronize} if given["device"] == "gpu" else {}
    pace = Pace(channel, given["warmup"], ready, begin, end, **settle)
    trainer.add_callback(Steps(pace))
    trainer.train()


if __name__ == "__main__":
    main(sys.argv[1])
