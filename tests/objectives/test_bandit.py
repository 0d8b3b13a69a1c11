"""The softmax bandit, every outcome enumerated: a replicate is one outcome, and expectations are weighted sums."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lab.draw import Draw
from lab.objectives.bandit import Bandit
from lab.objectives.synthetic import SyntheticBatch
from theory import finite_group, gradient_noise, grpo_drift, reward_flips

Make = Callable[..., Any]
TOLERANCE = 2e-6  # float32 gradients of size about .1

CONTEXTS, ACTIONS = 2, 3
RIGHT = [1, 2]
TABLE = dict(
    contexts=CONTEXTS,
    actions=ACTIONS,
    right_actions=RIGHT,
    initial_pass_rate={"lowest": 0.2, "highest": 0.7},
    logit_spread=0.8,
    advantage_epsilon=0.0,
)


def probabilities(bandit: Bandit) -> NDArray[np.float64]:
    """The policy at the start, [context, action]."""
    result: NDArray[np.float64] = torch.softmax(bandit.values[0][0].double(), -1).numpy()
    return result


def scores(bandit: Bandit) -> tuple[NDArray[np.float64], ...]:
    """By definition: pass rate [context], v_R and v_W, and traces of the scores' covariances given each."""
    pi = probabilities(bandit)
    score = np.eye(ACTIONS) - pi[:, None, :]  # [context, action, coordinate]
    right = np.arange(ACTIONS) < np.array(RIGHT)[:, None]
    found = []
    for mask in (right, ~right):
        weight = pi * mask / (pi * mask).sum(1, keepdims=True)
        mean = (weight[..., None] * score).sum(1)
        trace = (weight * ((score - mean[:, None]) ** 2).sum(-1)).sum(1)
        found += [mean, trace]
    v_right, t_right, v_wrong, t_wrong = found
    return (pi * right).sum(1), v_right, v_wrong, t_right, t_wrong


def moments(
    synthetic: Make,
    scripted: type,
    group: int,
    prompts: int = 1,
    flip: tuple[float, float] | None = None,
    **keys: Any,
) -> tuple[Bandit, NDArray[np.float64], float]:
    """The exact mean gradient [context, action] and the trace of its covariance, by listing every outcome."""
    each = list(
        itertools.product(
            range(CONTEXTS), *([range(ACTIONS)] * group), *([range(2)] * (group if flip else 0))
        )
    )
    outcomes = np.array(list(itertools.product(each, repeat=prompts)))  # [outcome, prompt, part]
    if flip:
        keys["flips"] = {"false_positive": flip[0], "false_negative": flip[1], "per": "rollout"}
    bandit = synthetic("bandit", **TABLE, replicates=len(outcomes), prompts=prompts, rollouts=group, **keys)
    pi = probabilities(bandit)
    context, action = outcomes[..., 0], outcomes[..., 1 : 1 + group]
    middles = np.cumsum(pi, 1) - pi / 2
    weight = (pi[context[..., None], action].prod(-1) / CONTEXTS).prod(-1)
    given = {"prompt": (context + 0.5) / CONTEXTS, "rollout": middles[context[..., None], action]}
    if flip:
        flipped = outcomes[..., 1 + group :]
        rate = np.where(action < np.array(RIGHT)[context][..., None], flip[1], flip[0])
        weight = weight * np.where(flipped, rate, 1 - rate).prod(-1).prod(-1)
        given["reward_flip"] = np.where(flipped, 0.0, 1 - 2.0**-24)
    assert weight.sum() == pytest.approx(1, abs=1e-12)
    out = [torch.empty_like(bandit.values[0])]
    bandit.gradients(SyntheticBatch(0, scripted(**given)), out)
    gradient = out[0].double().numpy()
    mean = np.einsum("o,oca->ca", weight, gradient)
    trace = float(weight @ (gradient**2).sum((1, 2)) - (mean**2).sum())
    return bandit, mean, trace


@pytest.mark.parametrize("scale", ["std", "unbiased_std", "none"])
@pytest.mark.parametrize("group", [2, 4])
def test_mean_and_variance_over_all_outcomes_are_those_of_theory(
    synthetic: Make, scripted: type, scale: Any, group: int
) -> None:
    bandit, mean, trace = moments(synthetic, scripted, group, advantage_scale=scale)
    rate, right, wrong, t_right, t_wrong = scores(bandit)
    each = finite_group.group_coefficient(rate, group, scale)[:, None] * (right - wrong)
    np.testing.assert_allclose(mean, -each / CONTEXTS, rtol=0, atol=TOLERANCE)
    gap = np.linalg.norm(right - wrong, axis=1)
    within = gradient_noise.within_trace(rate, group, gap, t_right, t_wrong, scale)
    between = (each**2).sum() / CONTEXTS - ((each / CONTEXTS) ** 2).sum()
    expected = gradient_noise.noise_trace(between, within.mean(), 1)
    assert trace == pytest.approx(float(expected), rel=1e-5)
    # The objective's own closed form, which the recorder keeps.
    found = bandit.mechanism()
    update = bandit.expected_update(0, bandit.values[0].double().numpy())
    np.testing.assert_allclose(update[0], -mean, rtol=0, atol=TOLERANCE)
    assert found["drift_square"][0, 0] == pytest.approx((mean**2).sum(), rel=1e-4)
    np.testing.assert_allclose(found["gap_square"][0, 0], gap**2, rtol=1e-5)
    np.testing.assert_allclose(found["right_score_square"][0, 0], (right**2).sum(1), rtol=1e-5)
    np.testing.assert_allclose(found["wrong_score_square"][0, 0], (wrong**2).sum(1), rtol=1e-5)


