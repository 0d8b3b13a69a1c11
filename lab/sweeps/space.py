"""The search space: keys of the configuration with values in Hydra's override grammar, and linked overrides.

`choice(a,b)`, `a,b`, `range(start,stop,step)` and `glob(pattern)` have finitely many values, `interval(low,high)` a
continuum: `tag(log, interval(...))` is spread over its logarithm, `int(interval(...))` holds whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    Glob,
    IntervalSweep,
    QuotedString,
    RangeSweep,
    Transformer,
)
from hydra.errors import HydraException

from lab.arguments import quote
from lab.errors import BadInput

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Label = str | int | float | bool | None
"""A value of an axis as Optuna, tables and datasets show it."""


class Axis(Protocol):
    """One dimension of a search space."""

    @property
    def key(self) -> str:
        """The key of the configuration, or the name of a set of linked overrides."""

    @property
    def labels(self) -> tuple[Label, ...] | None:
        """All values in order; None for a continuum."""

    def at(self, share: float) -> Label:
        """The value at `share` in [0, 1) of the axis: uniform shares give the axis's own distribution."""

    def distribution(self) -> BaseDistribution:
        """The axis as Optuna knows it."""

    def overrides(self, label: Label) -> tuple[str, ...]:
        """The overrides that a value stands for."""


@dataclass(frozen=True)
class Options:
    """Finitely many values, each a tuple of overrides.

    `step` is the spacing where the values are numbers of a range, so that a sampler may use their order.
    """

    key: str
    labels: tuple[Label, ...]
    meanings: tuple[tuple[str, ...], ...]
    step: float | None = None

    def at(self, share: float) -> Label:
        """See `Axis`."""
        return self.labels[min(int(share * len(self.labels)), len(self.labels) - 1)]

    def distribution(self) -> BaseDistribution:
        """See `Axis`."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.step is None or len(self.labels) == 1:
            return CategoricalDistribution(self.labels)
        numbers = sorted(float(label) for label in self.labels if label is not None)
        if all(isinstance(label, int) for label in self.labels):
            return IntDistribution(int(numbers[0]), int(numbers[-1]), step=int(self.step))
        return FloatDistribution(numbers[0], numbers[-1], step=self.step)

    def overrides(self, label: Label) -> tuple[str, ...]:
        """See `Axis`."""
        if self.step is None:
            return self.meanings[self.labels.index(label)]
        distances = [abs(float(known or 0) - float(label or 0)) for known in self.labels]
        return self.meanings[distances.index(min(distances))]


@dataclass(frozen=True)
class Interval:
    """All numbers from `low` to `high`, or all whole ones; `log` spreads them evenly over the logarithm."""

    key: str
    low: float
    high: float
    whole: bool
    log: bool
    labels: None = None

    def at(self, share: float) -> Label:
        """See `Axis`."""
        end = self.high + 1 if self.whole else self.high
        if self.log:
            value = math.exp(math.log(self.low) + share * math.log(end / self.low))
        else:
            value = self.low + share * (end - self.low)
        if self.whole:
            return min(math.floor(value), int(self.high))
        return min(max(value, self.low), self.high)

    def distribution(self) -> BaseDistribution:
        """See `Axis`."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def overrides(self, label: Label) -> tuple[str, ...]:
        """See `Axis`."""
        return (f"{self.key}={label!r}",)


@dataclass(frozen=True)
class Space:
    """The axes of a sweep, in the order in which they were written."""

    axes: tuple[Axis, ...]

    @property
    def size(self) -> int | None:
        """Number of points of the full grid; None where an axis is a continuum."""
        sizes = [None if axis.labels is None else len(axis.labels) for axis in self.axes]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def grid_point(self, index: int) -> dict[str, Label]:
        """The point number `index` of the full grid; the last axis changes fastest."""
        values: dict[str, Label] = {}
        for axis in reversed(self.axes):
            assert axis.labels is not None
            index, position = divmod(index, len(axis.labels))
            values[axis.key] = axis.labels[position]
        return {axis.key: values[axis.key] for axis in self.axes}

    def at(self, shares: Sequence[float]) -> dict[str, Label]:
        """The point at the given share of each axis, shares in [0, 1)."""
        return {axis.key: axis.at(float(share)) for axis, share in zip(self.axes, shares, strict=True)}

    def overrides(self, point: Mapping[str, Label]) -> list[str]:
        """The overrides that a point stands for."""
        return [text for axis in self.axes for text in axis.overrides(point[axis.key])]

    def distributions(self) -> dict[str, BaseDistribution]:
        """The space as Optuna knows it."""
        return {axis.key: axis.distribution() for axis in self.axes}

    def describe(self) -> dict[str, str]:
        """What a changed space is recognised by: every axis in a canonical form."""
        return {axis.key: repr(axis) for axis in self.axes}


