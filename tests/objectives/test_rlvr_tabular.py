"""The expected RLVR update, enumerated exactly, against the theory of group-relative policy gradients.

The policy is a table of logits and a completion is one token, so every outcome of a group can be listed
with its exact probability. Claims (science: GRPO drift, finite group, reward flips): the expected
update is E[factor(k)] (v_R - v_W), k the number of right answers of G, with v_R and v_W the mean score given
right and wrong.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from lab.draw import Draw
from lab.noise import RewardFlips
from lab.objectives.rlvr import RLVR
from lab.objectives.settings import EvaluationSettings, GenerationSettings, ProbeSettings, RLVRSettings
from lab.policies.policy import Policy
from lab.policies.tokenizer import build_tokenizer
from lab.tasks import Problem, Task, TaskSettings

TOKENIZER = build_tokenizer(8)
OUTCOMES = ("0", "1", "2", "3")
RIGHT = frozenset("01")
COLUMNS = [TOKENIZER.convert_tokens_to_ids(outcome) for outcome in OUTCOMES]
TOLERANCE = 1e-6


class Table(nn.Module):
    """Logits of the next token are a row of a table, chosen by the last token.

    Double precision: the gradients of thousands of rollouts are added up in it.
    """

    def __init__(self, probabilities: dict[str, list[float]]) -> None:
        super().__init__()
        self.config = SimpleNamespace(max_position_embeddings=8)
        logits = torch.full((len(TOKENIZER), len(TOKENIZER)), -1e4, dtype=torch.float64)
        for prompt, row in probabilities.items():
            target = TOKENIZER.convert_tokens_to_ids(prompt), COLUMNS[: len(row)]
            logits[target] = torch.tensor(row, dtype=torch.float64).log()
        self.logits = nn.Parameter(logits)

    def forward(self, input_ids: Tensor, logits_to_keep: int = 0, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits[input_ids[:, -logits_to_keep:]])


class Choice(Task):
    """Always the given prompts; an outcome is right if it belongs to a set."""

    def __init__(self, prompts: str) -> None:
        super().__init__(TaskSettings("choice", "{expression}", 0.5))
        self.prompts = prompts

    def propose(self, generator: np.random.Generator) -> tuple[str, str, str]:
        raise AssertionError("the prompts are given")

    def draw(self, split: Any, count: int, generator: np.random.Generator) -> list[Problem]:
        assert count == len(self.prompts)
        return [Problem(prompt, "", prompt) for prompt in self.prompts]

    def verify(self, completion: str, problem: Problem) -> int:
        return int(completion in RIGHT)


class Scripted(Draw):
    """Uniforms by role, chosen beforehand."""

    def __init__(self, **by_role: np.ndarray) -> None:
        super().__init__(0)
        self.by_role = by_role

    def uniform(self, role: str, step: int, shape: tuple[int, ...], first_row: int = 0) -> np.ndarray:
        return self.by_role[role].reshape(shape)


def objective(probabilities: dict[str, list[float]], group: int, **changes: Any) -> RLVR:
    """RLVR on the table, one prompt for each row of `probabilities`."""
    settings = {
        "name": "rlvr",
        "prompts": len(probabilities),
        "rollouts": group,
        "updates_per_step": 1,
        "advantage_scale": "std",
        "advantage_epsilon": 0.0,
        "clip_low": 0.2,
        "clip_high": 0.28,
        "aggregation": "sequence_sum",
        "micro_batch_prompts": None,
        "skip_zero_signal": True,
        "kl_coefficient": 0.0,
        "permute_advantages": False,
        "flips": RewardFlips(0.0, 0.0, "rollout"),
    }
    return RLVR(
        RLVRSettings(**{**settings, **changes}),
        Policy(Table(probabilities), TOKENIZER, "test"),  # type: ignore[arg-type]
        Choice("".join(probabilities)),
        GenerationSettings(1, 1.0),
        EvaluationSettings(1, 1, 1.0),
        ProbeSettings(1, 1),
    )


def update_of(rlvr: RLVR, draw: Draw) -> np.ndarray:
    """Minus the gradient of one batch, float64 [prompt, outcome], through collect and losses."""
    table = rlvr.policy.model.logits
    table.grad = torch.zeros_like(table)
    for loss in rlvr.losses(rlvr.collect(0, draw), 0):
        loss.backward()
    rows = [TOKENIZER.convert_tokens_to_ids(prompt) for prompt in rlvr.task.prompts]  # type: ignore[attr-defined]
    return -table.grad[rows][:, COLUMNS].double().numpy()


def cells(row: list[float]) -> np.ndarray:
    """The middle of each outcome's cell in the cumulative distribution."""
    edges = np.cumsum([0.0, *row])
    return (edges[1:] + edges[:-1]) / 2


