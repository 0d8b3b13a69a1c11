"""The family's interface: an extrapolator is a small accumulator over a series, then a combination of checkpoints.

`begin(steps)` makes the state, `observe` adds a slice of one tensor (only needed where `needs_products`), `finish`
closes it, `combination` says how much of each checkpoint goes into the forecast of a tensor, and `predict` applies
it to a slice. All that any method has to know about the weights is the matrix of inner products of their
increments, so a state holds one such matrix a tensor, whatever the size of the model.

To add a method: a file with a subclass that implements `jumps`, a settings class and a row in
`lab.extrapolation.settings`, its defaults in `lab/conf/method`, and a test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lab.errors import BadInput
from lab.extrapolation.combination import apply_combination, combination_of_jump
from lab.extrapolation.products import slice_products
from lab.linearity.checks import FloatArray
from lab.settings import require

Scope = Literal["pooled", "tensor"]
"""Whether a statistic is taken over all tensors together or for each by itself."""


@dataclass(frozen=True)
class JumpRules:
    """What holds for every method alike."""

    copy: tuple[str, ...]
    """Tensors with one of these in their name (in lower case) are not extrapolated but copied from the last."""
    norm_cap: float | None
    """Largest length of the jump, in displacements observed from the first to the last checkpoint; null for none."""
    norm_cap_scope: Scope
    """Over which the two lengths are taken."""

    def __post_init__(self) -> None:
        require(all(self.copy), "copy", "an empty word is in every name and would copy every tensor")
        require(
            self.norm_cap is None or self.norm_cap > 0,
            "norm_cap",
            f"must be positive or null, got {self.norm_cap}",
        )

    def copied(self, name: str) -> bool:
        """Whether the tensor is copied."""
        return any(word.lower() in name.lower() for word in self.copy)


NO_RULES = JumpRules(copy=(), norm_cap=None, norm_cap_scope="pooled")
"""Extrapolate every tensor as far as the method says."""


@dataclass
class State:
    """What has been observed of a series."""

    steps: FloatArray
    """[checkpoint]."""
    products: dict[str, FloatArray] = field(default_factory=dict)
    """Of each tensor: inner products of increments, [interval, interval]."""
    pooled: FloatArray | None = None
    """Their sum over the tensors that are not copied; set by `finish`."""
    memory: dict[tuple[object, ...], FloatArray] = field(default_factory=dict)
    """Jumps computed so far, by tensor (None: all) and targets."""


class Extrapolator(ABC):
    """One method.

    Args:
        scope: "pooled" if one combination serves all tensors, "tensor" if each has its own.
        rules: what is copied, and the cap on the jump.
    """

    minimum_checkpoints: ClassVar[int] = 2
    """Fewest checkpoints that the method can forecast from."""
    uses_products: ClassVar[bool] = True
    """Whether `jumps` looks at the inner products."""
    reference: ClassVar[int] = -1
    """Checkpoint from which the forecast is computed: last, except where published arithmetic starts elsewhere."""
    formula: ClassVar[str]
    """The forecast in one line, for the record."""

    def __init__(self, scope: Scope = "pooled", rules: JumpRules = NO_RULES) -> None:
        self.scope = scope
        self.rules = rules

    @property
    def needs_products(self) -> bool:
        """Whether a first pass over the weights is needed before `combination`."""
        return self.uses_products or self.rules.norm_cap is not None

    @abstractmethod
    def jumps(self, steps: FloatArray, products: FloatArray, targets: FloatArray) -> FloatArray:
        """Return the forecast jump from the last checkpoint to each target, in increments.

        Args:
            steps: [checkpoint].
            products: [interval, interval], inner products of increments; all zero where nothing moved, or, unless
                `uses_products`, where nobody looked.
            targets: [target], steps after the last checkpoint.

        Returns:
            [target, interval], float64: the forecast is x_last + sum_j a_j d_j.
        """

    def details(self, steps: FloatArray, products: FloatArray) -> dict[str, float]:
        """Return what the method chose for these products, by name, for the record."""
        return {}

    def begin(self, steps: ArrayLike) -> State:
        """Return the state of a series of which nothing has been observed.

        Args:
            steps: [checkpoint], strictly increasing.

        Raises:
            BadInput: fewer checkpoints than the method needs, or steps that do not increase.
        """
        times = np.asarray(steps, dtype=np.float64)
        if len(times) < self.minimum_checkpoints:
            raise BadInput(
                f"checkpoints: this method needs at least {self.minimum_checkpoints}, there "
                f"{'is' if len(times) == 1 else 'are'} {len(times)}"
            )
        if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
            raise BadInput("checkpoints: steps must be finite and increase strictly")
        return State(times)

    def observe(self, state: State, name: str, values: NDArray[np.floating]) -> None:
        """Add a slice of a tensor, [checkpoint, element]."""
        add_products(state.products, name, slice_products(values))

    def finish(self, state: State) -> State:
        """Close the first pass and return the state."""
        intervals = len(state.steps) - 1
        pooled = np.zeros((intervals, intervals))
        for name, products in state.products.items():
            if not self.rules.copied(name):
                pooled += products
        state.pooled = pooled
        return state

    def combination(self, state: State, name: str, target_step: float) -> FloatArray:
        """Return the weights on the checkpoints for one tensor, float64 [checkpoint], sum 1.

        Raises:
            BadInput: the target is not after the last checkpoint.
        """
        combination: FloatArray = combination_of_jump(self.jump(state, name, [target_step])[0])
        return combination

    def jump(self, state: State, name: str, target_steps: Sequence[float]) -> FloatArray:
        """Return the forecast jumps of one tensor with the rules applied, float64 [target, interval]; see `jumps`.

        Raises:
            BadInput: a target is not after the last checkpoint.
        """
        for step in target_steps:
            if not step > state.steps[-1]:
                raise BadInput(
                    f"target: step {step:g} is not after the last checkpoint used, step {state.steps[-1]:g}"
                )
        if self.rules.copied(name):
            return np.zeros((len(target_steps), len(state.steps) - 1))
        own = self.scope == "tensor" or (
            self.rules.norm_cap is not None and self.rules.norm_cap_scope == "tensor"
        )
        key = (name if own else None, *map(float, target_steps))
        if key not in state.memory:
            jumps = self._uncapped(state, name, target_steps)
            state.memory[key] = jumps * self._cap(state, name, jumps, target_steps)[:, None]
        return state.memory[key]

    def predict(
        self, state: State, name: str, values: NDArray[np.floating], target_step: float
    ) -> NDArray[np.floating]:
        """Return the forecast of a slice of one tensor at `target_step`, in the arithmetic of `values`.

        Args:
            state: finished, of the same checkpoints.
            name: of the tensor.
            values: [checkpoint, element], float32 or float64.
            target_step: after the last checkpoint.

        Raises:
            BadInput: see `combination`.
        """
        reference = -1 if self.rules.copied(name) else self.reference
        return apply_combination(values, self.combination(state, name, target_step), reference)

    def products(self, state: State, name: str) -> FloatArray:
        """Return the inner products that the method sees for a tensor: its own, or those of all."""
        intervals = len(state.steps) - 1
        if self.scope == "tensor":
            return state.products.get(name, np.zeros((intervals, intervals)))
        return state.pooled if state.pooled is not None else np.zeros((intervals, intervals))

    def _uncapped(self, state: State, name: str, target_steps: Sequence[float]) -> FloatArray:
        return self.jumps(state.steps, self.products(state, name), np.array(target_steps, dtype=np.float64))

    def _cap(self, state: State, name: str, jumps: FloatArray, target_steps: Sequence[float]) -> FloatArray:
        """Return the factors that bring the jumps under the cap, 1 where they are under it; [target]."""
        if self.rules.norm_cap is None:
            return np.ones(len(jumps))
        if self.rules.norm_cap_scope == "tensor":
            jumped, moved = _lengths(state.products.get(name, np.zeros((jumps.shape[1],) * 2)), jumps)
        elif self.scope == "pooled":
            assert state.pooled is not None
            jumped, moved = _lengths(state.pooled, jumps)
        else:
            jumped, moved = self._pooled_lengths(state, target_steps)
        allowed = self.rules.norm_cap**2 * moved
        return np.asarray(
            np.sqrt(np.divide(allowed, jumped, out=np.ones_like(jumped), where=jumped > allowed))
        )

    def _pooled_lengths(self, state: State, target_steps: Sequence[float]) -> tuple[FloatArray, float]:
        """Return the lengths over all tensors, each with a jump of its own."""
        key = ("lengths of all tensors", *map(float, target_steps))
        if key not in state.memory:
            total = np.zeros(len(target_steps) + 1)
            for name, products in state.products.items():
                if not self.rules.copied(name):
                    jumped, moved = _lengths(products, self._uncapped(state, name, target_steps))
                    total += np.append(jumped, moved)
            state.memory[key] = total
        return state.memory[key][:-1], float(state.memory[key][-1])


def _lengths(products: FloatArray, jumps: FloatArray) -> tuple[FloatArray, float]:
    """Return the squared lengths of the jumps, [target], and of the displacement over all intervals."""
    jumped = np.einsum("tj,jl,tl->t", jumps, products, jumps)
    return np.maximum(jumped, 0.0), max(float(products.sum()), 0.0)


def add_products(total: dict[str, FloatArray], name: str, products: FloatArray) -> None:
    """Add the inner products of one slice to those of its tensor."""
    if name in total:
        total[name] += products
    else:
        total[name] = products.copy()
