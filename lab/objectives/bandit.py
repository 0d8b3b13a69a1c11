"""The tabular softmax bandit with a verifiable reward: RL with verifiable rewards without a network.

A prompt is a context, a completion one action; some actions of each context are right. Each replicate samples
contexts with replacement and actions from its own softmax, has them verified, and takes the policy gradient of the
lab's group-relative advantages: on-policy, one update a step. The score of action a is one-hot(a) minus the
probabilities; since advantages of a group sum to zero, the second term drops out of the sum over a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lab.draw import Draw
from lab.objectives.advantages import group_advantages, permute_within_groups
from lab.objectives.bandit_mechanism import drift_coefficient, mean_scores, score_squares
from lab.objectives.bandit_settings import BanditSettings
from lab.objectives.synthetic import Synthetic, SyntheticBatch

_SECOND_BATCH = "second_batch/"
"""Leads the roles of the batch that makes `policy_noise`."""


class Bandit(Synthetic[BanditSettings]):
    """See the module; arguments as `Synthetic`."""

    def prepare(self, draw: Draw) -> None:
        settings = self.settings
        self._right = [right_mask(cell.settings) for cell in self.cells]
        shape = (settings.replicates, settings.contexts)
        # A fixed error of the verifier belongs to a context of a replicate: replicates are runs of their own.
        self._fixed = draw.uniform("fixed_reward_flip", 0, shape)

    def start(self, settings: BanditSettings, draw: Draw) -> np.ndarray:
        """Return logits [context, action] whose pass rates are exactly those asked for."""
        shape = (settings.contexts, settings.actions)
        logits = settings.logit_spread * draw.generator("start").standard_normal(shape)
        right = right_mask(settings)
        rates = settings.initial_pass_rate
        rate = np.linspace(rates.lowest, rates.highest, settings.contexts)
        weights = np.exp(logits)
        odds = (weights * right).sum(1) / (weights * ~right).sum(1)
        shift = np.log(rate / (1 - rate)) - np.log(odds)
        return logits + right * shift[:, None]

    def gradients(self, batch: SyntheticBatch, out: Sequence[Tensor]) -> None:
        rewards, silent = [], []
        for index, cell in enumerate(self.cells):
            settings = cell.settings
            out[index].zero_()
            paid, zero = self._add_policy_gradient(batch, index, out[index], 1.0, settings.pure_noise, "")
            if settings.policy_noise > 0:
                self._add_policy_gradient(
                    batch, index, out[index], settings.policy_noise, True, _SECOND_BATCH
                )
            self.add_gradient_noise(batch, settings.gradient_noise, index, out[index])
            rewards.append(paid)
            silent.append(zero)
        batch.metrics["reward"] = float(np.mean(rewards))
        batch.metrics["frac_reward_zero_std"] = float(np.mean(silent))

    def evaluate(self, draw: Draw) -> dict[str, np.ndarray]:
        """Return `pass_rate`, exact, over contexts, [cell, replicate]."""
        rates = [
            (_probabilities(value) * right).sum(-1).mean(-1)
            for value, right in zip(self.values, self._right, strict=True)
        ]
        return {"pass_rate": np.stack(rates)}

    def mechanism(self) -> dict[str, np.ndarray]:
        """Return what RLVR is said to be driven by, exactly.

        For each prompt (context), [cell, replicate, prompt]: `pass_rate`; `right_score_square`,
        `wrong_score_square`, `gap_square`: |v_R|², |v_W|², |v_R - v_W|²; `right_score_cosine`: cos of v_R with v_R at
        the start; `drift_coefficient`: what multiplies v_R - v_W in the prompt's expected update direction (NaN where
        no closed form holds: normal reward noise under a scale by the standard deviation). For the whole table, [cell,
        replicate]: `drift_square` and `drift_cosine`, of the expected update with that at the start.
        """
        found: dict[str, list[np.ndarray]] = {}
        for index, value in enumerate(self.values):
            for name, values in self._mechanism_of(index, value).items():
                found.setdefault(name, []).append(values)
        return {name: np.stack(values) for name, values in found.items()}

    def expected_update(self, cell: int, logits: np.ndarray) -> np.ndarray:
        """Return the expected direction of an update (minus the expected gradient) at given logits.

        Args:
            cell: its number.
            logits: float64 [replicate, context, action].

        Returns:
            float64 [replicate, context, action]; NaN where no closed form holds.
        """
        pass_rate, right, wrong = mean_scores(logits, self._right[cell])
        coefficient = self._coefficient(cell, pass_rate)
        return coefficient[..., None] * (right - wrong) / self.settings.contexts

    # ---- one batch --------------------------------------------------------------------------------------

    def _add_policy_gradient(
        self, batch: SyntheticBatch, cell: int, out: Tensor, amplitude: float, permuted: bool, roles: str
    ) -> tuple[float, float]:
        """Add amplitude times the gradient of one batch to `out` [replicate, context, action].

        Returns:
            the mean reward, and the share of groups without signal.
        """
        settings = self.cells[cell].settings
        shape = (settings.replicates, settings.prompts, settings.rollouts)
        uniforms = self.uniforms(batch, f"{roles}prompt", cell, shape[:2])
        contexts = (uniforms.double() * settings.contexts).long()
        cumulative = torch.softmax(self.values[cell], dim=-1).cumsum(-1)
        offered = cumulative.gather(1, contexts[..., None].expand(*shape[:2], settings.actions))
        # The last bound is left out, so that rounding cannot lead beyond the last action.
        bounds = offered[..., :-1].contiguous()
        actions = torch.searchsorted(bounds, self.uniforms(batch, f"{roles}rollout", cell, shape), right=True)
        chosen = contexts.cpu().numpy()
        taken = actions.cpu().numpy()
        verified = self._right[cell][chosen[..., None], taken].astype(np.float64)
        rewards = self._with_noise(batch, cell, verified, chosen, roles)
        advantages = group_advantages(rewards, settings.advantage_scale, settings.advantage_epsilon)
        silent = float((advantages == 0).all(-1).mean())
        if permuted:
            drawn = self.uniforms(batch, f"{roles}twin", cell, shape)
            advantages = permute_within_groups(advantages, drawn.cpu().numpy())
        weights = torch.from_numpy(advantages).float().to(out.device)
        weights = weights.mul_(-amplitude / (settings.prompts * settings.rollouts))
        places = contexts[..., None] * settings.actions + actions
        out.view(settings.replicates, -1).scatter_add_(1, places.flatten(1), weights.flatten(1))
        return float(rewards.mean()), silent

    def _with_noise(
        self, batch: SyntheticBatch, cell: int, verified: np.ndarray, contexts: np.ndarray, roles: str
    ) -> np.ndarray:
        """Return the rewards that are paid, float64 [replicate, prompt, rollout]."""
        settings, rewards = self.cells[cell].settings, verified
        if settings.flips.active:
            if settings.flips.per == "prompt":
                uniforms = np.take_along_axis(self._fixed, contexts, axis=1)[..., None]
            else:
                uniforms = self.uniforms(batch, f"{roles}reward_flip", cell, verified.shape).cpu().numpy()
            rewards = settings.flips.flipped(rewards, uniforms)
        if settings.reward_noise > 0:
            count = verified.size
            drawn = torch.empty(-(-count // 16) * 16)
            self.stream(batch, f"{roles}reward_noise", cell).normal_(drawn, settings.reward_noise)
            rewards = rewards + drawn[:count].numpy().reshape(verified.shape)
        return rewards

    # ---- what is known exactly --------------------------------------------------------------------------

    def _mechanism_of(self, cell: int, value: Tensor) -> dict[str, np.ndarray]:
        mask = self._right[cell]
        pass_rate, right, wrong = mean_scores(value.double().cpu().numpy(), mask)
        begun = self.starts[cell].double().numpy()[None]
        _, right_then, _ = mean_scores(begun, mask)
        update = self._coefficient(cell, pass_rate)[..., None] * (right - wrong) / self.settings.contexts
        replicates = (self.settings.replicates, *begun.shape[1:])
        update_then = self.expected_update(cell, np.broadcast_to(begun, replicates))
        return {
            "pass_rate": pass_rate,
            **score_squares(right, wrong),
            "right_score_cosine": _cosine(right, right_then, axis=-1),
            "drift_coefficient": self._coefficient(cell, pass_rate),
            "drift_square": (update**2).sum((-2, -1)),
            "drift_cosine": _cosine(update, update_then, axis=(-2, -1)),
        }

    def _coefficient(self, cell: int, pass_rate: np.ndarray) -> np.ndarray:
        """Return what multiplies v_R - v_W for each context, float64 [replicate, context]."""
        settings = self.cells[cell].settings
        flips = settings.flips
        if settings.pure_noise:
            return np.zeros_like(pass_rate)
        if settings.reward_noise > 0 and settings.advantage_scale != "none":
            return np.full_like(pass_rate, np.nan)
        false_positive, false_negative = np.array(flips.false_positive), np.array(flips.false_negative)
        if flips.per == "prompt":
            false_positive, false_negative = (
                (self._fixed < rate).astype(np.float64)
                for rate in (flips.false_positive, flips.false_negative)
            )
        return drift_coefficient(
            pass_rate,
            settings.prompts,
            settings.rollouts,
            settings.advantage_scale,
            settings.advantage_epsilon,
            false_positive,
            false_negative,
        )


def right_mask(settings: BanditSettings) -> np.ndarray:
    """Return which actions are right, bool [context, action]: the first ones of each context."""
    return np.arange(settings.actions) < np.array(settings.right_counts())[:, None]


def _probabilities(logits: Tensor) -> np.ndarray:
    probabilities: np.ndarray = torch.softmax(logits.double(), dim=-1).cpu().numpy()
    return probabilities


def _cosine(first: np.ndarray, second: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    lengths = np.sqrt((first**2).sum(axis) * (second**2).sum(axis))
    both = (first * second).sum(axis)
    return np.divide(both, lengths, out=np.full_like(both, np.nan), where=lengths > 0)
