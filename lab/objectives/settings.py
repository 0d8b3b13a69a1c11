"""Settings of the objectives, torch-free. To add one: a settings class here, its file, a registry row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from lab.noise import RewardFlips, TokenSignNoise
from lab.objectives.advantages import AdvantageScale
from lab.objectives.bandit_settings import BanditSettings
from lab.objectives.family import ObjectiveSettings
from lab.objectives.logistic_settings import LogisticSettings
from lab.objectives.quadratic_settings import QuadraticSettings
from lab.objectives.synthetic_settings import SyntheticSettings, build_cells
from lab.settings import Invalid, build, choose, option_name, require

Aggregation = Literal["token_mean", "sequence_mean", "sequence_sum"]


@dataclass(frozen=True)
class GenerationSettings:
    """How completions are sampled, in training, probes and evaluation alike."""

    max_new_tokens: int
    """Longest completion in tokens, the end token included."""
    temperature: float
    """Sampling temperature of training and probes."""

    def __post_init__(self) -> None:
        require(self.max_new_tokens >= 1, "max_new_tokens", f"must be at least 1, got {self.max_new_tokens}")
        require(self.temperature > 0, "temperature", f"must be positive, got {self.temperature}")


@dataclass(frozen=True)
class EvaluationSettings:
    """The held-out evaluation."""

    problems: int
    """Held-out problems, the same at every evaluation."""
    rollouts: int
    """Completions of each problem; the pass rate is their mean (avg@k)."""
    temperature: float
    """Sampling temperature; 0 takes the most likely token."""

    def __post_init__(self) -> None:
        require(self.problems >= 1, "problems", f"must be at least 1, got {self.problems}")
        require(self.rollouts >= 1, "rollouts", f"must be at least 1, got {self.rollouts}")
        require(self.temperature >= 0, "temperature", f"must not be negative, got {self.temperature}")


@dataclass(frozen=True)
class ProbeSettings:
    """The fixed responses whose log-probabilities are followed through the run."""

    prompts: int
    """Held-out prompts."""
    responses: int
    """Responses of the starting policy to each, sampled once."""

    def __post_init__(self) -> None:
        require(self.prompts >= 1, "prompts", f"must be at least 1, got {self.prompts}")
        require(self.responses >= 1, "responses", f"must be at least 1, got {self.responses}")


@dataclass(frozen=True)
class RLVRSettings(ObjectiveSettings):
    """Keys of RL with verifiable rewards."""

    name: str
    """`rlvr`."""
    prompts: int
    """Prompts of a step, drawn with replacement."""
    rollouts: int
    """Completions sampled for each prompt: the group."""
    updates_per_step: int
    """Optimiser updates of a step, each on its own share of the prompts; must divide `prompts`."""
    advantage_scale: AdvantageScale
    """What the centred rewards are divided by: std, unbiased_std, batch or none."""
    advantage_epsilon: float
    """Added to that divisor."""
    clip_low: float
    """The probability ratio is clipped below at 1 - clip_low."""
    clip_high: float
    """The probability ratio is clipped above at 1 + clip_high."""
    aggregation: Aggregation
    """`token_mean`: over all tokens; `sequence_mean`: mean of each completion's token mean;
    `sequence_sum`: mean of each completion's token sum (the unnormalised policy gradient)."""
    micro_batch_prompts: int | None
    """Prompts handled at a time, null for all; changes memory, not the gradient."""
    skip_zero_signal: bool
    """Leave completions with zero advantage out of the forward pass; the gradient is the same. Has no
    effect with a KL term, to which every completion contributes."""
    kl_coefficient: float
    """Weight of the KL divergence from the starting policy; 0 for none."""
    permute_advantages: bool
    """Shuffle advantages within each group: pure noise. `twin=true` sets it."""
    flips: RewardFlips
    """Noise put on the verified rewards."""

    trains_language_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.prompts >= 1, "prompts", f"a step needs at least one prompt, got {self.prompts}")
        require(
            self.rollouts >= 2,
            "rollouts",
            f"a group of {self.rollouts} has no spread: every advantage would be zero; use at least 2",
        )
        require(self.updates_per_step >= 1, "updates_per_step", "must be at least 1")
        require(
            self.prompts % self.updates_per_step == 0,
            "updates_per_step",
            f"must divide prompts={self.prompts}, got {self.updates_per_step}",
        )
        require(self.advantage_epsilon >= 0, "advantage_epsilon", "must not be negative")
        require(0 < self.clip_low <= 1, "clip_low", f"must lie in (0, 1], got {self.clip_low}")
        require(self.clip_high > 0, "clip_high", f"must be positive, got {self.clip_high}")
        require(
            self.micro_batch_prompts is None or self.micro_batch_prompts >= 1,
            "micro_batch_prompts",
            "must be at least 1, or null",
        )
        require(self.kl_coefficient >= 0, "kl_coefficient", "must not be negative")
        require(
            not (self.permute_advantages and self.kl_coefficient > 0),
            "kl_coefficient",
            "a pure-noise twin has no KL term: it pulls back, which is drift",
        )
        require(
            not (self.permute_advantages and self.updates_per_step > 1),
            "updates_per_step",
            "a pure-noise twin takes one update a step: clipping on a second one makes drift",
        )

    def twin(self) -> RLVRSettings:
        """Permute advantages, and leave the KL term out."""
        if self.updates_per_step > 1:
            raise Invalid(
                "twin", "needs objective.updates_per_step=1, clipping on a second update makes drift"
            )
        return replace(self, permute_advantages=True, kl_coefficient=0.0)

    def check_processes(self, processes: int) -> None:
        """Each update and process takes an equal share of the prompts."""
        _require_even("prompts", self.prompts, self.updates_per_step * processes)

    @property
    def rollouts_per_step(self) -> int:
        """See `ObjectiveSettings`."""
        return self.prompts * self.rollouts


