"""Re-grounding and its baselines on synthetic objectives, against laws and against loops written by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lab.trajectory.store import group, open_store
from theory.forecast_error import (
    reground_block_mean,
    reground_block_variance,
    reground_contraction,
    reground_curved_variance,
)

Run = Callable[..., Any]
RATE = 0.1


@pytest.fixture
def train(lab: Callable[..., Any], tmp_path: Path) -> Run:
    """Train a quadratic by SGD and return its store; every step is recorded."""

    def call(*words: str) -> Any:
        common = (
            "objective=quadratic",
            "optimizer=sgd",
            f"optimizer.learning_rate={RATE}",
            "name=a",
            "clean=true",
        )
        quiet = ("logger=none", "recorder.every=1", "recorder.save_every=100", "objective.coordinates=1")
        done = lab("train", *common, *quiet, *words)
        assert done.code == 0, done.err
        return open_store(tmp_path / "runs" / "train" / "a")

    return call


def path_of(tree: Any) -> np.ndarray:
    """Weights [step, replicate]."""
    values: np.ndarray = group(tree, "weights")["weight"].values.astype(np.float64)
    return values


def test_a_block_of_linear_drift_has_the_mean_and_variance_of_the_scaled_rate(train: Run) -> None:
    m, n, replicates, slope, noise = 5, 7, 20_000, 0.3, 2.0
    tree = train(
        f"steps={m}",
        "regrounding=fixed",
        f"regrounding.block_steps={m}",
        f"regrounding.jump_steps={n}",
        f"objective.replicates={replicates}",
        "objective.spectrum.largest=0",
        f"objective.slope={slope}",
        f"objective.noise={noise}",
    )
    weights = path_of(tree)
    moved = weights[-1] - weights[0]
    variance = float(reground_block_variance(m, n, RATE * noise))
    assert abs(moved.mean() - reground_block_mean(m, n, -RATE * slope)) < 4 * (variance / replicates) ** 0.5
    assert abs(moved.var() / variance - 1) < 4 * (2 / replicates) ** 0.5
    assert group(tree, "weights")["effective_step"].values.tolist() == [0, 1, 2, 3, 4, m + n]


@pytest.mark.parametrize(("kind", "damping"), [("fixed", 1.0), ("fixed", 0.5), ("decaying", 1.0)])
def test_blocks_contract_a_bowl_as_theory_says(train: Run, kind: str, damping: float) -> None:
    m, n, curvature, blocks, factor = 4, 6.0, 0.8, 3, 0.5
    words = (f"steps={m * blocks}", f"regrounding={kind}", f"regrounding.block_steps={m}")
    more = (f"regrounding.jump_steps={n}", f"regrounding.damping={damping}", "objective.noise=0")
    own = (f"regrounding.factor={factor}",) if kind == "decaying" else ()
    tree = train(*words, *more, *own, f"objective.spectrum.largest={curvature}", "objective.start=3.0")
    weights = path_of(tree)[:, 0]
    rho = 1 - RATE * curvature
    jumps = [n * factor**block if kind == "decaying" else n for block in range(blocks)]
    expected = 3.0
    for block, jump in enumerate(jumps):
        kept = rho**m - damping * jump / m * (1 - rho**m)
        if damping == 1.0 and jump == int(jump):
            assert kept == pytest.approx(float(reground_contraction(rho, m, int(jump))))
        expected *= kept
        assert weights[m * (block + 1)] == pytest.approx(expected, rel=1e-5)
    metrics = group(tree, "metrics")
    at_ends = metrics["regrounding__jump_steps"].values[m - 1 :: m]
    np.testing.assert_allclose(at_ends, jumps)
    assert np.isnan(metrics["regrounding__jump_steps"].values).sum() == m * blocks - blocks
    assert group(tree, "weights")["effective_step"].values[-1] == pytest.approx(m * blocks + sum(jumps))


def test_the_variance_of_a_block_in_a_bowl(train: Run) -> None:
    m, n, curvature, noise, replicates = 4, 6, 1.5, 1.0, 20_000
    words = (f"steps={m}", "regrounding=fixed", f"regrounding.block_steps={m}", f"regrounding.jump_steps={n}")
    tree = train(
        *words,
        f"objective.replicates={replicates}",
        f"objective.noise={noise}",
        f"objective.spectrum.largest={curvature}",
    )
    expected = float(reground_curved_variance(1 - RATE * curvature, m, n, RATE * noise))
    assert abs(path_of(tree)[-1].var() / expected - 1) < 4 * (2 / replicates) ** 0.5


BOWL = (
    "objective.noise=0",
    "objective.replicates=1",
    "objective.spectrum.largest=0.8",
    "objective.start=3.0",
)


def descend(weight: float, steps: int) -> float:
    """Plain descent in the bowl above."""
    return float(weight * (1 - RATE * 0.8) ** steps)


def test_lookahead_is_slow_weights_that_follow(train: Run) -> None:
    words = ("regrounding=lookahead", "regrounding.block_steps=3", "regrounding.alpha=0.5")
    weights = path_of(train("steps=9", *words, *BOWL))[:, 0]
    slow = 3.0
    for end in (3, 6, 9):
        slow = slow + 0.5 * (descend(slow, 3) - slow)
        assert weights[end] == pytest.approx(slow, rel=1e-5)
        assert weights[end - 1] == pytest.approx(descend(weights[end - 3], 2), rel=1e-5)


def test_outer_nesterov_is_torchs_sgd_on_the_displacements(train: Run) -> None:
    words = ("regrounding=outer_nesterov", "regrounding.block_steps=3")
    more = ("regrounding.outer_learning_rate=1.3", "regrounding.outer_momentum=0.6")
    tree = train("steps=12", *words, *more, *BOWL)
    weights = path_of(tree)[:, 0]
    slow = torch.nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    outer = torch.optim.SGD([slow], lr=1.3, momentum=0.6, nesterov=True)
    for end in (3, 6, 9, 12):
        start = float(slow.detach())
        slow.grad = torch.tensor([start - descend(start, 3)], dtype=torch.float64)
        outer.step()
        assert weights[end] == pytest.approx(float(slow.detach()), rel=1e-5)
    assert group(tree, "weights")["effective_step"].values[-1] == 12


def test_an_outer_rate_of_one_without_momentum_is_plain_training_to_rounding(train: Run) -> None:
    words = (
        "regrounding=outer_nesterov",
        "regrounding.outer_learning_rate=1.0",
        "regrounding.outer_momentum=0.0",
    )
    noisy = ("steps=8", "objective.replicates=32", "objective.start=3.0")
    moved = path_of(train(*noisy, *words, "regrounding.block_steps=2"))
    np.testing.assert_allclose(moved, path_of(train(*noisy)), rtol=1e-6, atol=1e-6)


def test_the_first_update_times_alpha_happens_once(train: Run) -> None:
    weights = path_of(train("steps=5", "regrounding=first_update", "regrounding.alpha=6", *BOWL))[:, 0]
    assert weights[1] == pytest.approx(3.0 + 6 * (descend(3.0, 1) - 3.0), rel=1e-5)
    for step in range(1, 5):
        assert weights[step + 1] == pytest.approx(descend(weights[step], 1), rel=1e-5)


ADAM = ("optimizer=adamw", "optimizer.learning_rate=0.05", "optimizer.weight_decay=0.0")


def adam_loop(steps: int, every: int, jump: float, rule: str) -> tuple[list[float], torch.optim.AdamW]:
    """The bowl by torch's AdamW, with a jump and its rule for the moments at the ends of blocks."""
    weight = torch.nn.Parameter(torch.tensor([3.0]))

    def new() -> torch.optim.AdamW:
        return torch.optim.AdamW([weight], lr=0.05, weight_decay=0.0, fused=True)

    optimizer, path, start = new(), [3.0], 3.0
    for step in range(1, steps + 1):
        weight.grad = 0.8 * weight.detach()
        optimizer.step()
        if step % every == 0:
            with torch.no_grad():
                weight.add_(jump / every * (weight - start))
            if rule == "reset":
                optimizer = new()
            if rule == "rescale":
                optimizer.state[weight]["exp_avg"] *= 0.9**jump
            start = float(weight.detach())
        path.append(float(weight.detach()))
    return path, optimizer


