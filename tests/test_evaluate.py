"""`lab evaluate`: one model as ever, and two checkpoints in output space with alpha chosen and scored apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lab.draw import Draw
from lab.errors import BadInput
from lab.evaluate_settings import OutputSpaceSettings
from lab.evaluation import average_at_k, pass_at_k, pass_rate_interval
from lab.objectives.held_out import evaluate_policy, held_out_problems
from lab.objectives.settings import EvaluationSettings, GenerationSettings
from lab.policies import build_policy_settings, load_policy
from lab.policies.packed_llama import PackedLlama
from lab.policies.tokenizer import build_tokenizer
from lab.settings import build
from lab.tasks import build_task

NOTHING = {
    "checkpoint": None,
    "second": None,
    "alpha": None,
    "alphas": None,
    "temperatures": None,
    "validation_share": 0.5,
}
SMALL = ("evaluation.problems=40", "evaluation.rollouts=4", "k=[1,4]")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The built-in model perturbed, and as it is."""
    place = tmp_path_factory.mktemp("checkpoints")
    later = load_policy(build_policy_settings({"name": "tiny"}), seed=0)
    later.save(place / "later")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in later.model.parameters():
            parameter.add_(0.1 * parameter.std() * torch.randn(parameter.shape, generator=generator))
    later.save(place / "earlier, a=1")
    return place / "earlier, a=1", place / "later"


def summary(name: str) -> dict[str, Any]:
    """Of the run of that name."""
    read: dict[str, Any] = json.loads(Path("runs/evaluate", name, "summary.json").read_text())
    return read


def paths(first: Path, second: Path) -> tuple[str, str]:
    """As they are given on the command line."""
    return f"checkpoint={first}", f"second={second}"


def reference(temperature: float = 1.0) -> np.ndarray:
    """[problem, rollout] of the built-in model, by the evaluation that training runs use."""
    task = build_task(
        {"name": "addition", "prompt": "{expression}=", "held_out_share": 0.1, "digits": 2, "terms": 2}
    )
    evaluation = EvaluationSettings(problems=40, rollouts=4, temperature=temperature)
    draw = Draw(0)
    return evaluate_policy(
        load_policy(build_policy_settings({"name": "tiny"}), seed=0),
        task,
        held_out_problems(task, evaluation, draw),
        GenerationSettings(max_new_tokens=5, temperature=1.0),
        evaluation,
        draw,
    )["correct"]


def test_one_model_scores_what_a_training_run_would_record(lab: Callable[..., Any]) -> None:
    assert lab("evaluate", "name=a", *SMALL).code == 0
    correct = reference()
    found = summary("a")
    assert found["avg@4"] == average_at_k(correct)
    assert found["interval_half_width"] == float(pass_rate_interval(correct))
    assert found["pass@4"] == pass_at_k(correct, 4)
    keys = ["schema_version", "avg@4", "interval_half_width", "pass@1", "pass@4", "problems", "unjudged"]
    assert list(found) == [*keys, "wall_clock_s", "peak_rss_mb", "gpu", "peak_gpu_mb", "result"]


def test_the_ends_of_the_line_are_the_checkpoints(
    lab: Callable[..., Any], checkpoints: tuple[Path, Path]
) -> None:
    earlier, later = checkpoints
    assert lab("evaluate", "name=later", f"checkpoint={later}", *SMALL).code == 0
    assert lab("evaluate", "name=earlier", f"checkpoint={earlier}", *SMALL).code == 0
    for alpha, alone in ((0, "earlier"), (1, "later")):
        assert lab("evaluate", f"name=at{alpha}", *paths(earlier, later), f"alpha={alpha}", *SMALL).code == 0
        for key in ("avg@4", "pass@1", "pass@4", "interval_half_width"):
            assert summary(f"at{alpha}")[key] == summary(alone)[key]
    assert summary("later")["avg@4"] == average_at_k(reference()), (
        "the built-in model, written and read again"
    )
    assert summary("earlier")["avg@4"] != summary("later")["avg@4"]