def test_more_prompts_divide_the_variance(synthetic: Make, scripted: type) -> None:
    _, mean_1, trace_1 = moments(synthetic, scripted, 2, prompts=1)
    _, mean_2, trace_2 = moments(synthetic, scripted, 2, prompts=2)
    np.testing.assert_allclose(mean_2, mean_1, rtol=0, atol=TOLERANCE)
    assert trace_2 == pytest.approx(trace_1 / 2, rel=1e-5)


@pytest.mark.parametrize("flip", [None, (0.2, 0.3)])
def test_the_scale_of_the_batch_lets_prompts_share_a_factor(
    synthetic: Make, scripted: type, flip: tuple[float, float] | None
) -> None:
    bandit, mean, _ = moments(synthetic, scripted, 2, prompts=2, advantage_scale="batch", flip=flip)
    update = bandit.expected_update(0, bandit.values[0][:1].double().numpy())
    np.testing.assert_allclose(update[0], -mean, rtol=0, atol=TOLERANCE)
    assert np.abs(mean).max() > 0.02


@pytest.mark.parametrize("flip", [(0.2, 0.2), (0.1, 0.4), (0.6, 0.7)])
def test_fresh_flips_scale_each_prompts_update_as_theory_says(
    synthetic: Make, scripted: type, flip: tuple[float, float]
) -> None:
    bandit, mean, _ = moments(synthetic, scripted, 3, flip=flip)
    rate, right, wrong, *_ = scores(bandit)
    coefficient = reward_flips.group_coefficient_with_flips(rate, *flip, 3, "std")
    np.testing.assert_allclose(
        mean, -coefficient[:, None] * (right - wrong) / CONTEXTS, rtol=0, atol=TOLERANCE
    )
    np.testing.assert_allclose(bandit.mechanism()["drift_coefficient"][0, 0], coefficient, rtol=1e-5)


@pytest.mark.parametrize(("false_positive", "false_negative"), [(0.3, 0.6), (0.6, 0.3), (1.0, 1.0)])
def test_fixed_flips_turn_or_silence_whole_contexts(
    synthetic: Make, false_positive: float, false_negative: float
) -> None:
    flips = {"false_positive": false_positive, "false_negative": false_negative, "per": "prompt"}
    keys = TABLE | {"contexts": 40, "right_actions": 1}
    bandit = synthetic("bandit", **keys, replicates=50, flips=flips)
    clean = synthetic("bandit", **keys, replicates=50)
    ratio = bandit.mechanism()["drift_coefficient"] / clean.mechanism()["drift_coefficient"]
    assert set(np.unique(ratio.round(9))) <= {-1.0, 0.0, 1.0}
    error = 5 / math.sqrt(ratio.size)
    mean = reward_flips.fixed_mean_scale(false_positive, false_negative)
    spread = reward_flips.fixed_scale_spread(false_positive, false_negative)
    assert ratio.mean() == pytest.approx(float(mean), abs=error)
    assert ratio.std() == pytest.approx(float(spread), abs=error)
    # A silent context has no gradient, whatever is sampled; a turned one has the opposite gradient.
    found = [torch.empty_like(each.values[0]) for each in (bandit, clean)]
    for each, out in zip((bandit, clean), found, strict=True):
        each.gradients(SyntheticBatch(3, Draw(1)), [out])
    turned = found[0].numpy(), found[1].numpy() * ratio[0][..., None]
    np.testing.assert_allclose(*turned, rtol=0, atol=1e-7)


def test_in_a_large_group_the_drift_is_sigma_times_the_gap(synthetic: Make) -> None:
    """20,000 rollouts stand for infinitely many; the mean score is zero, so the paper's form holds too."""
    keys = TABLE | {"contexts": 1, "right_actions": 1, "initial_pass_rate": {"lowest": 0.3, "highest": 0.3}}
    bandit = synthetic("bandit", **keys, replicates=2, prompts=1, rollouts=20_000)
    logits = bandit.values[0].double().numpy()
    pi = np.exp(logits[0, 0]) / np.exp(logits[0, 0]).sum()
    right = np.array([1.0, 0, 0]) - pi
    wrong = np.array([0, *pi[1:]]) / (1 - pi[0]) - pi
    expected = grpo_drift.drift(pi[0], right, wrong)
    np.testing.assert_allclose(bandit.expected_update(0, logits)[0, 0], expected, rtol=1e-4)
    np.testing.assert_allclose(expected, grpo_drift.paper_drift(pi[0], right), atol=1e-12)
    out = [torch.empty_like(bandit.values[0])]
    bandit.gradients(SyntheticBatch(0, Draw(5)), out)
    sampled = -out[0].numpy()[:, 0]
    np.testing.assert_allclose(sampled, np.stack([expected] * 2), atol=5 / math.sqrt(20_000))


