"""Settings of the extrapolators. To add one: a settings class here, its file, a registry row, its YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any, Literal

from lab.settings import build, choose, option_name, require

if TYPE_CHECKING:
    from lab.extrapolation.extrapolator import Extrapolator, JumpRules


@dataclass(frozen=True)
class PersistenceSettings:
    """Keys of standing still."""

    name: str
    """`persistence`."""


@dataclass(frozen=True)
class TwoPointSettings:
    """Keys of the line through the first and the last checkpoint."""

    name: str
    """`two_point`."""


@dataclass(frozen=True)
class LeastSquaresSettings:
    """Keys of the line through all checkpoints."""

    name: str
    """`least_squares`."""
    joined: bool
    """Start from the last checkpoint and take only the slope from the line."""


@dataclass(frozen=True)
class DampedSettings:
    """Keys of the damped two-point forecast."""

    name: str
    """`damped`."""
    scope: Literal["pooled", "tensor"]
    """One lambda for all tensors, or one for each."""


@dataclass(frozen=True)
class Rank1Settings:
    """Keys of the rank-1 forecast."""

    name: str
    """`rank_1`."""
    joined: bool
    """Start from the last checkpoint instead of from the fitted path."""
    scope: Literal["pooled", "tensor"]
    """Directions of each tensor, or one of the whole model."""


@dataclass(frozen=True)
class LowRankSettings:
    """Keys of the low-rank forecast."""

    name: str
    """`low_rank`."""
    rank: int
    """Directions."""
    curve: Literal["line", "power", "saturating"]
    """Family of the coefficients: a + b f(t; p)."""
    joined: bool
    """Start from the last checkpoint instead of from the fitted path."""
    scope: Literal["pooled", "tensor"]
    """Directions of each tensor, or of the whole model."""

    def __post_init__(self) -> None:
        require(self.rank >= 1, "rank", f"must be at least 1, got {self.rank}")


@dataclass(frozen=True)
class ExponentialSettings:
    """Keys of the exponential approach."""

    name: str
    """`exponential`."""
    joined: bool
    """Start from the last checkpoint instead of from the fitted path."""
    scope: Literal["pooled", "tensor"]
    """One rate for each tensor, or one for the whole model."""


@dataclass(frozen=True)
class ExpoSettings:
    """Keys of ExPO."""

    name: str
    """`expo`."""
    alpha: float
    """Share of the displacement so far that is added."""

    def __post_init__(self) -> None:
        require(self.alpha > 0, "alpha", f"must be positive, got {self.alpha}: 0 or less is no extrapolation")


EXTRAPOLATORS: dict[str, tuple[type, str]] = {
    "persistence": (PersistenceSettings, "lab.extrapolation.persistence:Persistence"),
    "two_point": (TwoPointSettings, "lab.extrapolation.two_point:TwoPoint"),
    "least_squares": (LeastSquaresSettings, "lab.extrapolation.least_squares:LeastSquares"),
    "damped": (DampedSettings, "lab.extrapolation.damped:Damped"),
    "rank_1": (Rank1Settings, "lab.extrapolation.rank_1:Rank1"),
    "low_rank": (LowRankSettings, "lab.extrapolation.low_rank:LowRank"),
    "exponential": (ExponentialSettings, "lab.extrapolation.exponential:Exponential"),
    "expo": (ExpoSettings, "lab.extrapolation.expo:Expo"),
}


def build_extrapolator(
    node: Mapping[str, Any], rules: JumpRules | None = None, key: str = "method"
) -> Extrapolator:
    """Build the extrapolator that the configuration group `node` names; `rules` are by default none.

    Raises:
        BadInput: unknown method, unknown key or impossible value, named by its full key.
    """
    settings_class, target = choose(EXTRAPOLATORS, option_name(node, key), f"{key}.name")
    settings: Any = build(settings_class, node, key)
    module, name = target.split(":")
    maker = getattr(import_module(module), name)
    extrapolator: Extrapolator = maker(settings) if rules is None else maker(settings, rules)
    return extrapolator


def default_method(name: str, **changes: Any) -> dict[str, Any]:
    """Return the shipped configuration of a method, with some keys changed.

    Raises:
        BadInput: there is no such method.
    """
    import yaml

    choose(EXTRAPOLATORS, name, "method")
    text = (resources.files("lab.conf") / "method" / f"{name}.yaml").read_text(encoding="utf-8")
    return {**yaml.safe_load(text), **changes}