def test_alpha_and_temperature_are_chosen_and_scored_on_different_problems(
    lab: Callable[..., Any], checkpoints: tuple[Path, Path]
) -> None:
    outcome = lab(
        "evaluate", "name=both", *paths(*checkpoints), "alphas=[1,0.5,2]", "temperatures=[0,1,0.5]", *SMALL
    )
    assert outcome.code == 0, outcome.err
    found = summary("both")
    assert found["problems"] == found["validation_problems"] + found["test_problems"] == 40
    ours, baseline, last = found["extrapolated"], found["temperature_tuned"], found["last"]
    for arm in (ours, baseline):
        best = max(point["validation"] for point in arm["curve"])
        chosen = [
            p for p in arm["curve"] if (p["alpha"], p["temperature"]) == (arm["alpha"], arm["temperature"])
        ]
        assert chosen[0]["validation"] == best
        assert arm["budget"]["candidates"] == 3
        assert arm["budget"]["validation_completions"] == 3 * 4 * found["validation_problems"]
    assert [point["temperature"] for point in baseline["curve"]] == [0, 1, 0.5]
    assert {point["alpha"] for point in baseline["curve"]} == {1.0}
    # of 0.5, 1 and 2, two run both models
    tokens = ours["budget"]["validation_tokens"], ours["budget"]["validation_token_passes"]
    assert tokens[0] < tokens[1] < 2 * tokens[0]
    assert baseline["budget"]["validation_tokens"] == baseline["budget"]["validation_token_passes"]
    # validation and test together are the whole: the plain model's rates add up to the plain evaluation
    plain = next(point["validation"] for point in ours["curve"] if point["alpha"] == 1)
    whole = plain * found["validation_problems"] + last["avg@4"] * found["test_problems"]
    assert whole == pytest.approx(40 * average_at_k(reference()))
    gap = found["difference_to_temperature_tuned"]
    assert gap["estimate"] == pytest.approx(ours["avg@4"] - baseline["avg@4"])
    assert gap["low"] <= gap["estimate"] <= gap["high"]
    relative = found["difference_to_last_relative"]["estimate"]
    assert relative == pytest.approx(ours["avg@4"] / last["avg@4"] - 1)
    assert f"alpha {ours['alpha']:g} chosen on" in outcome.last_line


def test_top_p_reaches_the_sampling(lab: Callable[..., Any]) -> None:
    """A nucleus of one token is greedy decoding."""
    assert lab("evaluate", "name=cut", "evaluation.top_p=1e-9", *SMALL).code == 0
    assert lab("evaluate", "name=greedy", "evaluation.temperature=0", *SMALL).code == 0
    assert summary("cut")["avg@4"] == summary("greedy")["avg@4"] == average_at_k(reference(0.0))


def test_a_dry_run_counts_completions(lab: Callable[..., Any], checkpoints: tuple[Path, Path]) -> None:
    outcome = lab("evaluate", *paths(*checkpoints), "alphas=[1,2]", "dry_run=true", *SMALL)
    assert outcome.code == 0 and str(4 * (20 * 4 + 3 * 20)) in outcome.out and not Path("runs").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alpha": 2}, "alpha: needs second=DIR"),
        ({"temperatures": [1]}, "temperatures: needs second=DIR"),
        ({"second": "x"}, "give either alpha=NUMBER, or alphas="),
        ({"second": "x", "alpha": 1, "alphas": [1]}, "give either"),
        ({"second": "x", "alpha": float("nan")}, "alpha: expected a finite number"),
        ({"second": "x", "alpha": 1e39}, "alpha: 1e+39 overflows"),
        ({"second": "x", "alphas": [1, 1e39]}, "alphas: cannot hold 1e+39"),
        ({"second": "x", "alphas": []}, "alphas: must name at least one"),
        ({"second": "x", "alphas": [1, 1]}, "alphas: names a value twice"),
        ({"second": "x", "alpha": 1, "temperatures": [1]}, "temperatures: goes together with alphas"),
        ({"second": "x", "alphas": [1, 2], "temperatures": [1, -1]}, "temperatures: cannot hold -1"),
        ({"second": "x", "alphas": [1], "validation_share": 1}, "validation_share: must lie in (0, 1)"),
        ({"checkpoint": ""}, "checkpoint: name a directory"),
    ],
)
def test_impossible_settings_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        build(OutputSpaceSettings, {**NOTHING, **given})
    assert message in str(refused.value)