@pytest.mark.parametrize("rule", ["keep", "reset", "rescale"])
def test_what_becomes_of_adams_moments_at_a_jump(train: Run, rule: str) -> None:
    words = ("regrounding=fixed", "regrounding.block_steps=3", "regrounding.jump_steps=4")
    tree = train("steps=8", *words, f"regrounding.optimizer_state={rule}", *BOWL, *ADAM)
    path, optimizer = adam_loop(8, 3, 4.0, rule)
    np.testing.assert_allclose(path_of(tree)[:, 0], path, rtol=1e-6)
    last = group(tree, "weights").isel(step=-1, param=0)
    state = next(iter(optimizer.state.values()))
    assert float(last["first_moment"]) == pytest.approx(float(state["exp_avg"]), rel=1e-5)
    # Where zero gradients would lead, by running on with them: after a reset Adam counts from zero.
    (weight,) = optimizer.param_groups[0]["params"]
    second = float(state["exp_avg_sq"]) / (1 - 0.999 ** int(state["step"]))
    rest, first = float(weight.detach()), float(state["exp_avg"])
    for later in range(1, 400):
        first *= 0.9
        rest -= 0.05 * first / (1 - 0.9 ** (int(state["step"]) + later)) / (second**0.5 + 1e-8)
    assert float(last["momentum_free"]) == pytest.approx(rest, rel=1e-4)