def multisets(probabilities: list[float], size: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every multiset of `size` independent outcomes with its exact probability."""
    for members in itertools.combinations_with_replacement(range(len(probabilities)), size):
        weight = float(math.factorial(size))
        for outcome, count in Counter(members).items():
            weight *= probabilities[outcome] ** count / math.factorial(count)
        yield members, weight


def mean_scores(row: list[float]) -> tuple[float, np.ndarray, np.ndarray]:
    """Pass rate, v_R and v_W: scores e_o - pi of a softmax, averaged by hand."""
    right = [outcome in RIGHT for outcome in OUTCOMES[: len(row)]]
    pass_rate = sum(share for share, good in zip(row, right, strict=True) if good)
    v_right, v_wrong = np.zeros(len(row)), np.zeros(len(row))
    for chosen, share in enumerate(row):
        score = np.array([(1.0 if other == chosen else 0.0) - row[other] for other in range(len(row))])
        if right[chosen]:
            v_right += share / pass_rate * score
        else:
            v_wrong += share / (1 - pass_rate) * score
    return pass_rate, v_right, v_wrong


def expected_factor(factor: Callable[[float], float], group: int, pass_rate: float) -> float:
    """E[factor(s_k)] over k ~ Binomial(G, p), groups of equal rewards counting zero."""
    total = 0.0
    for right in range(1, group):
        share = right / group
        probability = math.comb(group, right) * pass_rate**right * (1 - pass_rate) ** (group - right)
        total += probability * factor(math.sqrt(share * (1 - share)))
    return total


ROW = [0.15, 0.2, 0.4, 0.25]
OTHER = [0.5, 0.2, 0.2, 0.1]
EPSILON = 0.1


@pytest.mark.parametrize("group", [2, 4, 8])
@pytest.mark.parametrize(
    ("scale", "epsilon", "factor"),
    [
        ("std", 0.0, lambda s, group: s),
        ("std", EPSILON, lambda s, group: s**2 / (s + EPSILON)),
        ("unbiased_std", 0.0, lambda s, group: s**2 / (s * math.sqrt(group / (group - 1)))),
        ("none", 0.0, lambda s, group: s**2),
    ],
    ids=["std", "std+eps", "unbiased_std", "none"],
)
def test_the_expected_update_is_the_expected_factor_times_the_score_gap(
    scale: str, epsilon: float, factor: Callable[[float, int], float], group: int
) -> None:
    row = ROW
    rlvr = objective({"a": row}, group, advantage_scale=scale, advantage_epsilon=epsilon)
    middle, mean = cells(row), np.zeros(len(row))
    for members, weight in multisets(row, group):
        mean += weight * update_of(rlvr, Scripted(rollout=middle[list(members)]))[0, : len(row)]
    pass_rate, v_right, v_wrong = mean_scores(row)
    predicted = expected_factor(lambda s: factor(s, group), group, pass_rate) * (v_right - v_wrong)
    np.testing.assert_allclose(mean, predicted, rtol=0, atol=TOLERANCE)
    assert np.abs(predicted).max() > 0.02


@pytest.mark.parametrize("group", [2, 4])
def test_under_batch_scaling_the_prompts_share_one_factor(group: int) -> None:
    rows = {"a": [0.15, 0.2, 0.65], "b": [0.4, 0.3, 0.3]}
    rlvr = objective(rows, group, advantage_scale="batch")
    middles = [cells(row) for row in rows.values()]
    mean = np.zeros((2, 3))
    for (first, weight), (second, other) in itertools.product(*(multisets(r, group) for r in rows.values())):
        uniforms = np.concatenate([middles[0][list(first)], middles[1][list(second)]])
        mean += weight * other * update_of(rlvr, Scripted(rollout=uniforms))[:, :3]
    scores = [mean_scores(row) for row in rows.values()]
    factors = np.zeros(2)
    for k, j in itertools.product(range(group + 1), repeat=2):
        weight = float(binom.pmf(k, group, scores[0][0]) * binom.pmf(j, group, scores[1][0]))
        share = (k + j) / (2 * group)
        if 0 < share < 1:
            spread = math.sqrt(share * (1 - share))
            factors += weight / spread * np.array([n / group * (1 - n / group) for n in (k, j)])
    for prompt, (_, v_right, v_wrong) in enumerate(scores):
        # Each prompt carries half of the batch's mean.
        predicted = factors[prompt] * (v_right - v_wrong) / 2
        np.testing.assert_allclose(mean[prompt], predicted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "sequence_sum"])
def test_for_completions_of_one_token_every_aggregation_is_the_same(aggregation: str) -> None:
    draw = Scripted(rollout=cells(ROW)[[0, 1, 2, 3]])
    np.testing.assert_allclose(
        update_of(objective({"a": ROW}, 4, aggregation=aggregation), draw),
        update_of(objective({"a": ROW}, 4), draw),
        atol=1e-7,
    )


def noisy_mean(row: list[float], group: int, phi: float, nu: float) -> np.ndarray:
    """The expected update under fresh flips, over all outcomes and all flips."""
    rlvr = objective({"a": row}, group, flips=RewardFlips(phi, nu, "rollout"))
    middle, mean = cells(row), np.zeros(len(row))
    flip_rate = [nu if outcome in RIGHT else phi for outcome in OUTCOMES[: len(row)]]
    joint = [share * (1 - rate) for share, rate in zip(row, flip_rate, strict=True)]
    joint += [share * rate for share, rate in zip(row, flip_rate, strict=True)]
    for members, weight in multisets(joint, group):
        outcomes = np.array(members) % len(row)
        flipped = np.array(members) >= len(row)
        draw = Scripted(rollout=middle[outcomes], reward_flip=np.where(flipped, 0.0, 1 - 2.0**-53))
        mean += weight * update_of(rlvr, draw)[0, : len(row)]
    return mean


@pytest.mark.parametrize(("phi", "nu"), [(0.2, 0.2), (0.1, 0.3), (0.0, 0.4), (0.6, 0.7)], ids=str)
@pytest.mark.parametrize("group", [2, 4])
def test_reward_flips_scale_the_expected_update_and_keep_its_direction(
    phi: float, nu: float, group: int
) -> None:
    row = [0.15, 0.2, 0.65]
    pass_rate, v_right, v_wrong = mean_scores(row)
    noisy = pass_rate * (1 - nu) + (1 - pass_rate) * phi
    # The gap between noisy-right and noisy-wrong scores is (1 - nu - phi) sigma^2 / sigma~^2 times the gap.
    gap = (1 - nu - phi) * pass_rate * (1 - pass_rate) / (noisy * (1 - noisy)) * (v_right - v_wrong)
    predicted = expected_factor(lambda s: s, group, noisy) * gap
    np.testing.assert_allclose(noisy_mean(row, group, phi, nu), predicted, rtol=0, atol=TOLERANCE)


def test_flips_that_carry_no_information_leave_no_drift() -> None:
    np.testing.assert_allclose(noisy_mean([0.15, 0.2, 0.65], 4, 0.3, 0.7), 0.0, atol=TOLERANCE)


def test_flips_turn_the_drift_when_their_rates_exceed_one() -> None:
    row = [0.15, 0.2, 0.65]
    _, v_right, v_wrong = mean_scores(row)
    mean, gap = noisy_mean(row, 4, 0.6, 0.7), v_right - v_wrong
    assert mean @ gap / np.linalg.norm(mean) / np.linalg.norm(gap) == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize(("pass_rate", "published"), [(0.05, 0.31), (0.5, 0.60)])
def test_flips_of_a_fifth_scale_an_infinite_group_as_published(pass_rate: float, published: float) -> None:
    """A group of 10,000 whose outcomes and flips come in exact proportion stands for an infinite one."""
    group, flips = 10_000, 0.2
    row = [0.6 * pass_rate, 0.4 * pass_rate, 1 - pass_rate]
    counts = [round(group * share * rate) for share in row for rate in (1 - flips, flips)]
    assert sum(counts) == group
    draw = Scripted(
        rollout=cells(row)[np.repeat([0, 0, 1, 1, 2, 2], counts)],
        reward_flip=np.repeat([0.9, 0.0] * 3, counts),
    )
    rlvr = objective({"a": row}, group, flips=RewardFlips(flips, flips, "rollout"))
    update = update_of(rlvr, draw)[0, :3]
    _, v_right, v_wrong = mean_scores(row)
    sigma = math.sqrt(pass_rate * (1 - pass_rate))
    noisy = pass_rate * (1 - flips) + (1 - pass_rate) * flips
    scale = (1 - 2 * flips) * sigma / math.sqrt(noisy * (1 - noisy))
    assert scale == pytest.approx(published, abs=0.005)
    np.testing.assert_allclose(update, scale * sigma * (v_right - v_wrong), rtol=0, atol=TOLERANCE)


def test_a_flip_fixed_for_the_prompt_inverts_the_whole_group() -> None:
    flips = RewardFlips(1.0, 1.0, "prompt")
    draw = Scripted(rollout=cells(ROW)[[0, 1, 2, 3]])
    np.testing.assert_allclose(
        update_of(objective({"a": ROW}, 4, flips=flips), draw),
        -update_of(objective({"a": ROW}, 4), draw),
        atol=1e-7,
    )


def test_in_an_infinite_group_the_update_is_p_over_sigma_times_the_right_score() -> None:
    """4,096 rollouts in exact proportion to dyadic probabilities: k/G is p, and nothing is left to chance."""
    row, group = [1 / 8, 1 / 4, 1 / 2, 1 / 8], 4096
    outcomes = np.repeat(range(4), [int(share * group) for share in row])
    update = update_of(objective({"a": row}, group), Scripted(rollout=cells(row)[outcomes]))[0]
    pass_rate, v_right, v_wrong = mean_scores(row)
    sigma = math.sqrt(pass_rate * (1 - pass_rate))
    np.testing.assert_allclose(pass_rate * v_right + (1 - pass_rate) * v_wrong, 0.0, atol=1e-15)
    np.testing.assert_allclose(update, sigma * (v_right - v_wrong), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(update, pass_rate / sigma * v_right, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("pass_rate", [0.05, 0.3, 0.5])
def test_the_factor_of_a_large_group_is_sigma_less_its_known_deficit(pass_rate: float) -> None:
    # Delta method: E[sqrt(X(1-X))] = sigma - 1 / (8 sigma G) + O(1/G^2) for X = k/G.
    group, sigma = 4096, math.sqrt(pass_rate * (1 - pass_rate))
    right = np.arange(group + 1)
    share = right / group
    mean = float((binom.pmf(right, group, pass_rate) * np.sqrt(share * (1 - share))).sum())
    assert mean == pytest.approx(sigma - 1 / (8 * sigma * group), abs=5e-6)


@pytest.mark.parametrize("group", [2, 4, 8])
def test_the_share_of_groups_without_signal_is_that_of_unanimous_groups(group: int) -> None:
    row = [0.15, 0.2, 0.65]
    rlvr, silent = objective({"a": row}, group), 0.0
    for members, weight in multisets(row, group):
        batch = rlvr.collect(0, Scripted(rollout=cells(row)[list(members)]))
        zero = bool((batch.advantages == 0).all())
        assert batch.metrics["frac_reward_zero_std"] == float(zero)
        assert zero == (not list(rlvr.losses(batch, 0)))
        silent += weight * zero
    assert silent == pytest.approx(0.35**group + 0.65**group, abs=1e-12)


def test_permuted_advantages_have_no_expected_update_given_the_rollouts() -> None:
    rlvr = objective({"a": ROW}, 4, permute_advantages=True)
    rollouts = cells(ROW)[[0, 1, 2, 2]]
    updates = [
        update_of(rlvr, Scripted(rollout=rollouts, twin=np.array(order) / 4))
        for order in itertools.permutations(range(4))
    ]
    np.testing.assert_allclose(np.mean(updates, axis=0), 0.0, atol=TOLERANCE)
    assert np.abs(updates).max() > 0.05


def test_prompts_do_not_mix() -> None:
    """The update of a prompt in a batch of two is half of what it is alone."""
    first, second = cells(ROW)[[0, 2, 2, 3]], cells(OTHER)[[0, 1, 0, 3]]
    both = update_of(objective({"a": ROW, "b": OTHER}, 4), Scripted(rollout=np.concatenate([first, second])))
    alone = [
        update_of(objective({"a": ROW}, 4), Scripted(rollout=first)),
        update_of(objective({"b": OTHER}, 4), Scripted(rollout=second)),
    ]
    np.testing.assert_allclose(both, np.concatenate(alone) / 2, atol=1e-7)