@dataclass(frozen=True)
class SFTSettings(ObjectiveSettings):
    """Keys of supervised fine-tuning on the tasks' own answers."""

    name: str
    """`sft`."""
    examples: int
    """Problems of a step, drawn with replacement; a step is one update."""
    aggregation: Aggregation
    """See RLVR."""
    micro_batch_prompts: int | None
    """Problems handled at a time, null for all; changes memory, not the gradient."""
    sign_noise: TokenSignNoise
    """Weights of the tokens' losses."""

    trains_language_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.examples >= 1, "examples", f"a step needs at least one, got {self.examples}")
        require(
            self.micro_batch_prompts is None or self.micro_batch_prompts >= 1,
            "micro_batch_prompts",
            "must be at least 1, or null",
        )

    def twin(self) -> SFTSettings:
        """Take the signal out of the tokens' weights; their noise stays, or is 1 where there was none."""
        _, noise = self.sign_noise.amplitudes
        return replace(self, sign_noise=TokenSignNoise(0.0, noise or 1.0))

    def check_processes(self, processes: int) -> None:
        """Each process takes an equal share of the examples."""
        _require_even("examples", self.examples, processes)


@dataclass(frozen=True)
class OwnSFTSettings(SFTSettings):
    """Keys of supervised fine-tuning on the policy's own correct completions."""

    source: Literal["fresh", "frozen"]
    """Who writes the completions: the policy as it is, or as it was at the start."""
    rollouts: int
    """Completions sampled for each problem, of which the first right one is kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rollouts >= 1, "rollouts", f"must be at least 1, got {self.rollouts}")


def _require_even(field: str, count: int, parts: int) -> None:
    require(
        count % parts == 0,
        field,
        f"{count} cannot be split evenly {parts} ways (updates x trainer.devices)",
    )


OBJECTIVES: dict[str, tuple[type[ObjectiveSettings], str]] = {
    "rlvr": (RLVRSettings, "lab.objectives.rlvr:RLVR"),
    "sft": (SFTSettings, "lab.objectives.sft:SFT"),
    "own_sft": (OwnSFTSettings, "lab.objectives.own_sft:OwnSFT"),
    "quadratic": (QuadraticSettings, "lab.objectives.quadratic:Quadratic"),
    "bandit": (BanditSettings, "lab.objectives.bandit:Bandit"),
    "logistic": (LogisticSettings, "lab.objectives.logistic:Logistic"),
}


def build_objective_settings(node: Mapping[str, Any], key: str = "objective") -> ObjectiveSettings:
    """Build the settings of the objective that the configuration group `node` names.

    Raises:
        BadInput: unknown objective, unknown key or impossible value, named by its full key.
    """
    settings_class, _ = choose(OBJECTIVES, option_name(node, key), f"{key}.name")
    settings = build(settings_class, node, key)
    if isinstance(settings, SyntheticSettings):
        build_cells(settings, key)
    return settings
