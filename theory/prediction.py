"""The form of a prediction: laws that derive themselves, and the points at which each is to be checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray


class InvalidArgument(ValueError):
    """An argument lies outside the domain of a law.

    Attributes:
        argument: name of the offending argument.
    """

    def __init__(self, argument: str, reason: str) -> None:
        super().__init__(f"{argument}: {reason}")
        self.argument = argument


@dataclass(frozen=True)
class Step:
    """One line of a derivation: what was done, and the expression that came of it."""

    text: str
    expression: sympy.Expr | sympy.Eq


@dataclass(frozen=True)
class Derivation:
    """A chain of sympy operations that ends in the stated result.

    Attributes:
        steps: the lines in order, each computed from those before it.
        result: the closed form that the last step arrives at.
        where: symbols in the result that stand for expressions in the parameters too long to be written out in it.
    """

    steps: tuple[Step, ...]
    result: sympy.Expr
    where: Mapping[sympy.Symbol, sympy.Expr] = field(default_factory=dict)

    def latex(self) -> str:
        """The result in LaTeX, without surrounding dollar signs."""
        return str(sympy.latex(self.result))

    def evaluate(self, parameters: dict[str, Any]) -> float:
        """The derived result as a number, by mpmath: the independent check on `Law.predict`.

        Symbols are matched by name and those absent from the result are ignored; finite sums and products
        are written out; integrals are done numerically. NaN where the result is a
        `Piecewise` that was not derived for these parameters.

        Raises:
            KeyError: the result holds a symbol that `parameters` lacks.
        """
        with mpmath.workdps(_DIGITS):
            return float(_evaluate(self.result, parameters, self.where))


@dataclass(frozen=True)
class Point:
    """A set of parameters at which a law is compared with simulation.

    Attributes:
        parameters: handed to `Law.predict(**parameters)` and to the simulator alike.
        tolerance: absolute error that an approximate law admits to; 0 for an exact one, where the only
            discrepancy allowed is the standard error of the simulation.
    """

    parameters: dict[str, float | int | str] = field(default_factory=dict)
    tolerance: float = 0.0


@dataclass(frozen=True)
class Law:
    """One formula: what it says, what it rests on, how it is derived, how it is evaluated.

    Attributes:
        name: identifier in snake case, unique within its prediction.
        statement: the law in words, with its symbols named.
        assumptions: conditions under which the statement holds.
        derive: runs the derivation.
        predict: fast NumPy evaluation, broadcasting over its parameters; raises `InvalidArgument`.
        points: where simulation is to be compared with `predict`.
        order: None for an exact law, else the order of the approximation and where it breaks.
    """

    name: str
    statement: str
    assumptions: tuple[str, ...]
    derive: Callable[[], Derivation]
    predict: Callable[..., NDArray[np.float64]]
    points: tuple[Point, ...]
    order: str | None = None


@dataclass(frozen=True)
class Prediction:
    """The laws of one file.

    Attributes:
        number: position in the list of predictions, 1 to 12.
        name: module name within `theory`.
        title: a few words for a table or a figure.
        laws: the formulas, in the order in which they are derived.
    """

    number: int
    name: str
    title: str
    laws: tuple[Law, ...]

    def law(self, name: str) -> Law:
        """The law of that name.

        Raises:
            KeyError: no such law; the message lists those there are.
        """
        for law in self.laws:
            if law.name == name:
                return law
        raise KeyError(f"{self.name} has no law {name!r}; it has {', '.join(law.name for law in self.laws)}")


def finite(argument: str, value: ArrayLike) -> NDArray[np.float64]:
    """The value as a float array, refused unless every entry is finite."""
    return _checked(argument, value, np.isfinite, "must be finite")


def probability(argument: str, value: ArrayLike) -> NDArray[np.float64]:
    """The value as a float array, refused unless every entry lies in [0, 1]."""
    return _checked(argument, value, lambda x: (x >= 0) & (x <= 1), "must lie in [0, 1]")


def non_negative(argument: str, value: ArrayLike, *, infinite: bool = False) -> NDArray[np.float64]:
    """The value as a float array, refused unless every entry is >= 0 (and finite, unless `infinite`)."""
    return _checked(
        argument,
        value,
        lambda x: (x >= 0) & (infinite | np.isfinite(x)),
        "must be non-negative" + ("" if infinite else " and finite"),
    )


def positive(argument: str, value: ArrayLike, *, infinite: bool = False) -> NDArray[np.float64]:
    """The value as a float array, refused unless every entry is > 0 (and finite, unless `infinite`)."""
    return _checked(
        argument,
        value,
        lambda x: (x > 0) & (infinite | np.isfinite(x)),
        "must be positive" + ("" if infinite else " and finite"),
    )


def whole_number(argument: str, value: ArrayLike, minimum: int) -> NDArray[np.int64]:
    """The value as an integer array, refused unless every entry is a whole number >= minimum."""
    array = _checked(
        argument,
        value,
        lambda x: np.isfinite(x) & (x == np.round(x)) & (x >= minimum),
        f"must be a whole number of at least {minimum}",
    )
    return array.astype(np.int64)


def checkpoint_steps(argument: str, value: ArrayLike, *, minimum: int = 3) -> NDArray[np.float64]:
    """Checkpoint times, shape [checkpoint], refused unless strictly increasing and `minimum` or more."""
    steps = finite(argument, value)
    if steps.ndim != 1:
        raise InvalidArgument(argument, f"must be one-dimensional, got shape {steps.shape}")
    if steps.size < minimum:
        raise InvalidArgument(argument, f"needs at least {minimum} checkpoints, got {steps.size}")
    if not np.all(np.diff(steps) > 0):
        raise InvalidArgument(argument, "must be strictly increasing")
    return steps


def covariance_matrix(argument: str, value: ArrayLike, *, definite: bool = True) -> NDArray[np.float64]:
    """Covariances, shape [..., n, n], refused unless symmetric and positive definite (or semi-definite)."""
    matrix = finite(argument, value)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise InvalidArgument(argument, f"must be square in its last two axes, got shape {matrix.shape}")
    scale = np.abs(matrix).max(axis=(-1, -2), keepdims=True, initial=0.0)
    if np.any(np.abs(matrix - np.swapaxes(matrix, -1, -2)) > 1e-10 * scale):
        raise InvalidArgument(argument, "must be symmetric")
    smallest = np.linalg.eigvalsh(matrix)[..., :1]
    if definite and np.any(smallest <= 0):
        raise InvalidArgument(argument, "must be positive definite")
    if np.any(smallest < -1e-10 * scale[..., 0]):
        raise InvalidArgument(argument, "must be positive semi-definite")
    return matrix


def identity(text: str, left: sympy.Expr, right: sympy.Expr) -> Step:
    """The step `left = right`, once sympy has simplified their difference to zero.

    Raises:
        ArithmeticError: the difference does not simplify to zero: the derivation is wrong.
    """
    difference = left - right
    # simplification may stop short of zero, or spoil a trigonometric sum: several forms are tried
    forms: tuple[Callable[[sympy.Expr], sympy.Expr], ...] = (
        sympy.expand,
        sympy.simplify,
        lambda e: sympy.simplify(sympy.expand(e.rewrite(sympy.exp))),
        lambda e: sympy.simplify(sympy.together(e.rewrite(sympy.exp))),
    )
    if any(form(difference) == 0 for form in forms):
        return Step(text, sympy.Eq(left, right, evaluate=False))
    raise ArithmeticError(f"{text}: {left} is not {right}")


def _evaluate(
    expression: sympy.Expr, parameters: Mapping[str, Any], where: Mapping[sympy.Symbol, sympy.Expr]
) -> mpmath.mpf:
    """The expression as a number, at the precision that is set; symbols are matched by name."""
    symbols = expression.free_symbols
    missing = {symbol.name for symbol in symbols - where.keys()} - parameters.keys()
    if missing:
        raise KeyError(f"the derived result also needs {', '.join(sorted(missing))}")
    whole = {symbol: sympy.Integer(parameters[symbol.name]) for symbol in symbols if symbol.is_integer}
    settled = _settled(expression, whole)
    real = {
        symbol: _evaluate(where[symbol], parameters, {})
        if symbol in where
        else mpmath.mpf(parameters[symbol.name])
        for symbol in settled.free_symbols
    }
    return mpmath.re(_compile(settled, list(real))(*real.values()))


def _settled(expression: sympy.Expr, whole: dict[sympy.Symbol, sympy.Integer]) -> sympy.Expr:
    """With the whole numbers put in and each outermost `Piecewise` replaced by the branch they select."""
    if isinstance(expression, sympy.Piecewise):
        for branch, condition in expression.args:
            if condition.xreplace(whole) == sympy.true:
                return _settled(branch, whole)
        return sympy.nan
    return expression.xreplace(whole)


_DIGITS = 60  # closed forms may cancel near the origin; mpmath hardly slows down with digits


def _numeric(expression: sympy.Expr) -> mpmath.mpf:
    """A sympy expression without free symbols as an mpmath number."""
    return mpmath.re(_compile(sympy.sympify(expression), [])())


def _compile(expression: sympy.Expr, arguments: list[sympy.Symbol]) -> Callable[..., Any]:
    """An mpmath function of `arguments`; sums, products and integrals are evaluated, never expanded by sympy.

    (Written out with exact sines and roots, they would send sympy's assumptions into factorisation.)
    """
    parts: dict[sympy.Expr, sympy.Dummy] = {}
    walk = sympy.preorder_traversal(expression)
    for node in walk:
        if isinstance(node, (sympy.Sum, sympy.Product, sympy.Integral)):
            parts.setdefault(node, sympy.Dummy("part"))
            walk.skip()
    evaluators = [_compile_part(part, arguments) for part in parts]
    body = sympy.lambdify(
        [*arguments, *parts.values()], sympy.N(expression.xreplace(parts), _DIGITS), "mpmath", cse=True
    )
    return lambda *values: body(*values, *(evaluate(*values) for evaluate in evaluators))


def _compile_part(part: sympy.Expr, arguments: list[sympy.Symbol]) -> Callable[..., Any]:
    (variable, low, high), *others = part.limits
    if others:
        raise NotImplementedError("only one-dimensional sums, products and integrals are evaluated")
    if isinstance(part, sympy.Integral):
        integrand = _compile(part.function, [*arguments, variable])
        if (low, high) == (0, sympy.oo):
            return lambda *values: _half_line(lambda x: integrand(*values, x))
        ends = [_numeric(low), _numeric(high)]
        return lambda *values: mpmath.quad(lambda x: integrand(*values, x), ends)
    indices = range(int(_numeric(low)), int(_numeric(high)) + 1)
    terms = [_compile(part.function.subs(variable, index), arguments) for index in indices]
    combine = mpmath.fsum if isinstance(part, sympy.Sum) else mpmath.fprod
    return lambda *values: combine(term(*values) for term in terms)


def _half_line(integrand: Callable[[Any], Any]) -> mpmath.mpf:
    """Integral from 0 to infinity of a function analytic near the half line: trapezoid in the logarithm."""
    spacing = mpmath.mpf(1) / 4
    total = mpmath.fsum(x * integrand(x) for k in range(-128, 0) for x in (mpmath.exp(spacing * k),))
    quiet = 0
    for k in range(320):
        x = mpmath.exp(spacing * k)
        term = x * integrand(x)
        total += term
        quiet = quiet + 1 if abs(term) < mpmath.mpf(10) ** -18 * abs(total) else 0
        if quiet == 6:
            break
    return spacing * total


def _checked(
    argument: str, value: ArrayLike, accept: Callable[[Any], Any], reason: str
) -> NDArray[np.float64]:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(argument, f"must be numeric, got {value!r}") from error
    if not np.all(accept(array)):
        raise InvalidArgument(argument, f"{reason}, got {value!r}")
    return array
