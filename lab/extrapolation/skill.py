"""How well extrapolators forecast checkpoints that they have not seen, from one pass over the weights.

The squared error of a forecast x_o + sum_j a_j d_j of a later checkpoint is a quadratic form in the inner products
of increments, so every method, origin and horizon is judged on the same few numbers a tensor. Skill is
1 - squared error / that of standing still, both summed over all weights (copied tensors count, as standing still).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from lab.errors import BadInput
from lab.extrapolation.combination import jump_of_combination
from lab.extrapolation.extrapolator import NO_RULES, Extrapolator, JumpRules, State
from lab.extrapolation.products import gather_products
from lab.extrapolation.settings import EXTRAPOLATORS, build_extrapolator, default_method
from lab.linearity.checks import FloatArray
from lab.linearity.products import ratio

if TYPE_CHECKING:
    from lab.trajectory.series import CheckpointSeries

FEWEST_BEFORE = 4
"""Checkpoints before an origin, where there are enough: what the most demanding method needs."""


def squared_errors(products: FloatArray, origin: int, jumps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return squared errors of forecasts from one origin, and those of persistence, each [target].

    Args:
        products: [interval, interval], inner products of the increments of the whole series.
        origin: row of the last checkpoint seen.
        jumps: [target, interval], forecasts of checkpoints origin + 1 to the last, in increments before `origin`.
    """
    count = len(products) - origin
    if jumps.shape != (count, origin):
        raise ValueError(f"expected jumps of shape {(count, origin)}, got {jumps.shape}")
    after = np.tri(count)  # the displacement to target m is the sum of increments up to m
    actual = np.einsum("tj,jl,tl->t", after, products[origin:, origin:], after)
    shared = np.einsum("tj,jl,tl->t", jumps, products[:origin, origin:], after)
    walked = np.einsum("tj,jl,tl->t", jumps, products[:origin, :origin], jumps)
    return np.maximum(actual - 2 * shared + walked, 0.0), actual


def skill_of_combination(products: FloatArray, combination: ArrayLike, target: int) -> float:
    """Return the skill of one combination of the first checkpoints as a forecast of a later one.

    Args:
        products: [interval, interval], inner products of increments, of one tensor or summed over many.
        combination: [checkpoint], weights on the first checkpoints, sum 1; the last of them is the origin.
        target: row of the checkpoint that is forecast.

    Returns:
        1 - squared error / squared error of persistence; NaN if nothing moved from origin to target.
    """
    jump = jump_of_combination(np.asarray(combination, dtype=np.float64))
    origin = len(jump)
    jumps = np.zeros((len(products) - origin, origin))
    jumps[target - origin - 1] = jump
    errors, still = squared_errors(products, origin, jumps)
    row = target - origin - 1
    return float(1.0 - ratio(errors[row : row + 1], still[row : row + 1])[0])


@dataclass(frozen=True)
class Comparison:
    """Squared errors of several methods from rolling origins.

    Attributes:
        methods: labels.
        steps: [checkpoint].
        origins: [origin], rows of the checkpoints from which was forecast.
        still: [origin, checkpoint], squared error of persistence, summed over weights; NaN up to the origin.
        errors: [method, origin, checkpoint], likewise; NaN also where the method needs more checkpoints.
    """

    methods: tuple[str, ...]
    steps: FloatArray
    origins: tuple[int, ...]
    still: FloatArray
    errors: FloatArray

    @property
    def judged(self) -> np.ndarray:
        """[origin, checkpoint], the forecasts that enter `skill`: those that every method could make at all."""
        able = ~np.isnan(self.errors).all(axis=(1, 2))
        return np.asarray(~np.isnan(self.errors[able]).any(axis=0))

    def skill(self) -> FloatArray:
        """[method], pooled over the same origins and targets for all; NaN for a method that made no forecast."""
        return self._skill(self.judged)

    def skill_from_origin(self) -> FloatArray:
        """[method, origin], pooled over targets."""
        return np.stack(
            [self._skill(self.judged & row) for row in np.eye(len(self.origins), dtype=bool)[..., None]], 1
        )

    def skill_by_horizon(self) -> tuple[FloatArray, FloatArray]:
        """Horizons in steps, [horizon], and skill pooled over the origins that have each, [method, horizon]."""
        ahead = self.steps[None, :] - self.steps[list(self.origins)][:, None]
        horizons = np.unique(ahead[self.judged])
        skill = [self._skill(self.judged & np.isclose(ahead, horizon)) for horizon in horizons]
        return horizons, np.stack(skill, axis=1) if skill else np.zeros((len(self.methods), 0))

    def numbers(self) -> dict[str, Any]:
        """Return what is written to summary.json."""
        horizons, by_horizon = self.skill_by_horizon()
        return {
            "origins": self.steps[list(self.origins)],
            "horizons": horizons,
            "methods": {
                method: {"skill": skill, "skill_by_horizon": by}
                for method, skill, by in zip(self.methods, self.skill(), by_horizon, strict=True)
            },
        }

    def _skill(self, cells: np.ndarray) -> FloatArray:
        kept = np.where(cells, self.errors, 0.0).sum(axis=(1, 2))
        unable = np.isnan(self.errors).all(axis=(1, 2))
        kept[unable] = np.nan
        return 1.0 - ratio(kept, np.full(len(kept), np.where(cells, self.still, 0.0).sum()))