def test_adam_reset_alone_leaves_the_weights_where_they_are(train: Run) -> None:
    words = ("regrounding=adam_reset", "regrounding.block_steps=3")
    tree = train("steps=8", *words, *BOWL, *ADAM)
    np.testing.assert_allclose(path_of(tree)[:, 0], adam_loop(8, 3, 0.0, "reset")[0], rtol=1e-6)
    plain = path_of(train("steps=8", *BOWL, *ADAM))[:, 0]
    np.testing.assert_array_equal(path_of(tree)[:4, 0], plain[:4])
    assert abs(path_of(tree)[-1, 0] - plain[-1]) > 1e-3


def test_a_jump_to_infinity_is_taken_back_and_the_run_goes_on_as_if_it_had_not_been(
    train: Run,
) -> None:
    noisy = ("steps=10", "objective.replicates=8", *ADAM)
    plain = train(*noisy)
    words = ("regrounding=fixed", "regrounding.block_steps=4", "regrounding.jump_steps=1e41")
    tree = train(*noisy, *words, "regrounding.optimizer_state=reset")
    np.testing.assert_array_equal(path_of(tree), path_of(plain))
    metrics = group(tree, "metrics")
    assert metrics["regrounding__not_finite"].values[[3, 7]].tolist() == [1, 1]
    assert metrics["regrounding__accepted"].values[[3, 7]].tolist() == [0, 0]
    assert group(tree, "weights")["effective_step"].values[-1] == 10


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("regrounding=fixed", "regrounding.block_steps=0"), ["regrounding.block_steps", "at least 1"]),
        (("regrounding=fixed", "regrounding.jump_steps=-3"), ["regrounding.jump_steps", "positive"]),
        (
            ("regrounding=fixed", "regrounding.optimizer_state=drop"),
            ["regrounding.optimizer_state", "'drop'"],
        ),
        (("regrounding=fixed", "+regrounding.factor=1"), ["regrounding.factor", "no code reads"]),
        (("regrounding=fixed", "regrounding.norm_cap=0"), ["regrounding.norm_cap", "positive"]),
        (("regrounding=decaying", "regrounding.factor=1.5"), ["regrounding.factor", "(0, 1]"]),
        (("regrounding=adaptive", "regrounding.shrink=1"), ["regrounding.shrink", "(0, 1)"]),
        (
            ("regrounding=adaptive", "regrounding.jump_steps=999"),
            ["regrounding.jump_steps", "largest_jump=200"],
        ),
        (
            ("regrounding=adaptive", "regrounding.reward_check.problems=1"),
            ["reward_check.problems", "at least 2"],
        ),
        (("regrounding=lookahead", "regrounding.alpha=0"), ["regrounding.alpha", "positive"]),
        (("regrounding=outer_nesterov", "regrounding.outer_momentum=1"), ["outer_momentum", "[0, 1)"]),
        (("regrounding=adam_reset", "regrounding.optimizer_state=keep"), ["optimizer_state", "reset"]),
        (("regrounding=first_update", "regrounding.alpha=1"), ["regrounding.alpha", "above 1"]),
        (("regrounding=first_update", "regrounding.until_step=9"), ["regrounding.until_step", "one jump"]),
        (("regrounding=checkpoint_average", "regrounding.decay=0.9"), ["regrounding.decay", "does not read"]),
        (("regrounding=checkpoint_average", "regrounding.count=null"), ["regrounding.count", "needs it"]),
        (("regrounding.name=no",), ["regrounding.name", "unknown 'no'", "adaptive"]),
        (("regrounding=adaptive", "objective=quadratic"), ["regrounding.name", "couple independent runs"]),
        (
            ("regrounding=fixed", "regrounding.norm_cap=1", "objective=quadratic"),
            ["regrounding.norm_cap", "couple independent runs"],
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    lab: Callable[..., Any], tmp_path: Path, words: tuple[str, ...], parts: list[str]
) -> None:
    done = lab("train", *words)
    assert done.code == 2
    assert all(part in done.err for part in parts), done.err
    assert not (tmp_path / "runs").exists()
