"""Settings of the noisy quadratic, torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lab.objectives.synthetic_settings import SyntheticSettings, vector
from lab.settings import Invalid, require

Numbers = float | tuple[float, ...]


@dataclass(frozen=True)
class Spectrum:
    """Curvatures by rule, from the largest down."""

    name: Literal["constant", "power_law", "log_uniform"]
    """`constant`: all equal; `power_law`: largest / i^exponent for the i-th; `log_uniform`: evenly spaced in the
    logarithm from `largest` to `smallest`."""
    largest: float
    """The first curvature."""
    smallest: float | None
    """The last one, for `log_uniform`; null otherwise."""
    exponent: float | None
    """Of the decay, for `power_law`; null otherwise."""

    def __post_init__(self) -> None:
        require(self.largest >= 0, "largest", f"a curvature must not be negative, got {self.largest}")
        for field, owner in (("smallest", "log_uniform"), ("exponent", "power_law")):
            value = getattr(self, field)
            require(
                value is None or self.name == owner,
                field,
                f"only spectrum.name={owner} reads it; set it to null",
            )
            require(value is not None or self.name != owner, field, f"spectrum.name={owner} needs it")
        if self.smallest is not None:
            require(
                0 < self.smallest <= self.largest,
                "smallest",
                f"must be positive and not above largest={self.largest}, got {self.smallest}",
            )

    def curvatures(self, count: int) -> np.ndarray:
        """Return float64 [coordinate], in the inverse squared unit of the coordinates."""
        if self.name == "power_law":
            assert self.exponent is not None
            return self.largest * np.arange(1, count + 1, dtype=np.float64) ** -self.exponent
        if self.name == "log_uniform":
            assert self.smallest is not None
            return np.geomspace(self.largest, self.smallest, count)
        return np.full(count, self.largest)


@dataclass(frozen=True)
class QuadraticSettings(SyntheticSettings):
    """Keys of the noisy quadratic: gradient h (theta - optimum) + slope + noise, coordinate by coordinate."""

    coordinates: int
    """Coordinates of a replicate."""
    spectrum: tuple[float, ...] | Spectrum
    """Curvatures h: a rule, or a list of them."""
    optimum: Numbers
    """Where the bowl is lowest: one number, or one for each coordinate."""
    start: Numbers
    """Where every replicate starts, likewise."""
    slope: Numbers
    """Constant added to the gradient, likewise: a drift that does not depend on the position."""
    noise: Numbers
    """Standard deviation of the gradient noise of one sample, likewise."""
    noise_rank: int | None
    """The noise lies in so many random directions that the coordinates share (covariance of this rank, with the
    standard deviations that `noise` gives); null: independent coordinates."""
    batch_size: int
    """Samples of an update; divides the variance of the noise."""

    shape_keys: ClassVar[tuple[str, ...]] = ("coordinates",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.coordinates >= 1, "coordinates", f"must be at least 1, got {self.coordinates}")
        for field in ("optimum", "start", "slope", "noise"):
            vector(getattr(self, field), self.coordinates, field)
        for value in vector(self.noise, self.coordinates, "noise"):
            require(value >= 0, "noise", f"a standard deviation must not be negative, got {value}")
        if isinstance(self.spectrum, tuple):
            vector(self.spectrum, self.coordinates, "spectrum")
            for value in self.spectrum:
                require(value >= 0, "spectrum", f"a curvature must not be negative, got {value}")
        rank = self.noise_rank
        if rank is not None and not 1 <= rank <= self.coordinates:
            raise Invalid("noise_rank", f"must lie between 1 and coordinates={self.coordinates}, got {rank}")
        require(self.batch_size >= 1, "batch_size", f"must be at least 1, got {self.batch_size}")

    @property
    def coordinates_each(self) -> int:
        """See `SyntheticSettings`."""
        return self.coordinates

    def curvatures(self) -> np.ndarray:
        """Return h, float64 [coordinate]; zero for the pure-noise twin."""
        if self.pure_noise:
            return np.zeros(self.coordinates)
        if isinstance(self.spectrum, tuple):
            return np.array(self.spectrum)
        return self.spectrum.curvatures(self.coordinates)

    def slopes(self) -> np.ndarray:
        """Return the constant part of the gradient, float64 [coordinate]; zero for the pure-noise twin."""
        given = np.array(vector(self.slope, self.coordinates, "slope"))
        return np.zeros_like(given) if self.pure_noise else given

    def noise_of_an_update(self) -> np.ndarray:
        """Return the standard deviation of the gradient of an update, float64 [coordinate]."""
        return np.array(vector(self.noise, self.coordinates, "noise")) / self.batch_size**0.5
