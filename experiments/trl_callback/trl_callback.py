"""Record TRL's `GRPOTrainer` and re-ground in it, then check what was recorded.

    python experiments/trl_callback/trl_callback.py --run runs/trl/first

It needs a Python that has TRL (1.16) and the lab. The built-in tiny model is trained on two-digit sums for 24 steps, in
blocks of 8 with jumps of 4, once whole and once broken off in the middle of a block and resumed from the trainer's own
checkpoint. Both runs must end in the same weights and hold the same record. The last line says what came out; exit
code 1 where a check fails.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULT = Path(__file__).with_name("result.json")
STEPS, BLOCK, JUMP, SAVED = 24, 8, 4, 12


def problems(count: int) -> tuple[list[str], list[str]]:
    """Return prompts and answers of two-digit sums."""
    from omegaconf import OmegaConf

    from lab.composition import compose
    from lab.draw import Draw
    from lab.tasks import build_task

    config: Any = OmegaConf.to_container(compose("train"), resolve=True)
    task = build_task(config["task"])
    drawn = task.draw("train", count, Draw(0).generator("problem"))
    return [problem.prompt for problem in drawn], [problem.answer for problem in drawn]


def make_trainer(output: Path, run: Path, *callbacks: Any) -> Any:
    """Return the trainer with both callbacks: the two lines that recording and jumping take."""
    import torch
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from lab.integrations import RegroundingCallback, TrajectoryCallback
    from lab.policies.tiny import ASSETS

    disable_progress_bars()
    prompts, answers = problems(64)

    def verify(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        return [float(text.strip() == right) for text, right in zip(completions, answer, strict=True)]

    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(ASSETS, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(ASSETS, padding_side="left"),
        reward_funcs=verify,
        args=GRPOConfig(
            output_dir=str(output),
            max_steps=STEPS,
            per_device_train_batch_size=16,
            num_generations=4,
            max_completion_length=5,
            learning_rate=1e-4,
            logging_steps=1,
            save_strategy="steps",
            save_steps=SAVED,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            report_to="none",
            disable_tqdm=True,
            seed=0,
        ),
        train_dataset=Dataset.from_dict({"prompt": prompts, "answer": answers}),
        callbacks=[
            RegroundingCallback("fixed", block_steps=BLOCK, jump_steps=JUMP),
            TrajectoryCallback(run, every=4),
            *callbacks,
        ],
    )


def main(run: Path) -> int:
    """Run both, compare, and return the exit code."""
    import numpy as np
    import torch
    from transformers import TrainerCallback

    from lab.measurement import measure
    from lab.provenance import provenance
    from lab.trajectory.store import group, open_store

    torch.set_num_threads(1)

    class BreakOff(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == SAVED + 1:
                raise KeyboardInterrupt

    whole = make_trainer(run / "whole_trainer", run / "whole")
    whole.train()
    broken = run / "broken_trainer"
    try:
        make_trainer(broken, run / "broken", BreakOff()).train()
    except KeyboardInterrupt:
        print("broken off", flush=True)
    gc.collect()  # the trainer that was broken off holds the run
    resumed = make_trainer(broken, run / "broken")
    resumed.train(resume_from_checkpoint=str(broken / f"checkpoint-{SAVED}"))

    first, second = open_store(run / "whole"), open_store(run / "broken")
    weights = group(first, "weights")
    steps = weights["step"].values.tolist()
    expected = [step + JUMP * (step // BLOCK) for step in steps]
    pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    checks = {
        "steps": steps == list(range(0, STEPS + 1, 4)),
        "effective steps": weights["effective_step"].values.tolist() == expected,
        "reward recorded": bool(np.isfinite(group(first, "metrics")["reward"].values).all()),
        "resumed record": bool(
            np.array_equal(weights["weight"].values, group(second, "weights")["weight"].values)
        ),
        "resumed weights": all(torch.equal(left, right) for left, right in pairs),
    }
    numbers = measure(run / "whole", flips=19).numbers["weights"]
    for name, held in checks.items():
        print(f"{name}: {'yes' if held else 'NO'}")
    reward = group(first, "metrics")["reward"].values
    result = (
        f"{STEPS} steps of GRPOTrainer recorded: reward {reward[:6].mean():.2f} -> {reward[-6:].mean():.2f}, "
        f"median R² {numbers['r2_median']:.2f} over {numbers['n']} weights; "
        f"{sum(checks.values())} of {len(checks)} hold"
    )
    print(result)
    stored = {
        "result": result,
        "settings": {"steps": STEPS, "block_steps": BLOCK, "jump_steps": JUMP, "saved_at": SAVED, "seed": 0},
        "trl": version("trl"),
        "checks": checks,
        "reward": reward.tolist(),
        "weights": {name: numbers[name] for name in ("n", "r2_median", "null_r2_median", "null_p_value")},
        **provenance(),
    }
    RESULT.write_text(json.dumps(stored, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="directory for the runs")
    sys.exit(main(parser.parse_args().run))
