"""Settings of `lab evaluate`, without the libraries that decoding needs."""

from __future__ import annotations

from dataclasses import dataclass

from lab.objectives.settings import EvaluationSettings
from lab.settings import Invalid, require

LARGEST_ALPHA = 3.4028234663852886e38
"""Largest float32, in which logits are combined."""


@dataclass(frozen=True)
class EvaluateSettings(EvaluationSettings):
    """A held-out evaluation with everything that sampling knows."""

    top_p: float
    """Probability that the nucleus has to reach, after temperature; 1 keeps every token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.top_p <= 1, "top_p", f"must lie in (0, 1], got {self.top_p}")


@dataclass(frozen=True)
class OutputSpaceSettings:
    """Which models are decoded, and how."""

    checkpoint: str | None
    """Directory of weights in place of the policy's own; with `second`, the earlier checkpoint."""
    second: str | None
    """Directory of the later checkpoint; logits are l1 + alpha (l2 - l1)."""
    alpha: float | None
    """Decode at this alpha."""
    alphas: tuple[float, ...] | None
    """Choose alpha from these on validation problems and score it on others."""
    temperatures: tuple[float, ...] | None
    """Choose the temperature of the later checkpoint from these, on the same problems, as the baseline; None takes
    evaluation.temperature / alpha for each of `alphas`."""
    validation_share: float
    """Share of the held-out problems that candidates are chosen on."""

    def __post_init__(self) -> None:
        for field in ("checkpoint", "second"):
            require(getattr(self, field) != "", field, "name a directory, or null")
        if self.second is None:
            for field in ("alpha", "alphas", "temperatures"):
                require(getattr(self, field) is None, field, "needs second=DIR, the later checkpoint")
        else:
            require(
                (self.alpha is None) != (self.alphas is None),
                "alpha",
                "with second=DIR give either alpha=NUMBER, or alphas=[1,1.5,2] to choose from",
            )
        require(
            self.temperatures is None or self.alphas is not None, "temperatures", "goes together with alphas"
        )
        _require_grid("alphas", self.alphas, -LARGEST_ALPHA)
        _require_grid("temperatures", self.temperatures, 0.0)
        require(
            self.alpha is None or abs(self.alpha) <= LARGEST_ALPHA,
            "alpha",
            f"{self.alpha} overflows float32, in which logits are combined",
        )
        require(
            0 < self.validation_share < 1,
            "validation_share",
            f"must lie in (0, 1), got {self.validation_share}",
        )

    def baseline_temperatures(self, temperature: float) -> tuple[float, ...]:
        """Return the candidates of the baseline, at least as many as there are alphas.

        Args:
            temperature: at which the extrapolated model is decoded. By default the baseline gets it divided by each
                alpha: where the earlier checkpoint is flat, extrapolating by alpha is nothing but that.

        Raises:
            Invalid: there are fewer than alphas, so that the baseline would be chosen on a smaller budget.
        """
        assert self.alphas is not None
        if self.temperatures is not None:
            found = self.temperatures
        elif temperature > 0 and min(self.alphas) > 0:
            found = tuple(sorted(temperature / alpha for alpha in self.alphas))
        else:
            raise Invalid(
                "temperatures", "name them; they follow from alphas only if all numbers are above 0"
            )
        require(
            len(found) >= len(self.alphas),
            "temperatures",
            f"{len(found)} for {len(self.alphas)} alphas: the baseline needs at least the same budget",
        )
        return found


def _require_grid(field: str, values: tuple[float, ...] | None, least: float) -> None:
    if values is None:
        return
    require(len(values) > 0, field, "must name at least one")
    require(len(set(values)) == len(values), field, "names a value twice")
    for value in values:
        require(least <= value <= LARGEST_ALPHA, field, f"cannot hold {value:g}")
