"""The statistics that are tested by sign flips, each computed for many sign patterns at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lab.linearity.checks import BoolArray, FloatArray
from lab.linearity.filters import Protocol
from lab.linearity.forecast import damped_skill_of_products
from lab.linearity.increments import lag_cosine_of_products, split_half_of_products
from lab.linearity.products import increment_products, unflipped
from lab.linearity.r_squared import r_squared_unchecked, summarise

_BLOCK = 2**16  # (pattern, element) pairs at a time: a handful of float64 arrays that stay in cache.
_CAST_PATTERNS = 16
_CAST_BLOCK = 2**16  # Likewise (checkpoint, pattern, element) triples, where whole paths are rebuilt.


@dataclass(frozen=True)
class MedianRSquared:
    """Median R² over the elements that pass the protocol's cast and filter; NaN if none has an R²."""

    protocol: Protocol
    kind: str

    def __call__(self, values: FloatArray, steps: FloatArray) -> float:
        stored = self.protocol.cast(values, self.kind)
        return summarise(r_squared_unchecked(stored[:, self.protocol.keep(stored, self.kind)], steps)).median

    def flipped(self, values: FloatArray, steps: FloatArray, signs: FloatArray) -> FloatArray:
        """Cast and filter are applied anew to every flipped path; see `FlippedStatistic`."""
        if self.kind == "weights" and (
            self.protocol.casts("weights") or not self.protocol.keeps_all("weights")
        ):
            return self._flipped_paths(values, steps, signs)
        from lab.linearity.flipped_r_squared import FlippedRSquared

        medians = np.empty(len(signs))
        moved = values[:, np.any(values != values[0], axis=0)]
        if moved.shape[1] == 0:
            return np.full(len(signs), np.nan)
        r_squared = FlippedRSquared(moved, steps)
        block = max(1, _BLOCK // moved.shape[1])
        for start in range(0, len(signs), block):
            part = signs[start : start + block]
            r2 = r_squared(part)
            if self.protocol.logprobs_change is not None and self.kind == "logprobs":
                change = np.abs(part @ np.diff(moved, axis=0))
                medians[start : start + block] = _median_where(r2, change > self.protocol.logprobs_change)
            else:
                medians[start : start + block] = _median(r2)
        return medians

    def _flipped_paths(self, values: FloatArray, steps: FloatArray, signs: FloatArray) -> FloatArray:
        """Rebuild, cast and filter every path, without elements that no flip can carry past the filter."""
        increments = np.diff(values, axis=0)
        if self.protocol.weights_range is not None:
            rounding = np.abs(values).max(axis=0) + np.abs(increments).sum(axis=0)
            reach = (
                np.abs(increments).sum(axis=0) + rounding * 2.0**-7
            )  # Both ends move by at most 2^-8 each.
            possible = reach > self.protocol.weights_range
            values, increments = values[:, possible], increments[:, possible]
        medians = np.full(len(signs), np.nan)
        if values.shape[1] == 0:
            return medians
        width = max(1, _CAST_BLOCK // (len(steps) * _CAST_PATTERNS))
        for start in range(0, len(signs), _CAST_PATTERNS):
            part = signs[start : start + _CAST_PATTERNS]
            r2 = np.empty((len(part), values.shape[1]))
            for left in range(0, values.shape[1], width):
                columns = slice(left, left + width)
                r2[:, columns] = self._r_squared_of_paths(
                    values[0, columns], increments[:, columns], steps, part
                )
            medians[start : start + _CAST_PATTERNS] = _median_where(r2, ~np.isnan(r2))
        return medians

    def _r_squared_of_paths(
        self, first: FloatArray, increments: FloatArray, steps: FloatArray, signs: FloatArray
    ) -> FloatArray:
        """R² of every element under every sign pattern, [pattern, element]; NaN where filtered out."""
        paths = np.empty((len(steps), len(signs), len(first)))
        paths[0] = first
        np.multiply(signs.T[:, :, None], increments[:, None, :], out=paths[1:])
        for row in range(1, len(steps)):
            paths[row] += paths[row - 1]
        stored = self.protocol.cast(paths.reshape(len(steps), -1), self.kind)
        kept = self.protocol.keep(stored, self.kind)
        r2 = np.full(kept.shape, np.nan)
        r2[kept] = r_squared_unchecked(stored[:, kept], steps)
        return r2.reshape(len(signs), len(first))


@dataclass(frozen=True)
class DampedSkill:
    """Pooled damped forecast skill (`lab.linearity.forecast.forecast_skill`), damping chosen in each path."""

    fit_share: float = 0.75

    def __call__(self, values: FloatArray, steps: FloatArray) -> float:
        products = increment_products(values)
        return float(damped_skill_of_products(products, steps, unflipped(products), self.fit_share)[0])

    def flipped(self, values: FloatArray, steps: FloatArray, signs: FloatArray) -> FloatArray:
        """See `FlippedStatistic`."""
        return damped_skill_of_products(increment_products(values), steps, signs, self.fit_share)


@dataclass(frozen=True)
class LagCosine:
    """Lag cosine at one lag (`lab.linearity.increments.lag_cosine`)."""

    lag: int = 1

    def __call__(self, values: FloatArray, steps: FloatArray) -> float:
        products = increment_products(values)
        return float(lag_cosine_of_products(products, unflipped(products), self.lag)[0])

    def flipped(self, values: FloatArray, steps: FloatArray, signs: FloatArray) -> FloatArray:
        """See `FlippedStatistic`."""
        return lag_cosine_of_products(increment_products(values), signs, self.lag)


@dataclass(frozen=True)
class SplitHalf:
    """First against second half (`lab.linearity.increments.split_half`)."""

    gap: int = 1

    def __call__(self, values: FloatArray, steps: FloatArray) -> float:
        products = increment_products(values)
        return float(split_half_of_products(products, unflipped(products), self.gap)[0])

    def flipped(self, values: FloatArray, steps: FloatArray, signs: FloatArray) -> FloatArray:
        """See `FlippedStatistic`."""
        return split_half_of_products(increment_products(values), signs, self.gap)


def _median(table: FloatArray) -> FloatArray:
    """Median of each row, in less time than NumPy's, which asks for both middle places; `table` is reordered."""
    width = table.shape[1]
    table.partition(width // 2, axis=1)
    upper = table[:, width // 2]
    return upper if width % 2 else 0.5 * (table[:, : width // 2].max(axis=1) + upper)


def _median_where(table: FloatArray, mask: BoolArray) -> FloatArray:
    """Median of each row over the entries where `mask` holds, NaN where it holds nowhere; [row]."""
    ordered = np.sort(np.where(mask, table, np.inf), axis=1)
    count = mask.sum(axis=1)
    rows = np.arange(len(table))
    low, high = ordered[rows, np.maximum(count - 1, 0) // 2], ordered[rows, count // 2 * (count > 0)]
    return np.where(count > 0, 0.5 * (low + high), np.nan)
