"""Controlled noise: what a person adds on purpose to see what noise does.

Reward flips: a wrong answer is paid with probability `false_positive`, a right one is refused with
probability `false_negative` (science: p~ = p (1 - nu) + (1 - p) phi). Fresh flips per rollout are noise;
flips fixed per prompt are a bias of the verifier. Token sign noise: the loss of a token is weighted
c = a + b eps, eps = +1 or -1 at random, signal-to-noise ratio 20 log10(a / b) dB (our reading of
arXiv 2601.04537).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lab.draw import Draw, stable_hash
from lab.settings import require

_LARGEST_DB = 300.0  # beyond it one of the amplitudes is lost in rounding


@dataclass(frozen=True)
class RewardFlips:
    """Settings of the reward noise."""

    false_positive: float
    """Probability that a wrong completion is rewarded, in [0, 1]."""
    false_negative: float
    """Probability that a right completion is not rewarded, in [0, 1]."""
    per: Literal["rollout", "prompt"]
    """`rollout`: drawn afresh each time; `prompt`: one fixed draw for a problem, all through the run."""

    def __post_init__(self) -> None:
        for field in ("false_positive", "false_negative"):
            value = getattr(self, field)
            require(0 <= value <= 1, field, f"a probability must lie in [0, 1], got {value}")

    @property
    def active(self) -> bool:
        """Whether any reward can change at all."""
        return self.false_positive > 0 or self.false_negative > 0

    def apply(self, rewards: np.ndarray, problem_keys: list[str], draw: Draw, step: int) -> np.ndarray:
        """Return noisy rewards.

        Args:
            rewards: verified rewards 0 or 1 (NaN: not judged, stays NaN), float64, [prompt, rollout].
            problem_keys: canonical name of each prompt's problem; two flips of one problem agree
                under `per="prompt"`.
            draw: randomness of the run (role `reward_flip`).
            step: RL step.
        """
        if not self.active:
            return rewards
        if self.per == "rollout":
            uniforms = draw.uniform("reward_flip", step, rewards.shape)
        else:
            by_problem = [stable_hash("reward_flip", draw.seed, key) / 2.0**64 for key in problem_keys]
            uniforms = np.broadcast_to(np.array(by_problem)[:, None], rewards.shape)
        return self.flipped(rewards, uniforms)

    def flipped(self, rewards: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Return the rewards, flipped where the uniform of each lies below its probability.

        Args:
            rewards: 0 or 1 (NaN: not judged, stays NaN), any shape.
            uniforms: in [0, 1), broadcast against `rewards`.
        """
        probability = np.where(rewards > 0.5, self.false_negative, self.false_positive)
        flipped = np.where(uniforms < probability, 1.0 - rewards, rewards)
        return np.where(np.isnan(rewards), np.nan, flipped)


@dataclass(frozen=True)
class TokenSignNoise:
    """Settings of the token sign noise: two amplitudes, or a signal-to-noise ratio instead of them.

    The amplitudes a and b that hold are `amplitudes`; a = 0 is pure noise, b = 0 is none.
    """

    signal_amplitude: float
    """a in c = a + b eps; 1 with b = 0 is plain training."""
    noise_amplitude: float
    """b in c = a + b eps."""
    snr_db: float | None = None
    """20 log10(a / b) in dB, in place of the amplitudes; null: the amplitudes hold."""
    normalisation: Literal["fixed_signal", "unit_power"] = "fixed_signal"
    """With `snr_db`: a = 1 (`fixed_signal`), or a² + b² = 1 (`unit_power`)."""

    def __post_init__(self) -> None:
        for field in ("signal_amplitude", "noise_amplitude"):
            value = getattr(self, field)
            require(value >= 0, field, f"an amplitude must not be negative, got {value}")
        if self.snr_db is None:
            require(
                self.normalisation == "fixed_signal",
                "normalisation",
                "goes with snr_db; without it, the amplitudes say it all",
            )
            return
        require(
            abs(self.snr_db) <= _LARGEST_DB, "snr_db", f"must lie within {_LARGEST_DB} dB, got {self.snr_db}"
        )
        require(
            (self.signal_amplitude, self.noise_amplitude) == (1.0, 0.0),
            "snr_db",
            f"contradicts the amplitudes {self.signal_amplitude} and {self.noise_amplitude}; give either "
            "snr_db or amplitudes (for pure noise: signal_amplitude=0)",
        )

    @property
    def amplitudes(self) -> tuple[float, float]:
        """a and b of c = a + b eps."""
        if self.snr_db is None:
            return self.signal_amplitude, self.noise_amplitude
        noise = 10.0 ** (-self.snr_db / 20.0)
        signal = 1.0 if self.normalisation == "fixed_signal" else 1.0 / math.hypot(1.0, noise)
        return signal, signal * noise

    @classmethod
    def of_snr(
        cls, snr_db: float, normalisation: Literal["fixed_signal", "unit_power"] = "fixed_signal"
    ) -> TokenSignNoise:
        """Return the noise of this signal-to-noise ratio in dB."""
        return cls(1.0, 0.0, snr_db, normalisation)

    def weights(self, shape: tuple[int, ...], draw: Draw, step: int) -> np.ndarray:
        """Return the weight c of each token, float64, of `shape` [row, token] (role `token_sign`)."""
        signal, noise = self.amplitudes
        if noise == 0:
            return np.full(shape, signal)
        signs = np.where(draw.uniform("token_sign", step, shape) < 0.5, -1.0, 1.0)
        return signal + noise * signs