def test_pass_rates_at_the_start_are_those_asked_for(synthetic: Make) -> None:
    rates = {"lowest": 0.05, "highest": 0.9}
    bandit = synthetic("bandit", contexts=7, initial_pass_rate=rates, right_actions=[1, 2, 3, 1, 2, 3, 4])
    found = bandit.mechanism()
    np.testing.assert_allclose(found["pass_rate"][0, 0], np.linspace(0.05, 0.9, 7), atol=1e-6)
    assert bandit.evaluate(Draw(0))["pass_rate"][0] == pytest.approx(np.full(64, 0.475), abs=1e-6)
    np.testing.assert_allclose(found["right_score_cosine"], 1, atol=1e-9)
    np.testing.assert_allclose(found["drift_cosine"], 1, atol=1e-9)


@pytest.mark.parametrize("scale", ["std", "batch"])
def test_the_twin_has_no_drift_and_the_rollouts_of_the_run(synthetic: Make, scale: str) -> None:
    keys = TABLE | {"prompts": 4, "rollouts": 4, "advantage_scale": scale, "replicates": 20_000}
    run, twin = synthetic("bandit", **keys), synthetic("bandit", **keys, pure_noise=True)
    batches = [SyntheticBatch(0, Draw(2)) for _ in range(2)]
    outs = [torch.empty_like(run.values[0]) for _ in range(2)]
    for each, batch, out in zip((run, twin), batches, outs, strict=True):
        each.gradients(batch, [out])
    assert batches[0].metrics == batches[1].metrics
    noise = outs[1].double().numpy()
    z = noise.mean(0) / (noise.std(0) / math.sqrt(len(noise)))
    assert np.abs(z).max() < 5
    signal = outs[0].double().numpy()
    assert np.abs(signal.mean(0) / (signal.std(0) / math.sqrt(len(signal)))).max() > 20
    assert not twin.mechanism()["drift_square"].any()


def test_extra_noise_adds_its_covariance_and_no_drift(synthetic: Make) -> None:
    keys = TABLE | {"prompts": 2, "rollouts": 4, "replicates": 40_000}
    kinds = {
        "plain": {},
        "twin": {"pure_noise": True},
        "policy": {"policy_noise": 2.0},
        "isotropic": {"gradient_noise": 0.3},
    }
    covariance, mean = {}, {}
    for name, changes in kinds.items():
        bandit = synthetic("bandit", **keys, **changes)
        out = torch.empty_like(bandit.values[0])
        bandit.gradients(SyntheticBatch(0, Draw(4)), [out])
        flat = out.double().numpy().reshape(len(out), -1)
        covariance[name], mean[name] = np.cov(flat.T), flat.mean(0)
    scale = np.abs(covariance["policy"]).max() * 5 / math.sqrt(40_000) * math.sqrt(2)
    np.testing.assert_allclose(
        covariance["policy"], covariance["plain"] + 4 * covariance["twin"], atol=2 * scale
    )
    np.testing.assert_allclose(covariance["isotropic"], covariance["plain"] + 0.09 * np.eye(6), atol=scale)
    for name in ("policy", "isotropic"):
        error = np.sqrt(np.diag(covariance[name] + covariance["plain"]) / 40_000)
        assert (np.abs(mean[name] - mean["plain"]) < 5 * error).all()


def test_reward_noise_leaves_the_unscaled_drift_and_has_no_closed_form_otherwise(synthetic: Make) -> None:
    keys = TABLE | {"prompts": 2, "rollouts": 4, "replicates": 40_000, "reward_noise": 0.7}
    bandit = synthetic("bandit", **keys, advantage_scale="none")
    out = torch.empty_like(bandit.values[0])
    bandit.gradients(SyntheticBatch(0, Draw(4)), [out])
    gradient = out.double().numpy()
    expected = -bandit.expected_update(0, bandit.values[0][:1].double().numpy())[0]
    z = (gradient.mean(0) - expected) / (gradient.std(0) / math.sqrt(len(gradient)))
    assert np.abs(z).max() < 5 and np.abs(expected).max() > 0.01
    assert np.isnan(synthetic("bandit", **keys).mechanism()["drift_coefficient"]).all()


def test_contexts_are_drawn_evenly_and_a_probability_near_one_stays_in_range(
    synthetic: Make, scripted: type
) -> None:
    bandit = synthetic(
        "bandit", **(TABLE | {"contexts": 5, "right_actions": 1}), replicates=1, prompts=1, rollouts=2
    )
    last = 1 - 2.0**-24
    given = scripted(prompt=np.array([last]), rollout=np.array([0.0, last]))
    out = torch.empty_like(bandit.values[0])
    bandit.gradients(SyntheticBatch(0, given), [out])
    touched = out[0].numpy()
    assert not touched[:4].any() and touched[4].tolist() == pytest.approx([-0.5, 0.0, 0.5])
