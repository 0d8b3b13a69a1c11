"""Each law's derivation, evaluated at its points, against its fast formula: policy gradients and Adam.

The other predictions have theirs in test_prediction.py: they are evaluated there through `Derivation.evaluate`.
"""

import contextlib
import inspect
from functools import cache

import mpmath
import numpy as np
import pytest
import sympy

from theory import PREDICTIONS

NAMES = ("grpo_drift", "finite_group", "reward_flips", "gradient_noise", "adam")


def numerically(expression):
    """Sums and products term by term, integrals by quadrature, the rest by sympy, to 30 digits."""
    if isinstance(expression, (sympy.Sum, sympy.Product)):
        ((index, first, last),) = expression.limits
        terms = [numerically(expression.function.subs(index, i)) for i in range(int(first), int(last) + 1)]
        return sympy.Add(*terms) if isinstance(expression, sympy.Sum) else sympy.Mul(*terms)
    if isinstance(expression, sympy.Integral):
        ((variable, first, last),) = expression.limits
        integrand = sympy.lambdify(variable, expression.function.doit(), "mpmath")
        nodes = [first, 0.1, last] if last.is_finite else [first, 1, 100, 10**4, 10**8, mpmath.inf]
        with mpmath.workdps(25):
            return sympy.Float(mpmath.quad(integrand, [mpmath.mpf(x) for x in nodes]))
    if expression.has(sympy.Sum, sympy.Product, sympy.Integral):
        return expression.func(*map(numerically, expression.args))
    return sympy.N(expression, 30)


@cache
def derived(prediction, name, index):
    """The derivation's result at a point; beside a singularity of it, within 1e-40 of the point."""
    law = PREDICTIONS[prediction].law(name)
    parameters = law.points[index].parameters
    defaults = {name: p.default for name, p in inspect.signature(law.predict).parameters.items()}
    arguments = {name: sympy.Rational(str(value)) for name, value in (defaults | parameters).items()}
    derivation = law.derive()
    result = derivation.result
    if result.has(sympy.nan):  # derived for some whole numbers only: NaN at the others
        return derivation.evaluate(defaults | parameters)

    def at(arguments):
        return complex(numerically(result.subs({x: arguments[x.name] for x in result.free_symbols})))

    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
        value = at(arguments)
        if np.isfinite(value):
            return value.real
    for name, value in arguments.items():
        inward = {0: sympy.Rational(1, 10**40), 1: -sympy.Rational(1, 10**40)}.get(value, 0)
        with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
            beside = at(arguments | {name: value + inward})
            if np.isfinite(beside):
                return beside.real
    raise AssertionError(f"{law.name} is singular at {parameters}")


CASES = [
    (name, law.name, index)
    for name in NAMES
    for law in PREDICTIONS[name].laws
    for index in range(len(law.points))
]


@pytest.mark.parametrize(("prediction", "name", "index"), CASES)
def test_derivation_agrees_with_the_fast_formula(prediction, name, index):
    law = PREDICTIONS[prediction].law(name)
    parameters = law.points[index].parameters
    value = derived(prediction, name, index)
    if np.isnan(value):
        others = [derived(prediction, name, other) for other in range(len(law.points))]
        assert np.isfinite(others).sum() >= 2
    else:
        assert float(law.predict(**parameters)) == pytest.approx(value, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("prediction", NAMES)
def test_each_derivation_has_steps_and_latex(prediction):
    for law in PREDICTIONS[prediction].laws:
        derivation = law.derive()
        assert len(derivation.steps) >= 1
        assert derivation.latex()