def compare_products(
    steps: ArrayLike,
    products: Mapping[str, FloatArray],
    extrapolators: Mapping[str, Extrapolator],
    origins: Sequence[int] | None = None,
) -> Comparison:
    """Judge extrapolators on inner products: each is fitted to what lies before an origin and forecasts what follows.

    Args:
        steps: [checkpoint].
        products: of each tensor, [interval, interval].
        extrapolators: by label.
        origins: rows; by default all with at least `FEWEST_BEFORE` checkpoints up to and including them, or two where
            the series is too short for that.

    Raises:
        BadInput: fewer than three checkpoints, or an origin that leaves nothing to fit or nothing to forecast.
    """
    times = np.asarray(steps, dtype=np.float64)
    count = len(times)
    if count < 3:
        raise BadInput(
            f"checkpoints: judging a forecast takes at least 3 (two to fit, one to judge), there are {count}"
        )
    if origins is None:
        origins = range(min(FEWEST_BEFORE - 1, count - 2), count - 1)
    for origin in origins:
        if not 1 <= origin <= count - 2:
            raise BadInput(
                f"origins: row {origin} leaves nothing to fit or nothing to forecast; use 1 to {count - 2}"
            )
    still = np.full((len(origins), count), np.nan)
    errors = np.full((len(extrapolators), len(origins), count), np.nan)
    for row, origin in enumerate(origins):
        still[row, origin + 1 :] = sum(
            squared_errors(each, origin, _nothing(each, origin))[1] for each in products.values()
        )
        for which, extrapolator in enumerate(extrapolators.values()):
            if origin + 1 >= extrapolator.minimum_checkpoints:
                errors[which, row, origin + 1 :] = _errors(extrapolator, times, products, origin)
    return Comparison(tuple(extrapolators), times, tuple(origins), still, errors)


def compare(
    series: CheckpointSeries,
    methods: Sequence[str | Mapping[str, Any]] = tuple(EXTRAPOLATORS),
    origins: Sequence[int] | None = None,
    rules: JumpRules = NO_RULES,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Judge extrapolators on the held-out checkpoints of a series; reads every weight once.

    Args:
        series: from `lab.trajectory.readers.open_series`, or a run's.
        methods: names, with the shipped settings, or full settings (with their `name`).
        origins: see `compare_products`.
        rules: what is copied, and the cap on jumps.
        progress: called with the bytes of each slice that was read.

    Raises:
        BadInput: an unknown method, too few checkpoints, or weights that are not finite.
    """
    nodes = [default_method(each) if isinstance(each, str) else dict(each) for each in methods]
    labels = [str(node.get("name")) for node in nodes]
    labels = [
        name if labels.count(name) == 1 else f"{name} {labels[:i].count(name) + 1}"
        for i, name in enumerate(labels)
    ]
    extrapolators = {
        label: build_extrapolator(node, rules) for label, node in zip(labels, nodes, strict=True)
    }
    return compare_products(series.steps, gather_products(series, progress), extrapolators, origins)


def _errors(
    extrapolator: Extrapolator, steps: FloatArray, products: Mapping[str, FloatArray], origin: int
) -> FloatArray:
    """Squared errors of all targets after `origin`, summed over tensors; fitted on nothing after it."""
    seen = State(steps[: origin + 1], {name: each[:origin, :origin] for name, each in products.items()})
    extrapolator.finish(seen)
    total = np.zeros(len(steps) - origin - 1)
    for name, each in products.items():
        total += squared_errors(each, origin, extrapolator.jump(seen, name, list(steps[origin + 1 :])))[0]
    return total


def _nothing(products: FloatArray, origin: int) -> FloatArray:
    return np.zeros((len(products) - origin, origin))