def test_the_baseline_gets_the_temperatures_that_a_flat_first_model_would_make_of_the_alphas() -> None:
    settings = build(OutputSpaceSettings, {**NOTHING, "second": "x", "alphas": [0.5, 1, 2]})
    assert settings.baseline_temperatures(0.8) == (0.4, 0.8, 1.6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["second=x", "alphas=[1,2]", "temperatures=[1]"], "temperatures: 1 for 2 alphas"),
        (["second=x", "alphas=[0,2]"], "temperatures: name them"),
        (["second=x", "alphas=[1,2]", "evaluation.temperature=0"], "temperatures: name them"),
        (["evaluation.top_p=0"], "evaluation.top_p: must lie in (0, 1]"),
        (["checkpoint=./nowhere"], "checkpoint: nowhere is not a directory"),
        (["second=./nowhere", "alpha=2"], "second: nowhere is not a directory"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    lab: Callable[..., Any], words: list[str], message: str
) -> None:
    outcome = lab("evaluate", *words)
    assert outcome.code == 2 and message in outcome.err
    assert not list(Path().glob("runs/evaluate/*"))


def test_what_shows_only_while_decoding_is_refused_too(
    lab: Callable[..., Any], checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:
    earlier, later = checkpoints
    outcome = lab("evaluate", *paths(earlier, later), "alpha=3e38", *SMALL)
    assert outcome.code == 2 and "overflows float32" in outcome.err
    outcome = lab("evaluate", *paths(earlier, later), "alphas=[1]", "evaluation.problems=1", "k=[1]")
    assert outcome.code == 2 and "validation_share: of 1 held-out problems" in outcome.err
    other = load_policy(build_policy_settings({"name": "tiny"}), seed=0)
    other.save(tmp_path / "other")
    longer = build_tokenizer(64)
    longer.add_tokens(["<think>"])
    longer.save_pretrained(tmp_path / "other")
    outcome = lab("evaluate", f"second={tmp_path / 'other'}", "alpha=2", *SMALL)
    assert outcome.code == 2 and "incompatible vocabularies" in outcome.err and "<think>" in outcome.err
    assert not list(Path().glob("runs/evaluate/*"))


# ---- device and precision ---------------------------------------------------------------------------


def test_an_evaluation_is_computed_in_the_precision_asked_for(
    lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    types = []
    step = PackedLlama.step

    def stepping(packed: PackedLlama, *arguments: Any) -> torch.Tensor:
        types.append(packed.dtype)
        return step(packed, *arguments)

    monkeypatch.setattr(PackedLlama, "step", stepping)
    assert lab("evaluate", "name=full", *SMALL).code == 0
    assert set(types) == {torch.float32}
    assert lab("evaluate", "name=mixed", "trainer.precision=bf16-mixed", *SMALL).code == 0
    assert types[-1] == torch.bfloat16
    rates = [summary(name)["avg@4"] for name in ("full", "mixed")]
    # The same uniforms: only completions close to an edge differ, where bfloat16 has moved it.
    assert rates[1] == pytest.approx(rates[0], abs=0.1)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trainer.devices=2", "trainer.strategy=ddp"], ["trainer.devices", "one process"]),
        (["trainer.strategy=fsdp"], ["trainer.strategy", "auto"]),
        pytest.param(
            ["trainer=gpu"],
            ["trainer.devices", "0 found", "trainer=cpu"],
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_a_device_that_cannot_be_used_is_refused(
    lab: Callable[..., Any], assert_refused: Callable[..., None], words: list[str], parts: list[str]
) -> None:
    assert_refused(lab("evaluate", *SMALL, *words), parts)
    assert not list(Path().glob("runs/evaluate/*"))
