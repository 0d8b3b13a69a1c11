"""`lab evaluate`: avg@k and pass@k of a policy on held-out problems."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from lab.errors import BadInput
from lab.objectives.settings import EvaluationSettings, GenerationSettings
from lab.policies import build_policy_settings
from lab.process import peak_memory_mb, seconds_since_start
from lab.runs import open_run
from lab.settings import build, whole_number
from lab.tasks import build_task
from lab.verbs.train import RUN_KEYS, is_dry_run, print_table, refuse_unread_keys, run_settings


def run(config: DictConfig) -> str:
    """Evaluate and return the one-line result.

    Raises:
        BadInput: an impossible value, or a policy that cannot be loaded.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    known = (*RUN_KEYS, "seed", "threads", "dry_run", "policy", "task", "generation", "evaluation", "k")
    refuse_unread_keys(resolved, known)
    whole_number(resolved["seed"], "seed", least=0)
    policy_settings = build_policy_settings(resolved["policy"])
    task = build_task(resolved["task"])
    generation = build(GenerationSettings, resolved["generation"], "generation")
    evaluation = build(EvaluationSettings, resolved["evaluation"], "evaluation")
    if not isinstance(resolved["k"], list):
        raise BadInput(f"k: expected a list such as [1,4], got {resolved['k']!r}")
    for k in resolved["k"]:
        if type(k) is not int or not 1 <= k <= evaluation.rollouts:
            raise BadInput(f"k: each must be 1 to evaluation.rollouts={evaluation.rollouts}, got {k!r}")
    if is_dry_run(resolved):
        print_table({"completions": evaluation.problems * evaluation.rollouts})
        return "dry run: nothing was computed"
    with open_run(run_settings(resolved, "evaluate"), resolved) as held:
        from lab.draw import Draw
        from lab.evaluation import average_at_k, pass_at_k, pass_rate_interval
        from lab.objectives.held_out import evaluate_policy, held_out_problems
        from lab.policies import load_policy

        policy = load_policy(policy_settings, resolved["seed"])
        draw = Draw(resolved["seed"])
        problems = held_out_problems(task, evaluation, draw)
        found = evaluate_policy(policy, task, problems, generation, evaluation, draw)
        correct = found["correct"]
        rate, half = average_at_k(correct), float(pass_rate_interval(correct))
        interval = (
            f" ± {half:.3f} (95 % over {len(correct)} problems)"
            if half == half
            else ", one problem: no interval"
        )
        result = f"avg@{evaluation.rollouts} {rate:.3f}{interval}"
        summary = {
            f"avg@{evaluation.rollouts}": rate,
            "interval_half_width": half,
            **{f"pass@{k}": pass_at_k(correct, k) for k in resolved["k"]},
            "problems": len(correct),
            "unjudged": int((correct != correct).sum()),
            "wall_clock_s": seconds_since_start(),
            "peak_rss_mb": peak_memory_mb(),
            "result": result,
        }
        held.write_summary(summary)
        held.finish()
        print_table({name: value for name, value in summary.items() if name != "result"})
        return f"{held.path}: {result}"
