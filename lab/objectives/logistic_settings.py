"""Settings of the logistic regression, torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lab.noise import TokenSignNoise
from lab.objectives.synthetic_settings import SyntheticSettings
from lab.settings import require


@dataclass(frozen=True)
class LogisticSettings(SyntheticSettings):
    """Keys of softmax regression on a fixed synthetic data set: supervised fine-tuning without a network."""

    features: int
    """Features of an example; normal, mean zero."""
    classes: int
    """Classes, among which a token is chosen; a replicate is a table [feature, class]."""
    examples: int
    """Examples of the training set, and of the held-out set, made once from the seed."""
    feature_decay: float
    """Standard deviation of the i-th feature is i^-feature_decay; 0: all equal. It spreads the curvatures."""
    teacher_scale: float
    """Labels are sampled from a softmax regression whose logits have this standard deviation; 0: labels of no use."""
    start_scale: float
    """Standard deviation of the starting weights, one draw for all replicates; 0 starts at the uniform prediction."""
    tokens: int
    """Examples of a step, drawn with replacement: each is one token with a sign of its own."""
    sign_noise: TokenSignNoise
    """Weights of the tokens' losses."""
    gradient_noise: float
    """Standard deviation of isotropic normal noise added to the gradient of an update."""

    shape_keys: ClassVar[tuple[str, ...]] = (
        "features",
        "classes",
        "examples",
        "feature_decay",
        "teacher_scale",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.classes >= 2, "classes", f"a choice needs at least 2, got {self.classes}")
        for field in ("features", "examples", "tokens"):
            require(getattr(self, field) >= 1, field, f"must be at least 1, got {getattr(self, field)}")
        for field in ("feature_decay", "teacher_scale", "start_scale", "gradient_noise"):
            require(getattr(self, field) >= 0, field, f"must not be negative, got {getattr(self, field)}")

    @property
    def coordinates_each(self) -> int:
        """See `SyntheticSettings`."""
        return self.features * self.classes

    def amplitudes(self) -> tuple[float, float]:
        """Return a and b of a token's weight a + b eps; the pure-noise twin has the same mean square and a = 0."""
        signal, noise = self.sign_noise.amplitudes
        return (0.0, float((signal**2 + noise**2) ** 0.5)) if self.pure_noise else (signal, noise)