def parse_space(
    space: Mapping[str, Any], groups: Mapping[str, Any], loader: ConfigLoader | None = None
) -> Space:
    """Read `sweep.space` and `sweep.groups`.

    Args:
        space: key -> text in Hydra's override grammar.
        groups: name -> label -> list of overrides that belong together.
        loader: finds the options of a configuration group for `glob(...)`.

    Raises:
        BadInput: a text that Hydra cannot read, an interval with low > high, values that are none; names the key.
    """
    axes = [_axis(str(key), text, loader) for key, text in space.items()]
    axes += [_linked(str(key), options) for key, options in groups.items()]
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise BadInput(f"sweep.groups.{key}: sweep.space has an axis of this name too")
    if not axes:
        raise BadInput(
            "sweep.space: empty; name keys and their values there, for example steps: choice(100,200) "
            "(`experiment=NAME` chooses a configuration that has them)"
        )
    return Space(tuple(axes))


def _axis(key: str, text: Any, loader: ConfigLoader | None) -> Axis:
    where = f"sweep.space.{key}"
    if isinstance(text, (list, dict)) or text is None:
        raise BadInput(f"{where}: expected a text such as choice(1,2) or interval(0,1), got {text!r}")
    if key[:1] in "+~":
        raise BadInput(f"{where}: give the plain key, which has to exist in the configuration")
    text = str(text).lower() if isinstance(text, bool) else str(text)
    try:
        override = OverridesParser.create(config_loader=loader).parse_overrides([f"{key}={text}"])[0]
        value: Any = override.value()
    except HydraException as error:
        raise BadInput(f"{where}: cannot read {text!r} ({' '.join(str(error).split())})") from None
    if getattr(value, "shuffle", False):
        raise BadInput(f"{where}: shuffle has no place here, the order of points has to stay the same")
    if isinstance(value, IntervalSweep):
        return _interval(where, key, value)
    if not override.is_sweep_override():
        elements = [value]
    else:
        elements = [_tidy(element) for element in override.sweep_iterator()]
    if isinstance(value, Glob):
        elements = [name for name in elements if not name.startswith("_")]  # those are shared parts
    if not elements and isinstance(value, Glob):
        names = loader.get_group_options(key) if loader is not None else []
        raise BadInput(f"{where}: {text} matches nothing; there are: {', '.join(names) or '(none)'}")
    if not elements:
        raise BadInput(f"{where}: {text} has no values")
    labels = tuple(dict.fromkeys(_label(element) for element in elements))
    kinds = {isinstance(element, bool) for element in elements if isinstance(element, (bool, int, float))}
    if len(kinds) > 1:  # Python and Optuna take true for 1
        raise BadInput(f"{where}: {text} mixes true or false with numbers; use one of the two")
    meanings = {_label(element): (f"{key}={_written(element)}",) for element in elements}
    step = float(value.step) if isinstance(value, RangeSweep) else None
    return Options(key, labels, tuple(meanings[label] for label in labels), step and abs(step))


def _interval(where: str, key: str, value: IntervalSweep) -> Interval:
    low, high = value.start, value.end
    assert low is not None and high is not None
    if low > high:
        raise BadInput(f"{where}: low {low:g} is above high {high:g}")
    unknown = value.tags - {"log"}
    if unknown:
        raise BadInput(f"{where}: unknown tag {', '.join(sorted(unknown))}; known: log")
    log = "log" in value.tags
    whole = isinstance(low, int) and isinstance(high, int)
    if log and low <= 0:
        raise BadInput(f"{where}: a logarithmic interval has to lie above 0, got {low:g}")
    if not (math.isfinite(low) and math.isfinite(high)):
        raise BadInput(f"{where}: expected finite ends")
    return Interval(key, low, high, whole, log)


def _linked(name: str, options: Any) -> Options:
    where = f"sweep.groups.{name}"
    if not isinstance(options, Mapping) or not options:
        raise BadInput(f"{where}: expected labels, each with a list of overrides, got {options!r}")
    for label, overrides in options.items():
        texts = isinstance(overrides, (list, tuple)) and all(isinstance(text, str) for text in overrides)
        if not texts:
            raise BadInput(f"{where}.{label}: expected a list of overrides, got {overrides!r}")
    labels = tuple(str(label) for label in options)
    return Options(name, labels, tuple(tuple(options[label]) for label in options))


def _tidy(element: Any) -> Any:
    """Undo the rounding errors of a range: .1 + .1 + .1 is .3 here."""
    return float(f"{element:.12g}") if isinstance(element, float) else element


def _written(element: Any) -> str:
    """Return the value as Hydra reads it back: texts in quotes, since '1' would become a number."""
    return (
        quote(str(_label(element))) if isinstance(element, (str, QuotedString)) else Transformer.str(element)
    )


def _label(element: Any) -> Label:
    if element is None or isinstance(element, (bool, int, float)):
        return element
    if isinstance(element, QuotedString):
        return str(element.text)
    return element if isinstance(element, str) else str(Transformer.str(element))
